"""The pages of real runs on the tiny subject in Chromium, at phone and desktop width."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from actmax.records.store import Record
from actmax.report import notebook
from actmax.report.pages import page_of
from actmax.report.source import Source
from actmax.tasks.collect import collect
from actmax.tasks.pages import describe, write_job
from actmax.tasks.sweep_page import write_sweep
from cli import QUICK, Actmax

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="needs chromium and chromium-driver"),
]
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
WIDTHS = {"phone": 390, "desktop": 1280}
OVERFLOW = """
return [...document.querySelectorAll("body *")]
  .filter((one) => !one.closest(".scroll table, pre, .coloured, .plot img"))
  .filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
  .map((one) => one.tagName + ": " + one.textContent.slice(0, 40));
"""


class Browser:
    """Chromium, with what a page said and asked for."""

    def __init__(self, profile: Path) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for option in (*OPTIONS, f"--user-data-dir={profile}"):
            options.add_argument(option)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))

    def open(self, file: Path, width: int) -> None:
        """Loads a page as wide as that: a window cannot be narrower than 500 pixels, but the device can."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)  # of the page before
        self.driver.get(file.as_uri())

    def asks(self) -> list[str]:
        """What the page requested, but for itself and what is in it."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith(("file:", "data:"))]

    def says(self) -> list[str]:
        """What the page left on the console."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def run(self, script: str, *arguments: object) -> object:
        return self.driver.execute_script(script, *arguments)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.driver.quit()


RUNS = {
    "maximization": ("subject=tiny", "steps=6", "seeds='0:4'"),
    "units": ("subject=tiny", "steps=6", "seeds='0:3'", "unit.index='0:12'"),
    "search": (
        "task=search",
        "subject=tiny",
        "seeds=[0,1]",
        "search.passes=16",
        "search.candidates=8",
        "search=epo",
    ),
    "simulation": ("task=simulation", "simulation.effects=[0.0,1.0,5.0]", "simulation.repetitions=40"),
    "sweep": ("-m", "subject=tiny", "steps=4", "sweep=s", "seeds='0:2'", "unit.layer=1,4,8"),
    "failed": ("subject=tiny", "seeds=0", "steps=8", "+callbacks.failing._target_=cli.Failing"),
}


def made(name: str, actmax: Actmax) -> Path:
    quick = [one for one in QUICK if "=" in one and (name != "simulation" or one.startswith(("logger", "page")))]
    ran = actmax(*RUNS[name], *quick)
    assert ran.code == (1 if name == "failed" else 0), ran.err
    return write_sweep(collect(ran.folder / "outputs/s")) if name == "sweep" else write_job(Record(ran.job))


def sort(browser: Browser, head: str) -> list[str]:
    """Presses the first column head of that name, and gives the column from top to bottom."""
    return browser.run(  # pyright: ignore[reportReturnType]
        """const heads = [...document.querySelectorAll("table.sortable th")];
        const head = heads.find((one) => one.innerText.startsWith(arguments[0]));
        head.querySelector("button").click();
        return [...head.closest("table").tBodies[0].rows].map((row) => row.cells[head.cellIndex].dataset.key);""",
        head,
    )


@pytest.mark.parametrize("name", RUNS)
def test_pages_load_and_fit(name: str, browser: Browser, actmax: Actmax) -> None:
    file = made(name, actmax)
    for words, width in WIDTHS.items():
        browser.open(file, width)
        assert browser.run("return innerWidth") == width
        assert browser.says() == [], words
        assert browser.asks() == [], words
        assert browser.run("return document.scrollingElement.scrollWidth") <= width, words
        assert browser.run(OVERFLOW) == [], words
        assert browser.run("return [...document.images].every((one) => one.complete && one.naturalWidth > 0)")


