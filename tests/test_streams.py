"""Nobody reads what a command prints, its terminal lacks a letter, or it is stopped: the exit code says what is so."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli import QUICK, Actmax, Ran

JOB = ("subject=tiny", "steps=3", *QUICK, "nulls.draws=39", "hydra.run.dir=job")
REPORT = f"{sys.executable} -c 'from actmax.__main__ import report; report()' job"
COMMANDS = {"actmax": f"{sys.executable} -m actmax {shlex.join(JOB)}", "actmax-report": REPORT}


@pytest.fixture
def ran(actmax: Actmax) -> Ran:
    """A complete job, which commands show again."""
    done = actmax(*JOB, "report=false")
    assert done.code == 0, done.err
    return done


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=120)


CLOSED = ("| head -1; exit ${PIPESTATUS[0]}", "| true; exit ${PIPESTATUS[0]}", ">&-", ">&- 2>&-", "> /dev/full")
QUICKLY = {("actmax", CLOSED[0]), ("actmax", CLOSED[4]), ("actmax-report", CLOSED[3])}
"""What is tried in every run of the tests; the rest, a process of its own each, in the slow ones."""
WAYS = [
    pytest.param(command, closed, marks=() if (command, closed) in QUICKLY else pytest.mark.slow)
    for command in COMMANDS
    for closed in CLOSED
]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "closed"), WAYS)
def test_a_complete_job_is_0_whatever_becomes_of_its_output(ran: Ran, command: str, closed: str) -> None:
    done = shell(f"{COMMANDS[command]} {closed}", ran.folder)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert ("nothing more can be written" in done.stderr) == ("/dev/full" in closed)


@pytest.mark.parametrize("command", ["actmax", pytest.param("actmax-report", marks=pytest.mark.slow)])
def test_a_letter_that_the_terminal_lacks_is_an_escape(ran: Ran, command: str) -> None:
    done = shell(f"PYTHONIOENCODING=ascii {COMMANDS[command]}", ran.folder)
    assert done.returncode == 0, done.stderr
    assert "\\xb7" in done.stdout or "\\u" in done.stdout
    assert "would another start give the same answer?" in done.stdout


def test_a_wrong_command_is_still_2(tmp_path: Path) -> None:
    line = f"{sys.executable} -m actmax subject=tiny steps=0"
    assert shell(f"{line} >&- 2>&-", tmp_path).returncode == 2
    assert shell(f"{line} | true; exit ${{PIPESTATUS[0]}}", tmp_path).returncode == 2


def test_a_report_stopped_by_hand_is_130(ran: Ran) -> None:
    begin = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from actmax.__main__ import report"
    )
    command = [sys.executable, "-c", f"{begin}; print('begun', flush=True); report()", "job"]
    process = subprocess.Popen(command, cwd=ran.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err == "actmax-report: stopped\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_report_of_a_folder_that_may_not_be_written(ran: Ran) -> None:
    (ran.folder / "job").chmod(0o500)
    done = shell(REPORT, ran.folder)
    (ran.folder / "job").chmod(0o700)
    assert done.returncode == 2
    assert "Copy the folder" in done.stderr


def test_a_report_that_cannot_be_written_names_the_file(ran: Ran) -> None:
    (ran.folder / "job/report.html").mkdir()
    (ran.folder / "job/report.html/mine").touch()
    done = shell(REPORT, ran.folder)
    assert done.returncode == 2
    assert done.stderr.startswith("actmax-report: DIR=job: pages and tables cannot be written there")
    assert "Copy the folder" in done.stderr
    assert "Traceback" not in done.stderr
