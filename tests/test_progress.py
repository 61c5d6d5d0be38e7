"""Bars on terminals, plain lines elsewhere, nothing when switched off; stdout is never touched."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import numpy as np
import pytest
from tqdm import auto, notebook
from tqdm.std import tqdm as plain_tqdm

from actmax import progress
from actmax.progress import Bar, shown, track
from actmax.stats import compare, groups


class Terminal(io.StringIO):
    """A stream that takes itself for a terminal."""

    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """No fixture: pytest puts its own stderr in place between a fixture and its test."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_lines_name_what_is_under_way(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("search", 20, unit="pass", start=2, seconds=0) as bar:
        bar.advance(3)
        bar.reach(20)
    with Bar("text", unit="token", seconds=0) as bar:
        bar.advance(7, lambda: "activation 1.5")
    out, err = capsys.readouterr()
    expected = ["search: pass 5 of 20, 00:00 left", "search: pass 20 of 20", "text: token 7, activation 1.5"]
    assert err.splitlines() == [f"actmax: {line}" for line in expected]
    assert out == ""


def test_lines_come_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    noted = []
    with Bar("fit", 100, unit="step") as bar:
        for step in range(1, 51):
            now[0] = step * 1.0
            bar.advance(note=lambda: noted.append(now[0]) or "")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" of ")[0] for line in lines] == [f"actmax: fit: step {n}" for n in (11, 22, 33, 44)]
    assert noted == [11.0, 22.0, 33.0, 44.0]  # what is costly to say is made only where it is said


def test_a_line_says_what_is_left_at_the_pace_so_far(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Bar("fit", 10**6, unit="step", start=1000) as bar, Bar("text", unit="token") as text:
        now[0] += 20
        bar.advance(10)  # 2 s each; the 1,000 before took none of these
        text.advance(10)
        bar.reach(10**6)
        now[0] += 20
        bar.advance(0)
    left = 2 * (10**6 - 1010)
    expected = f"step 1010 of 1000000, {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"actmax: fit: {expected}", "actmax: text: token 10", "actmax: fit: step 1000000 of 1000000"]


def test_steps_of_an_earlier_run_say_nothing_about_the_pace(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Bar("search", 1000, unit="pass") as bar, Bar("other", 1000, unit="pass") as other:
        now[0] += 20  # what was done before is put together, which takes its time too
        bar.resume(800)
        other.reach(800)
        now[0] += 20
        bar.reach(810)
        other.reach(810)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2] == "actmax: search: pass 810 of 1000, 06:20 left"
    assert lines[-1] == "actmax: other: pass 810 of 1000, 00:09 left"  # the control: without being told


def test_a_terminal_gets_a_bar_and_no_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = on_terminal(monkeypatch)
    with Bar("search", 20, unit="pass", seconds=0) as bar:
        bar.advance(20)
    assert "search: 100%" in terminal.getvalue()
    assert "20/20" in terminal.getvalue()
    assert "actmax:" not in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_nor_do_they_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    def left(go_on: Callable[[Bar], None]) -> float:
        """Seconds that the bar says are left after 10 passes of 1 s each; 90 s went by before, for 800 of old."""
        on_terminal(monkeypatch)
        with Bar("search", 1000, unit="pass", seconds=0) as bar:
            assert bar._bar is not None
            bar._bar.start_t -= 90
            go_on(bar)
            bar._bar.start_t -= 10
            bar.advance(10)
            shown = bar._bar.format_dict
        return (1000 - shown["n"]) * shown["elapsed"] / (shown["n"] - shown["initial"])

    assert left(lambda bar: bar.resume(800)) == pytest.approx(190, rel=0.1)
    assert left(lambda bar: bar.reach(800)) < 50  # the control: without being told


@pytest.mark.parametrize("bars", [False, True])
def test_nothing_is_shown_when_switched_off(
    bars: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if bars:
        monkeypatch.setattr(progress, "_bar_class", lambda: plain_tqdm)
    monkeypatch.setattr(progress, "SECONDS", 0.0)

    def work() -> str:
        with Bar("search", 2, unit="pass", seconds=0) as bar:
            bar.advance(2)
        assert list(track([1, 2], "numbers", unit="number")) == [1, 2]
        return "".join(capsys.readouterr())

    with shown(False):
        assert work() == ""
        with shown(True):
            assert work() == ""
    assert "search" in work()  # negative control: it is the switch, and it is off only inside


def test_the_bar_is_closed_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    bar = Bar("search", 20, unit="pass")
    with pytest.raises(RuntimeError), bar:
        raise RuntimeError
    assert terminal.getvalue().endswith("\n")
    bar.close()  # a second time is no mistake


def test_track_passes_everything_on_and_says_nothing_about_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    assert list(track([], "pages", unit="job")) == []
    assert terminal.getvalue() == ""
    assert list(track("abc", "pages", unit="job")) == ["a", "b", "c"]
    assert "3/3" in terminal.getvalue()


def test_a_notebook_is_told_by_tqdms_own_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "tqdm", notebook.tqdm)
    assert progress._bar_class() is notebook.tqdm
    monkeypatch.setattr(auto, "tqdm", plain_tqdm)
    assert progress._bar_class() is None
    on_terminal(monkeypatch)
    assert progress._bar_class() is plain_tqdm


def test_a_long_comparison_shows_a_bar_and_a_short_one_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    x, labels = np.random.default_rng(0).standard_normal((20, 6)), np.repeat([0, 1], 10)
    terminal = on_terminal(monkeypatch)
    compare(x, labels)
    assert terminal.getvalue() == ""
    monkeypatch.setattr(groups, "DELAY", 0)
    compare(x, labels)
    assert "comparison: 100%" in terminal.getvalue()
    assert capsys.readouterr().out == ""