def test_a_table_sorts_by_number(browser: Browser, actmax: Actmax) -> None:
    file = made("maximization", actmax)
    activations = pd.read_parquet(file.parent / "restarts.parquet")["activation_final"].tolist()
    browser.open(file, 1280)
    for head in ("optimum", "activation"):  # the second is shown as "start → end", and sorted by its end
        for expected in (sorted(activations), sorted(activations, reverse=True)):
            found = [float(key) for key in sort(browser, head)]
            assert found == pytest.approx(expected)


NOTEBOOK = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 20px; background: {paper}; color: {ink}; font: 14px sans-serif; }}
.output td {{ text-align: right; }}  /* what notebooks do to tables */
</style><table id="outside"><tr><th>n</th><td>1</td></tr></table><p id="other">text</p>
<div class="output">{output}</div>"""
STYLES = """
const kept = ["color", "backgroundColor", "font", "textAlign", "padding", "margin", "border", "boxSizing"];
return [...document.querySelectorAll("#outside, #outside *, #other, body")].map(
  (one) => kept.map((name) => getComputedStyle(one)[name]));
"""
THEMES = {"light": ("rgb(255, 255, 255)", "rgb(0, 0, 0)"), "dark": ("rgb(17, 17, 17)", "rgb(238, 238, 238)")}


@pytest.mark.parametrize(("paper", "ink"), THEMES.values(), ids=THEMES)
def test_a_notebook_takes_its_colours_and_leaves_the_rest_alone(
    paper: str, ink: str, browser: Browser, actmax: Actmax, tmp_path: Path
) -> None:
    source = Source(Record(made("units", actmax).parent), brief=True)
    output = notebook.html(page_of(source, describe))
    file = tmp_path / "notebook.html"
    for words, width in WIDTHS.items():
        file.write_text(NOTEBOOK.format(paper=paper, ink=ink, output=""))
        browser.open(file, width)
        before = browser.run(STYLES)
        file.write_text(NOTEBOOK.format(paper=paper, ink=ink, output=output))
        browser.open(file, width)
        assert browser.run(STYLES) == before, words
        assert browser.says() == [], words
        assert browser.asks() == [], words
        assert browser.run(OVERFLOW) == [], words
        assert browser.run("return getComputedStyle(document.querySelector('.actmax .verdict')).color") == ink
        assert (
            browser.run("return getComputedStyle(document.querySelector('.actmax td bdi').parentNode).textAlign")
            == "left"
        )
    leaking = output.replace(".actmax .scroll td {", "td {")  # a style that is not its own would be seen
    file.write_text(NOTEBOOK.format(paper=paper, ink=ink, output=leaking))
    browser.open(file, 1280)
    assert browser.run(STYLES) != before


def test_what_a_vocabulary_holds_does_not_run(browser: Browser, actmax: Actmax) -> None:
    file = made("maximization", actmax)
    tokens = pd.read_parquet(file.parent / "tokens.parquet")
    hostile = [
        "<script>document.title = 'in'</script>",
        "<img src=x onerror=\"document.title = 'in'\">",
        "\u202e\u0634\x00",
    ]
    tokens["token"] = [hostile[row % len(hostile)] for row in range(len(tokens))]
    Record(file.parent).write_table("tokens", tokens)
    file = write_job(Record(file.parent))
    browser.open(file, 1280)
    assert browser.run("return document.title") != "in"
    assert browser.says() == []
    assert browser.asks() == []


def test_the_checks_can_fail(browser: Browser, actmax: Actmax, tmp_path: Path) -> None:
    """A page that asks for a host, overflows and throws is caught; the policy stops what would have got in."""
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='http://127.0.0.1:9/x.png'><p style='width:3000px'>wide</p><script>nowhere()</script>")
    browser.open(bad, 390)
    assert len(browser.says()) >= 2
    assert browser.asks() == ["http://127.0.0.1:9/x.png"]
    assert browser.run("return document.scrollingElement.scrollWidth") > 390
    file = made("maximization", actmax)
    injected = file.read_text().replace("</main>", "</main><script>document.title = 'in'</script>")
    file.write_text(injected)
    browser.open(file, 390)
    assert browser.run("return document.title") != "in"
    assert any("Content Security Policy" in said for said in browser.says())
