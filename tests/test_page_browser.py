"""The pages of real runs on the tiny subject in Chromium: on a phone and a desktop, light and dark, by keyboard."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from actmax.records.store import Record
from actmax.report import html, notebook
from actmax.report.blocks import FEW, Cell, Code, Column, Page, Table
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

    def open(self, file: Path, width: int, *, theme: str = "light") -> None:
        """Loads a page as wide as that: a window cannot be narrower than 500 pixels, but the device can."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.media(theme=theme)
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)  # of the page before
        self.driver.get(file.as_uri())

    def media(self, kind: str = "", theme: str = "light") -> None:
        """Shows the page as on paper (`print`) or on a screen, in light or dark."""
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind, "features": features})

    def press(self, key: str) -> None:
        """Presses a key where the focus is."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(key).perform()

    def unfold(self) -> None:
        self.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")

    def asks(self) -> list[str]:
        """What the page requested, but for itself and what is in it."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith(("file:", "data:"))]

    def says(self) -> list[str]:
        """What the page left on the console."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def run(self, script: str, *arguments: object) -> Any:
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
    "tuning": (
        "experiment=nouns_verbs",
        "subject=tiny",
        "tuning.layers=0",
        "tuning.permutations=20",
        "tuning.splits=2",
    ),
    "simulation": ("task=simulation", "simulation.effects=[0.0,1.0,5.0]", "simulation.repetitions=40"),
    "sweep": ("-m", "subject=tiny", "steps=4", "sweep=s", "seeds='0:2'", "unit.layer=1,4,8"),
    "failed": ("subject=tiny", "seeds=0", "steps=8", "+callbacks.failing._target_=cli.Failing"),
}


KINDS = ("maximization", "search", "tuning", "simulation", "sweep")
MADE: dict[str, Path] = {}
"""Pages by their run: a job runs once, and a test that writes into its folder takes a copy."""


def made(name: str, actmax: Actmax) -> Path:
    if name not in MADE:
        own = name not in ("tuning", "simulation")
        ran = actmax(*RUNS[name], *(one for one in QUICK if own or one.startswith(("logger", "page"))))
        assert ran.code == (1 if name == "failed" else 0), ran.err
        MADE[name] = write_sweep(collect(ran.folder / "outputs/s")) if name == "sweep" else write_job(Record(ran.job))
    return MADE[name]


def copied(name: str, actmax: Actmax, folder: Path) -> Path:
    """A page in a copy of its record."""
    file = made(name, actmax)
    return Path(shutil.copytree(file.parent, folder / name)) / file.name


def sort(browser: Browser, head: str) -> list[str]:
    """Presses the first column head of that name, and gives the column from top to bottom."""
    return browser.run(
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
        for _ in ("folded", "unfolded"):
            assert browser.run("return document.scrollingElement.scrollWidth") <= width, words
            assert browser.run(OVERFLOW) == [], words
            browser.unfold()
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


def test_what_a_vocabulary_holds_does_not_run(browser: Browser, actmax: Actmax, tmp_path: Path) -> None:
    file = copied("maximization", actmax, tmp_path / "copy")
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
    file = copied("maximization", actmax, tmp_path / "copy")
    injected = file.read_text().replace("</main>", "</main><script>document.title = 'in'</script>")
    file.write_text(injected)
    browser.open(file, 390)
    assert browser.run("return document.title") != "in"
    assert any("Content Security Policy" in said for said in browser.says())


# accessibility

AXE = "axe-core@4.14.1"
AXE_DIGEST = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
"""SHA-512 of its package, as npm names it: the script of somebody else (Deque, MPL-2.0) is fetched, not committed."""


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core, from npm's registry or its cache."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm, which fetches axe-core")
    folder = tmp_path_factory.mktemp("axe")
    command = [npm, "pack", AXE, "--prefer-offline", "--pack-destination", str(folder)]
    fetched = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if fetched.returncode:
        pytest.skip(f"npm could not fetch {AXE}: {fetched.stderr[-200:]}")
    (package,) = folder.glob("*.tgz")
    assert base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode() == AXE_DIGEST
    with tarfile.open(package) as archive:
        script = archive.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


def faults(browser: Browser, axe: str) -> dict[str, list[str]]:
    """The serious and critical findings of axe-core on the page, by rule: the elements that they are about."""
    browser.unfold()
    browser.run(axe)
    found = browser.driver.execute_async_script("axe.run(document, {resultTypes: ['violations']}).then(arguments[0])")
    assert len(found["passes"]) > 10
    return {
        one["id"]: [node["html"][:200] for node in one["nodes"]]
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    }


@pytest.mark.parametrize("name", KINDS)
def test_pages_are_accessible(name: str, browser: Browser, axe: str, actmax: Actmax) -> None:
    file = made(name, actmax)
    for width in WIDTHS.values():
        for theme in THEMES:
            browser.open(file, width, theme=theme)
            assert faults(browser, axe) == {}, (width, theme)


def test_what_is_not_accessible_is_found(browser: Browser, axe: str, actmax: Actmax, tmp_path: Path) -> None:
    good = made("maximization", actmax).read_text()
    planted = {
        "image-alt": ('alt="Line chart', 'data-alt="Line chart'),
        "color-contrast": ("--dim: #5b606b", "--dim: #c5c8cf"),
        "button-name": ("</main>", "<button></button></main>"),
        "scrollable-region-focusable": (' tabindex="0" role="group"', ' role="group"'),
    }
    for rule, (right, wrong) in planted.items():
        assert right in good
        file = tmp_path / f"{rule}.html"
        file.write_text(good.replace(right, wrong))
        browser.open(file, 390)
        assert list(faults(browser, axe)) == [rule]


# the keyboard

FOCUS = """
const at = document.activeElement;
if (at === document.body || at === document.documentElement) return null;
const style = getComputedStyle(at), box = at.getBoundingClientRect();
return {tag: at.tagName, text: at.innerText.split("\\n")[0], place: [...document.querySelectorAll("*")].indexOf(at),
  outlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1,
  seen: box.bottom > 0 && box.top < innerHeight && box.width > 0};
