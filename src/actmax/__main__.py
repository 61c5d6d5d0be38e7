"""The command line: one Hydra app, with exit codes that a script can rely on.

0 done; 1 a job failed; 2 the user's input is wrong; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Iterator
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from actmax.app import config, front
from actmax.app.streams import steady
from actmax.choices import choices
from actmax.errors import InputError, JobError, printable
from actmax.search.settings import METHOD_NAMES
from actmax.settings import GROUP, inside, keys, kind_at, meant

FULL_ERROR = "HYDRA_FULL_ERROR"


def job(cfg: DictConfig) -> None:
    """Runs one job, as Hydra calls it. Heavy imports wait until the config has been checked."""
    config.check(cfg)
    config.check_subject(cfg)
    from actmax.app.run import run

    run(cfg)


def main() -> None:
    """The console script `actmax`; by itself it says what one can do, and starts nothing."""
    with steady():
        if sys.argv[1:] in ([], [front.EXPERIMENTS]):
            print(front.experiments() if sys.argv[1:] else front.WELCOME)  # noqa: T201
        else:
            _run()


def report() -> None:
    """The console script `actmax-report`."""
    try:
        from actmax.app.report import main as show  # which takes a second: Ctrl-C may come before

        show()
    except KeyboardInterrupt:
        print("actmax-report: stopped", file=sys.stderr)  # noqa: T201
        sys.exit(130)


def _run() -> None:
    config.register()
    wants_traceback = os.environ.get(FULL_ERROR) == "1"
    os.environ[FULL_ERROR] = "1"  # Hydra then hands its errors on, instead of ending the process with 1
    try:
        _check_arguments()
        hydra.main(version_base="1.3", config_path=str(config.conf_folder()), config_name="config")(job)()
    except KeyboardInterrupt:
        print("actmax: stopped", file=sys.stderr)  # noqa: T201
        sys.exit(130)
    except Exception as error:  # every error ends as one message and an exit code
        if wants_traceback:
            traceback.print_exc()
        code, message = explain(error)
        print(f"actmax: {printable(message)}", file=sys.stderr)  # noqa: T201
        sys.exit(code)


def _check_arguments() -> None:
    """Refuses what is neither an override nor an option of Hydra's, whose own parser prints it as it is.

    Raises:
        HydraException: says what it is.
    """

    def refuse(message: str) -> NoReturn:
        raise HydraException(f"{message}; options such as -m stand before all keys")

    parser = get_args_parser()
    parser.error = refuse
    parser.parse_args()


def explain(error: BaseException) -> tuple[int, str]:
    """The exit code of an error, and the message that is printed."""
    chain = list(_chain(error))
    for link in _origins(error):
        if isinstance(link, InputError):
            return 2, str(link)
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        if (wrong := _unknown(str(error)) or _mistyped(error)) is not None:
            return 2, str(wrong)
        messages = list(dict.fromkeys(str(link).strip() for link in chain))
        for extra, launcher in (("ray", "ray"), ("slurm", "submitit_slurm")):
            if f"hydra/launcher/{launcher}" in messages[0]:
                messages.append(f"This launcher needs its extra: pip install 'actmax[{extra}]'.")
        for search in METHOD_NAMES:
            if f"prior/{search}" in messages[0]:
                messages.append(
                    f"A search is no prior: task=search search={search}, or in a sweep method=none,{search}."
                )
        return 2, "\n".join(messages) + "\nSee `actmax --help` for the keys and their values."
    if (chosen := _null_group(error)) is not None:
        return 2, str(chosen)
    if isinstance(error, OSError) and error.filename is not None:
        allowed = f"it cannot be read or written ({error.strerror})"
        way_out = (
            "Where it is in the output folder, name another: hydra.run.dir=FOLDER, in a sweep hydra.sweep.dir=FOLDER."
        )
        return 2, str(InputError("the file", error.filename, allowed, way_out))
    if _raised_in_hydra(error):
        return 2, f"Hydra does not take what was given ({type(error).__name__}: {str(error) or 'no more is said'})"
    return 1, str(error) if isinstance(error, JobError) else f"{type(error).__name__}: {error}"


def _raised_in_hydra(error: BaseException) -> bool:
    """Whether the last call on the way to an error is one of Hydra's: its own options raise errors of many kinds."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and str(frames[-1].f_globals.get("__name__")).startswith("hydra.")


def _unknown(message: str) -> InputError | None:
    """The error of a key that there is not, in the place of Hydra's, whose hint is to add it; nobody would read it.

    Under a group that takes any key (callbacks, the options of PyTorch's optimizer) that hint is right, and stays.
    """
    found = re.search(r"Could not override '([^']+)'\.\nTo append to your config use \+[^=\n]*(?:=(.*))?", message)
    if found is None:
        return None
    key, value = found.groups()
    *groups, name = key.split(".")
    known = keys(config.schema(), *groups)
    prefix = ".".join([*groups, ""])
    if known is None:
        return None
    way_out = meant(name, known, prefix) or inside(name, config.schema())
    return InputError(key, value, "there is no such key", way_out)


def _mistyped(error: BaseException) -> InputError | None:
    """The error of a value that its key cannot have, in the place of OmegaConf's, which speaks of its own types."""
    link = next((one for one in _origins(error) if isinstance(one, OmegaConfBaseException) and one.full_key), None)
    if link is None or isinstance(link, (ConfigAttributeError, ConfigKeyError)):  # no such key
        return None
    key = str(link.full_key)
    found = re.match(r"Error merging override (.*)", str(error))
    given = (one.lstrip("+").partition("=") for one in ([found[1]] if found else sys.argv[1:]))
    value = next((value for name, _, value in given if name == key), getattr(link, "value", None))
    reason, kind = str(link).splitlines()[0], kind_at(config.schema(), key)
    if not kind or isinstance(link, InterpolationResolutionError):
        return InputError(key, value, f"cannot be taken ({reason})", f"It must be {kind}." if kind else "")
    if isinstance(link, MissingMandatoryValue):
        value = "???"
    names = keys(config.schema(), *key.split(".")) if kind == GROUP else None
    way_out = f"Set its keys one by one, as in {key}.{names[0]}=VALUE." if names else ""
    return InputError(key, value, f"must be {kind}", way_out)


def _null_group(error: BaseException) -> InputError | None:
    """The error of a group of which nothing was chosen; Hydra's names no group."""
    if "Config group override must be a string or a list" not in str(error):
        return None
    given = (argument.lstrip("+").partition("=") for argument in sys.argv[1:])
    key, value = next(((key, value) for key, _, value in given if choices(key) and value not in choices(key)), ("", ""))
    return InputError(key or "a group", value or "null", f"must be one of {', '.join(choices(key))}")


def _origins(error: BaseException) -> Iterator[BaseException]:
    """An error and everything that it came from, by cause and by context.

    Both count: under a debugger or a coverage tool OmegaConf names causes that lead in a circle past what a resolver
    raised, and otherwise it names none.
    """
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        link = waiting.pop(0)
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            yield link
            waiting += [link.__cause__, link.__context__]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from; each once, for OmegaConf's chains can be circles.

    The context counts too: OmegaConf drops the cause of what a resolver raises.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


if __name__ == "__main__":
    main()
