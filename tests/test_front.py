"""The front door: what `actmax` says by itself, the list of experiments, and --help."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra.errors import HydraException

from actmax.app import config, front
from actmax.choices import about, choices
from cli import Actmax
from test_docs import checked

CONF = config.conf_folder()
HEAVY = ("torch", "transformers", "lightning", "pandas", "scipy", "matplotlib")


def shown(text: str) -> list[list[str]]:
    """What stands behind `actmax` on the lines that begin with it; a remark stands two spaces behind it or more."""
    lines = [line.strip().partition("   ")[0] for line in text.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("actmax ")]


def imported(*arguments: str, before: str = "") -> list[str]:
    """The heavy packages that a command has imported by its end, in a process of its own."""
    script = (
        f"import json, sys\n{before}\n"
        "try:\n    from actmax.__main__ import main\n    main()\n"
        f"finally:\n    print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    )
    ran = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    return json.loads(ran.stdout.splitlines()[-1])


class TestByItself:
    def test_says_what_one_can_do_and_starts_nothing(self, actmax: Actmax) -> None:
        ran = actmax()
        assert (ran.code, ran.err) == (0, "")
        assert list(ran.folder.iterdir()) == []
        lines = ran.out.splitlines()
        assert 10 <= len(lines) <= 14
        assert max(map(len, lines)) <= 110
        assert "actmax task=maximization" in lines[-1]  # what it used to start

    def test_every_command_is_one_that_the_app_takes(self, actmax: Actmax) -> None:
        commands = shown(actmax().out)
        assert ["experiments"] in commands
        jobs = [words for words in commands if words not in (["experiments"], ["--help"])]
        assert len(jobs) == 3
        for words in jobs:
            checked(words)

    def test_a_command_that_it_does_not_take_is_noticed(self) -> None:
        (words,) = shown("  actmax experiment=reproducibilty subject=smollm2   would another start?")
        with pytest.raises(HydraException):
            checked(words)


def test_with_an_argument_it_is_a_job(actmax: Actmax) -> None:
    ran = actmax("task=maximization", "steps=0")  # by itself it would have said what one can do
    assert ran.code == 2
    assert "steps=0" in ran.err


@pytest.mark.parametrize("arguments", [(), (front.EXPERIMENTS,), ("--help",)], ids=["alone", "experiments", "help"])
def test_nothing_heavy_is_imported(arguments: tuple[str, ...]) -> None:
    assert imported(*arguments) == []


def test_what_is_heavy_is_noticed() -> None:
    assert imported(before="import scipy") == ["scipy"]


class TestExperiments:
    def test_each_is_a_line_with_the_first_line_of_its_file(self, actmax: Actmax) -> None:
        ran = actmax(front.EXPERIMENTS)
        assert ran.code == 0
        files = sorted((CONF / "experiment").glob("*.yaml"))
        assert len(files) >= 11
        lines = ran.out.splitlines()
        for file in files:
            comment = file.read_text().splitlines()[1].removeprefix("# ").removesuffix(".")
            (line,) = [line for line in lines if line.split()[:1] == [file.stem]]
            assert line.endswith(f"  {comment}")
            swept = yaml.safe_load(file.read_text()).get("hydra", {}).get("mode") == "MULTIRUN"
            assert line.split()[1] == ("sweep" if swept else "job")

    @pytest.mark.parametrize("name", choices("experiment"))
    def test_the_first_line_is_whole(self, name: str) -> None:
        head, first, *rest = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()
        assert head == "# @package _global_"
        assert first.startswith("# ")
        assert len(about("experiment", name)) <= 110
        if rest[0].startswith("#") and not rest[0].startswith("# actmax "):
            assert first.endswith((".", "?"))  # else a reader of the list gets half a sentence

    def test_the_command_at_its_head_holds_for_each(self) -> None:
        head = front.experiments().splitlines()[0]
        assert "actmax experiment=NAME subject=smollm2" in head


class TestHelp:
    def test_every_choice_stands_in_one_group_of_what_it_is_about(self, actmax: Actmax) -> None:
        text = " ".join(actmax("--help").out.split())
        for folder in (one for one in CONF.iterdir() if one.is_dir()):
            assert text.count(f" {folder.name}= ") == 1
            assert f" {folder.name}= {', '.join(choices(folder.name))}" in text
        assert front.OTHERS not in text

    def test_every_key_is_there(self, actmax: Actmax) -> None:
        text = " ".join(actmax("--help").out.split())
        shown = json.loads(json.dumps(yaml.safe_load(actmax("--cfg", "job").out)))
        for name, value in shown.items():
            if isinstance(value, dict):
                assert f" {name}. {', '.join(value)}" in text
            else:
                assert f"{name}," in text or f", {name} " in text

    def test_choices_of_ones_own_are_there_too(self, actmax: Actmax, tmp_path: Path) -> None:
        for group, name in (("experiment", "mine"), ("flavour", "salty")):
            (tmp_path / "conf" / group).mkdir(parents=True)
            (tmp_path / "conf" / group / f"{name}.yaml").write_text("# @package _global_\nsteps: 7\n")
        text = " ".join(actmax("--config-dir", str(tmp_path / "conf"), "--help").out.split())
        assert ", layers, max_examples, mine, nouns_verbs, " in text
        assert f"{front.OTHERS} flavour= salty" in text

    def test_its_commands_are_ones_that_the_app_takes(self, actmax: Actmax) -> None:
        ran = actmax("--help")
        assert ran.code == 0
        commands = [words for words in shown(ran.out) if "GROUP=CHOICE" not in " ".join(words)]
        assert ["experiment=reproducibility", "subject=smollm2"] in commands
        assert len(commands) >= 4
        for words in commands:
            checked(words)
