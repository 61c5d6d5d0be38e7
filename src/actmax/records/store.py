"""The record of a job on disk, and the only place that knows its file names.

Every file is written under a temporary name and then renamed, so that a reader sees a whole file or none.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from filelock import FileLock, Timeout

from actmax.errors import BusyError, InputError
from actmax.json_text import from_json
from actmax.settings import check_types

if TYPE_CHECKING:
    import pandas as pd  # half a second, and this module is read before the config is checked
    import pyarrow as pa

VERSION = 5
"""Version of the record's layout; a reader refuses another."""

State = Literal["running", "complete", "interrupted", "failed"]
"""States of a job; `interrupted`: it was stopped by hand, and what it had is kept."""
Table = Literal[
    "jobs",
    "layers",
    "trajectory",
    "restarts",
    "tokens",
    "candidates",
    "units",
    "findings",
    "rarefaction",
    "gaps",
    "theme",
    "meaning",
    "rounding",
    "front",
    "ladder",
    "methods",
    "comparison",
    "rates",
    "effects",
    "correlations",
    "agreement",
    "tuning",
    "shares",
    "replication",
    "decoders",
    "strata",
    "words",
    "balance",
    "skipped",
    "examples",
    "heatmap",
    "contexts",
    "quantiles",
]
FILES = ("status.json", "config.yaml", "summary.json", "report.html", "heatmap.html")
"""Files of a record beside its tables, tensors and logs."""
SCRATCH = re.compile(r"\.([\w-]+\.(?:parquet|safetensors|ckpt|json|yaml|html))\.[a-z0-9_]{8}")
"""Names of files that are being written (`Record.write`): the file's own, and what `mkstemp` adds."""
FOLDERS = ("checkpoints", "logs", "figures", "activations", "wandb")
"""Folders in a record's."""
EARLY = (".hydra", ".lock", "previous")
"""What lies in a job's folder before its record does, or stays when the record is moved aside; so does the log."""
ADDED_TO = ("actmax.log", "wandb")
"""What a job adds to, and never writes over."""
OVER_JOBS = ("sweep.json", "summary.json", "report.html", "figures")
"""What is written over the jobs of a folder, beside tables."""
LONG, DEEPEST = 20_000, 100
"""Characters of a YAML text from which its depth is looked at first, and the deepest that is read; ours has 5."""
APP = "app_name: actmax"
"""A line in what Hydra leaves of our config, and of no other program's."""
Summary = dict[str, Any]
"""The headline numbers of a job by name, as `summary.json` holds them."""