"""


def walked(browser: Browser) -> list[dict[str, Any]]:
    """Where the focus goes by Tab, from the beginning of a page to its end."""
    from selenium.webdriver.common.keys import Keys

    stops: list[dict[str, Any]] = []
    while True:
        browser.press(Keys.TAB)
        stop = browser.run(FOCUS)
        if stop is None or (stops and stop["place"] == stops[0]["place"]):
            return stops
        stops.append(stop)
        assert len(stops) < 1000


def reached(browser: Browser, what: str) -> int:
    return browser.run(f"return [...document.querySelectorAll('{what}')].filter((one) => one.checkVisibility()).length")


@pytest.mark.parametrize("name", ["maximization", "tuning"])
def test_a_keyboard_reaches_everything_in_order(name: str, browser: Browser, actmax: Actmax) -> None:
    file = made(name, actmax)
    for width in WIDTHS.values():
        browser.open(file, width)
        stops = walked(browser)
        assert [stop["place"] for stop in stops] == sorted({stop["place"] for stop in stops})
        assert [stop for stop in stops if not (stop["outlined"] and stop["seen"])] == []
        tags = [stop["tag"] for stop in stops]
        for what in ("th button", "summary", "a[href]"):
            assert tags.count(what.split()[-1].split("[")[0].upper()) == reached(browser, what) > 0, what


def test_a_focus_that_is_not_seen_or_out_of_order_is_noticed(browser: Browser, actmax: Actmax, tmp_path: Path) -> None:
    good = made("maximization", actmax).read_text()
    file = tmp_path / "bad.html"
    file.write_text(good.replace("th button:focus-visible { outline: 2px", "th button:focus-visible { outline: 0px"))
    browser.open(file, 1280)
    assert {stop["tag"] for stop in walked(browser) if not stop["outlined"]} == {"BUTTON"}
    before, _, behind = good.rpartition(' tabindex="0"')
    file.write_text(f'{before} tabindex="1"{behind}')
    browser.open(file, 1280)
    places = [stop["place"] for stop in walked(browser)]
    assert places != sorted(places)
    file.write_text(good.replace("<summary>", '<summary tabindex="-1">', 1))
    browser.open(file, 1280)
    assert [stop["tag"] for stop in walked(browser)].count("SUMMARY") == reached(browser, "summary") - 1


def test_enter_sorts_and_unfolds(browser: Browser, actmax: Actmax) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(made("tuning", actmax), 1280)
    browser.run("document.querySelector('table.sortable th button').focus()")
    for order in ("ascending", "descending"):
        browser.press(Keys.ENTER)
        assert browser.run("return document.activeElement.parentNode.getAttribute('aria-sort')") == order
    browser.run("document.querySelector('details.folded summary').focus()")
    for unfolded in (True, False):
        browser.press(Keys.ENTER)
        assert browser.run("return document.activeElement.parentNode.open") == unfolded


# what is folded, and what can be saved


def long_page(rows: int) -> Page:
    """A page with a table of so many rows, and folded code."""
    cells = tuple((Cell(f"row {number}"),) for number in range(rows))
    return Page("q", first=(Table("words", (Column("n"),), cells, total=2 * rows), Code("config", "folded")))


SHOWN = """
return [...document.querySelectorAll("td, pre")]
  .filter((one) => one.getBoundingClientRect().height > 0 && one.checkVisibility()).length;
"""


@pytest.fixture
def still(browser: Browser) -> Iterator[Browser]:
    """The browser with scripts of pages switched off."""
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    yield browser
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_long_tables_are_folded_and_print_whole_without_a_script(still: Browser, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By

    file = tmp_path / "page.html"
    file.write_text(html.render(long_page(FEW + 1)))
    still.open(file, 390)
    assert still.driver.find_element(By.CSS_SELECTOR, "details.folded summary").text == f"words {FEW + 1} of 42 rows"
    assert still.run(SHOWN) == 0
    still.media("print")
    assert still.run(SHOWN) == FEW + 2
    still.media()
    assert still.run(SHOWN) == 0
    still.driver.find_element(By.CSS_SELECTOR, "details.folded summary").click()
    assert still.run(SHOWN) == FEW + 1
    file.write_text(html.render(long_page(FEW + 1)).replace("details::details-content", "details::nothing"))
    still.open(file, 390)
    still.media("print")
    assert still.run(SHOWN) == 0  # paper would lack it
    file.write_text(html.render(long_page(FEW)))
    still.open(file, 390)
    assert still.run(SHOWN) == FEW


def test_a_figure_is_saved_from_the_page_alone(browser: Browser, actmax: Actmax, tmp_path: Path) -> None:
    file = made("maximization", actmax)
    alone = Path(shutil.copy(file, tmp_path / "mailed.html"))
    folder = tmp_path / "saved"
    behaviour = {"behavior": "allow", "downloadPath": str(folder)}
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    browser.open(alone, 1280)
    names = browser.run("return [...document.querySelectorAll('a.save')].map((one) => (one.click(), one.download))")
    drawn = {one.name: one.read_bytes() for one in (file.parent / "figures").glob("*.svg")}
    assert sorted(names) == sorted(drawn)
    end = time.monotonic() + 30
    while {one.name for one in folder.glob("*.svg")} != set(drawn) and time.monotonic() < end:
        time.sleep(0.1)
    for name, content in drawn.items():
        assert (folder / name).read_bytes() == content
        assert ET.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"
