"""What is published: the source, the wheel that is made of it, and that wheel in an empty environment and folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import venv
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import pytest

from cli import QUICK
from test_docs import PYTHON, SMALLER

ROOT = Path(__file__).parents[1]
CARRIED = ("py.typed", "__init__.pyi", "text/passages.txt", "report/page.html", "report/page.css", "report/page.js")
"""Files of the package that are no Python, some of each kind; conf/ is beside them."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, and the wheel that is made of it alone."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    made = subprocess.run(build, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    return folder


@pytest.fixture
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


def checked(*files: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class TestWhatIsPublished:
    def test_a_package_index_would_take_it(self, dist: Path) -> None:
        files = sorted(dist.iterdir())
        assert [file.suffix for file in files] == [".whl", ".gz"]
        ran = checked(*files)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert ran.stdout.count("PASSED") == 2

    def test_what_it_would_not_take_is_noticed(self, wheel: Path, tmp_path: Path) -> None:
        other = tmp_path / wheel.name
        with ZipFile(wheel) as before, ZipFile(other, "w") as after:
            for name in before.namelist():
                content = before.read(name)
                if name.endswith("METADATA"):
                    assert b"text/markdown" in content
                    content = content.replace(b"text/markdown", b"text/handwriting")
                after.writestr(name, content)
        assert checked(other).returncode != 0

    def test_it_holds_what_is_no_python_too(self, wheel: Path, dist: Path) -> None:
        with ZipFile(wheel) as file:
            names = set(file.namelist())
            (about,) = [name for name in names if name.endswith("METADATA")]
            said = message_from_bytes(file.read(about))
        assert {f"actmax/{name}" for name in CARRIED} <= names
        conf = {f"actmax/{one.relative_to(ROOT)}" for one in (ROOT / "conf").rglob("*.yaml")}
        assert conf <= names
        assert "Typing :: Typed" in said.get_all("Classifier", [])
        assert (said["Name"], said["License-Expression"]) == ("actmax", "MIT")
        assert str(said.get_payload()).startswith("# actmax\n")
        (source,) = dist.glob("*.tar.gz")
        with tarfile.open(source) as archive:
            packed = {name.partition("/")[2] for name in archive.getnames()}
        assert {"CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "README.md", "conf/config.yaml"} <= packed


@pytest.mark.timeout(1800)
def test_the_wheel_runs_by_itself(wheel: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    venv.create(tmp_path / "venv", with_pip=True)
    tools = tmp_path / "venv" / "bin"
    install = [str(tools / "python"), "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*install, str(wheel)], check=True, env=environment)
    empty = tmp_path / "empty"
    empty.mkdir()
    command = [str(tools / "actmax"), "experiment=reproducibility", "subject=tiny", *QUICK]
    ran = subprocess.run(command, cwd=empty, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
    (job,) = (empty / "outputs" / "reproducibility").glob("tiny_*")
    summary = json.loads((job / "summary.json").read_text())
    assert summary["tokens_total"] == 50
    assert "would another start give the same answer?" in ran.stdout
    sweep = [str(tools / "actmax"), "-m", "subject=tiny", "steps=2", "seeds=0,1", "sweep=s", *QUICK]
    swept = subprocess.run(sweep, cwd=empty, capture_output=True, text=True, env=environment)
    assert swept.returncode == 0, swept.stderr
    assert json.loads((empty / "outputs/s/sweep.json").read_text())["jobs"]["complete"] == 2
    collected = subprocess.run([str(tools / "actmax-report"), "outputs/s"], cwd=empty, capture_output=True, text=True)
    assert collected.returncode == 0, collected.stderr
    assert (empty / "outputs/s/report.html").stat().st_size > 10_000
    alone = subprocess.run([str(tools / "actmax")], cwd=empty, capture_output=True, text=True, env=environment)
    assert (alone.returncode, alone.stderr) == (0, "")
    assert "actmax experiments" in alone.stdout
    block = PYTHON.findall((ROOT / "README.md").read_text(encoding="utf-8"))[0]
    for said, run in SMALLER.items():
        block = block.replace(said, run)
    python = [str(tools / "python"), "-c", block]
    typed = subprocess.run(python, cwd=empty, capture_output=True, text=True, env=environment)
    assert typed.returncode == 0, typed.stderr
    assert "would another start give the same answer?" in typed.stdout
    lacking = subprocess.run([*sweep, "launch=gpus"], cwd=empty, capture_output=True, text=True, env=environment)
    assert lacking.returncode == 2
    assert "pip install 'actmax[ray]'" in lacking.stderr
