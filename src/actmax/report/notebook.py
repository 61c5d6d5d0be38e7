"""The first screen of a page as a piece of HTML for notebooks: what `_repr_html_` of a result gives.

It holds its own style, which touches nothing outside it, no script, and takes the notebook's colours, light or dark.
"""

from __future__ import annotations

from dataclasses import replace

from actmax.report.blocks import Page
from actmax.report.html import asset, template


def html(page: Page) -> str:
    """Question, verdict, headline numbers and the first screen, as HTML."""
    return template("notebook.html", page=replace(page, sections=()), style=asset("blocks.css"))
