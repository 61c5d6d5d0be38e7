"""Pages as HTML: one file that needs nothing else, and lets nothing in.

Everything is escaped by jinja2, and a content security policy forbids what was not written here: scripts but the one
with the right hash, and anything from any host. `blocks.html` holds the one macro that renders a block.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from actmax.report.blocks import Figure, Page, Table, visible_text


def render(page: Page) -> str:
    """The page as HTML; it holds a script where it holds a table or a figure: to sort the one, and save the other."""
    blocks = (*page.card, *page.opening, *(block for section in page.rest for block in section.blocks))
    script = asset("page.js") if any(isinstance(block, Table | Figure) for block in blocks) else ""
    style = asset("blocks.css") + asset("page.css")
    return template("page.html", page=page, style=style, script=script, policy=_policy())


def encodable(html: str) -> str:
    """HTML that UTF-8 can hold: half of a surrogate pair as an escape."""
    return html.encode("utf-8", "backslashreplace").decode()


def template(name: str, **content: Any) -> str:
    """A template of this folder, filled; everything but `Markup` is escaped."""
    return _environment().get_template(name).render(**content)


@cache
def asset(name: str) -> Markup:
    """A file of this folder, to stand in HTML as it is."""
    return Markup(_read(name))  # noqa: S704 our own, no input


def _read(name: str) -> str:
    return files("actmax.report").joinpath(name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    return Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_clean,
    )


def _clean(value: Any) -> Any:
    """Text as it may stand in HTML: no control characters, no half of a surrogate pair."""
    return visible_text(value) if type(value) is str else value


@cache
def _policy() -> str:
    """What a browser may load for the page: what is in it."""
    digest = base64.b64encode(hashlib.sha256(asset("page.js").encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
