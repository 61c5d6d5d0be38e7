"""From a page's blocks to one HTML file that needs nothing else, and lets nothing in.

Everything is escaped by jinja2, and a content security policy forbids what was not written here: scripts but the one
with the right hash, and anything from any host.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from actmax.report.blocks import Page, visible_text


def render(page: Page) -> str:
    """The page as HTML."""
    return _template().render(page=page, style=_asset("page.css"), script=_asset("page.js"), policy=_policy())


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_clean
    )
    return environment.from_string(str(_asset("page.html")))


def _clean(value: Any) -> Any:
    """Text as it may stand in HTML: no control characters, no half of a surrogate pair."""
    return visible_text(value) if type(value) is str else value


@cache
def _asset(name: str) -> Markup:
    return Markup(files("actmax.report").joinpath(name).read_text(encoding="utf-8"))  # noqa: S704 our own, no input


@lru_cache(maxsize=1)
def _policy() -> str:
    """What a browser may load for the page: what is in it."""
    digest = base64.b64encode(hashlib.sha256(_asset("page.js").encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