def job_hash(identity: Mapping[str, Any]) -> str:
    """The sha256 of the canonical JSON of whatever identifies a job's work, and of the record's version."""
    text = json.dumps({"record": VERSION, **identity}, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def from_yaml(text: str) -> Any:
    """The content of a YAML text, read by libyaml where PyYAML has it, which is ten times as fast.

    Raises:
        yaml.YAMLError: the text is no YAML, or nested too deeply.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    if len(text) > LONG:
        _refuse_depth(text, loader)
    try:
        return yaml.load(text, Loader=loader)  # noqa: S506
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error


def _refuse_depth(text: str, loader: Any) -> None:
    """Refuses a text that is nested so deeply that libyaml's calls of itself would end the process."""
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.YAMLError("it is nested too deeply")


@dataclass(frozen=True)
class Status:
    """The state of a job, as `status.json` holds it."""

    state: State
    """One of `State`: whether the job runs, or how it ended."""
    job_hash: str
    """Hash of everything that can change the result (`job_hash`)."""
    started: str
    """Time of the start, ISO 8601 in UTC; it names the folder that an old record is moved to."""
    finished: str | None = None
    """Time of the end, ISO 8601 in UTC; None while the job runs."""
    error: dict[str, str] | None = None
    """Type, message and traceback of the error that ended a failed job."""
    version: int = VERSION
    """Version of the record's layout."""
    request: str | None = None
    """Hash of the config, known without loading the weights: a sweep skips a complete job by it."""
    files: list[str] | None = None
    """Files of a complete record, so that one that went away is missed; None in records that say nothing of it."""


class Record:
    """The folder of one job, and the files in it.

    Args:
        folder: the job's folder; on the command line it is Hydra's output folder.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    @property
    def checkpoint(self) -> Path:
        """The file of the newest checkpoint; there is one at most."""
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def lock(self) -> Path:
        """The lock file of the process that works in the folder; the system releases it when that process ends."""
        return self.folder / ".lock"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Holds the folder's lock, so that no other process works in it.

        Raises:
            BusyError: another process holds it.
        """
        lock = FileLock(self.lock)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            allowed = "another process is running this very job there"
            raise BusyError("folder", self.folder, allowed, "Wait for it, or name another folder.") from None
        try:
            yield
        finally:
            lock.release()

    @property
    def busy(self) -> bool:
        """Whether a process works in the folder."""
        if not self.lock.exists():
            return False
        try:
            with self.alone():
                return False
        except BusyError:
            return True

    def settle(self, state: State, message: str) -> Status | None:
        """The status, after its process should have ended; of one that ended without writing it, it is written.

        Args:
            state: the new state of a job that says `running` while no process holds its lock.
            message: the message of that job's error.
        """
        status = self.status()
        if status is None or status.state != "running":
            return status
        try:
            with self.alone():
                status = self.status()
                if status is not None and status.state == "running":
                    error = {"type": "Died", "message": message, "traceback": ""}
                    status = replace(status, state=state, finished=now(), error=error)
                    self.set_status(status)
        except BusyError:
            pass  # a process works on it
        return status

    @property
    def logs(self) -> Path:
        """The folder that loggers write to."""
        return self.folder / "logs"

    def require_space(self, needed: int) -> None:
        """Refuses a folder in which the record does not fit, or that may not be written.

        Args:
            needed: bytes of the record.

        Raises:
            InputError: names the folder.
        """
        way_out = "Name another folder (hydra.run.dir=FOLDER, in a sweep hydra.sweep.dir=FOLDER), or make room."
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            allowed = f"must be a folder that can be written ({error.strerror})"
            raise InputError("folder", self.folder, allowed, way_out) from error
        if free < needed:
            allowed = f"needs {needed / 1e6:.0f} MB for this job, and {free / 1e6:.0f} MB are free"
            raise InputError("folder", self.folder, allowed, way_out)

    def path(self, name: str) -> Path:
        """The path of a file of the record, by the file's name.

        Raises:
            ValueError: a pipe or a device has that name, which a reader would wait for.
        """
        file = self.folder / name
        if file.exists() and not (file.is_file() or file.is_dir()):
            raise ValueError(f"{name} is a pipe or a device")
        return file

    def write(self, name: str, save: Callable[[Path], object]) -> Path:
        """Writes a file whole or not at all: `save` gets a temporary path, which is then renamed."""
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        os.close(handle)
        try:
            save(Path(scratch))
            with Path(scratch).open("rb") as stream:
                os.fsync(stream.fileno())
            Path(scratch).chmod(0o644)
            Path(scratch).replace(target)
        finally:
            Path(scratch).unlink(missing_ok=True)
        return target

    def write_json(self, name: str, content: Mapping[str, Any]) -> Path:
        """Writes JSON; what is not a finite number becomes null, so that any parser reads it."""
        text = json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        return self.write(name, lambda path: path.write_text(text, encoding="utf-8"))

    def write_text(self, name: str, text: str) -> Path:
        """Writes a file of text, in UTF-8."""
        return self.write(name, lambda path: path.write_text(text, encoding="utf-8"))

    def write_table(self, name: str, table: pd.DataFrame) -> Path:
        """Writes a table as a Parquet file, without its index."""
        import pyarrow as pa

        # As pandas' own `to_parquet`, whose threads cost more than they bring where a row has 171 columns.
        return self.write_arrow(name, pa.Table.from_pandas(table, preserve_index=False, nthreads=1))

    def write_arrow(self, name: str, table: pa.Table) -> Path:
        """Writes a Parquet table from an Arrow table."""
        from pyarrow import parquet

        return self.write(f"{name}.parquet", lambda path: parquet.write_table(table, path))

    def write_tensors(self, name: str, tensors: Mapping[str, Any]) -> Path:
        """Writes tensors by name as a safetensors file, which carries a digest of them."""
        from safetensors.torch import save_file

        whole = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        digest = {"sha256": _digest(whole)}
        return self.write(f"{name}.safetensors", lambda path: save_file(whole, path, digest))

    def table(self, name: str) -> pd.DataFrame:
        """Reads the table of that name."""
        import pandas as pd

        return pd.read_parquet(self.path(f"{name}.parquet"))

    def summary(self) -> Summary:
        """Reads the headline numbers, `summary.json`."""
        return from_json(self.path("summary.json").read_text(encoding="utf-8"))

    def status(self) -> Status | None:
        """Reads `status.json`; None where there is none.

        Raises:
            InputError: it is damaged, or of another version.
        """
        file = self.folder / "status.json"
        if not file.exists():
            return None
        try:
            status = _status(from_json(self.path("status.json").read_text(encoding="utf-8")))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(str(file), "damaged", "must be a record's status", "Move that folder away.") from error
        if status.version != VERSION:
            raise InputError(
                str(file), f"version {status.version}", f"must be of version {VERSION}", "Move that folder away."
            )
        return status

    @property
    def files(self) -> list[str]:
        """The names of the record's files that hold what its job found."""
        left_out = ("status.json", "report.html")
        owned = [item.name for item in self.folder.iterdir() if item.is_file() and self._owns(item)]
        return sorted(name for name in owned if name not in left_out and name[0] != "." and not name.endswith(".csv"))

    def missing(self, status: Status) -> list[str]:
        """The files of a complete record that are not there any more."""
        needed = ["config.yaml", "summary.json"] if status.files is None else status.files
        return [name for name in needed if not (self.folder / name).is_file()]

    def require_whole(self, status: Status) -> None:
        """Refuses a complete record of which a file is missing, or cannot be read.

        Raises:
            InputError: names the file.
        """
        damage = dict.fromkeys(self.missing(status)[:1], "is missing") or self._damage()
        for name, how in damage.items():
            way_out = "force=true moves that record aside and runs the job again."
            raise InputError("folder", self.folder, f"its record is damaged: {name} {how}", way_out)

    def _damage(self) -> dict[str, str]:
        """The first file that cannot be read, with the reason."""
        import pyarrow.parquet as pq

        readers: dict[str, Callable[[Path], object]] = {
            ".json": lambda file: dict(from_json(file.read_text(encoding="utf-8"))),
            ".yaml": lambda file: dict(from_yaml(file.read_text(encoding="utf-8"))),
            ".parquet": lambda file: pq.ParquetFile(file).read(use_threads=False),
            ".safetensors": _check_tensors,
        }
        for name in self.files:
            try:
                readers.get(Path(name).suffix, lambda file: file.stat())(self.path(name))
            except ChangedError:
                return {name: "holds other numbers than were written"}
            except Exception as error:  # a damaged file can raise anything
                return {name: f"cannot be read ({type(error).__name__})"}
        return {}

    def move_aside(self) -> None:
        """Moves an old record into `previous/TIME`; nothing is deleted, and what is no record's stays."""
        items = [item for item in self.folder.iterdir() if self._owns(item)]
        if items:
            aside = self.folder / "previous" / now().replace(":", "-")
            aside.mkdir(parents=True)
            for item in items:
                item.rename(aside / item.name)

    def _owns(self, item: Path) -> bool:
        """Whether a file or folder here is the record's, by the names that records use."""
        if item.is_dir():
            return item.name in FOLDERS
        table = item.suffix == ".csv" and item.with_suffix(".parquet").exists()
        return item.name in FILES or item.suffix in (".parquet", ".safetensors") or table or self._scratch(item)

    def _scratch(self, item: Path) -> bool:
        """Whether a file was being written when its process was killed (`write`)."""
        return SCRATCH.fullmatch(item.name) is not None

    def clean(self) -> None:
        """Deletes what a killed process was writing; whoever calls it holds the folder's lock."""
        for folder in (self.folder, self.checkpoint.parent):
            for item in folder.glob(".*") if folder.is_dir() else ():
                if self._scratch(item) and item.is_file() and not item.is_symlink():
                    item.unlink()

    @property
    def known(self) -> bool:
        """Whether the folder is a job's: it holds a status, of any version, or what Hydra leaves of our config."""
        try:
            status = from_json(self.path("status.json").read_text(encoding="utf-8"))
            if isinstance(status, dict) and {"state", "job_hash", "version"} <= set(status):
                return True
        except (OSError, ValueError):
            pass  # missing, or damaged
        return _says(self.folder / ".hydra" / "hydra.yaml", APP)

    def refuse_strangers(self) -> None:
        """Refuses a folder that holds something else than a job's record, so that nothing of it is ever written over.

        Raises:
            InputError: names what lies there.
        """
        if not self.folder.is_dir() or self.known:
            return
        items = sorted(self.folder.iterdir())
        strangers = [
            item.name for item in items if item.name not in (*EARLY[1:], *ADDED_TO) and not self._scratch(item)
        ]
        if strangers:
            allowed = f"it holds something else than a job's record ({_listed(strangers)})"
            raise InputError("folder", self.folder, allowed, "Name a new folder, or an empty one.")

    def refuse_other_tables(self, names: Iterable[str]) -> None:
        """Refuses to write what several jobs say together over files of somebody else.

        Args:
            names: tables that are going to be written.

        Raises:
            InputError: names the files.
        """
        try:
            summary = from_json(self.path("sweep.json").read_text(encoding="utf-8"))
            collected = isinstance(summary, dict) and {"sweep", "collected"} <= set(summary)
        except (OSError, ValueError):
            collected = False
        if collected or _says(self.folder / "multirun.yaml", APP):
            return
        written = [*OVER_JOBS, "multirun.yaml", *(f"{name}.{kind}" for name in names for kind in ("parquet", "csv"))]
        if others := [name for name in written if (self.folder / name).exists()]:
            allowed = f"it holds files of these names that actmax did not write: {_listed(others)}"
            raise InputError("folder", self.folder, allowed, "Move them away, or collect another folder.")

    def set_status(self, status: Status) -> None:
        """Writes the status as `status.json`."""
        self.write_json("status.json", vars(status))


def _status(content: Any) -> Status:
    """A status as its file has it.

    Raises:
        TypeError: it is no mapping, or has other keys.
        ValueError: a value is of the wrong kind, or no time.
    """
    if content["version"] == VERSION:
        check_types(content, Status)
        for time in (content["started"], content["finished"]):
            if time is not None:
                datetime.fromisoformat(time)
    return Status(**content)


class ChangedError(ValueError):
    """A file's content is not what was written."""


def _digest(tensors: Mapping[str, Any]) -> str:
    """sha256 over names, kinds, shapes and bytes of tensors."""
    import torch

    whole = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        whole.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return whole.hexdigest()


def _check_tensors(file: Path) -> None:
    """Reads a file of tensors.

    Raises:
        ChangedError: they are not those that were written; files from before digests were kept are taken as they are.
        Exception: it is no such file.
    """
    from safetensors import safe_open

    with safe_open(file, "pt") as stream:
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 no mapping
        kept = (stream.metadata() or {}).get("sha256")
    if kept is not None and kept != _digest(tensors):
        raise ChangedError(file)


def _says(file: Path, line: str) -> bool:
    """Whether a file holds some text; not where it cannot be read."""
    try:
        return file.is_file() and line in file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _listed(names: Sequence[str], most: int = 5) -> str:
    """Some names as a clause, the first ones where there are many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def now() -> str:
    """The current time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def finite(value: Any) -> Any:
    """A value as JSON can hold it: numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
