"""A hook of mkdocs: every notebook of docs/ is a page of the site, with the outputs that stand in it.

Text cells go through mkdocs as any page does, so that their links are checked and their headings are in the table of
contents. Outputs are put in behind that: they are HTML already, and the search index has no use for their numbers.
Nothing is run, and nothing is loaded from elsewhere.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbformat import NotebookNode

LINK = re.compile(r"(\]\([\w./-]+)\.ipynb(?=[)#])")
"""A link to a notebook, in Markdown."""
PLACE = '<div class="notebook-output" data-output="{}"></div>'
"""What stands in a page where an output belongs."""
_outputs: dict[str, list[str]] = {}
"""By page: its outputs as HTML."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page for every notebook; the notebook itself stays beside it, to download."""
    for file in [one for one in files if one.src_uri.endswith(".ipynb")]:
        text, outputs = rendered(nbformat.reads(file.content_string, as_version=4), file.name + ".ipynb")
        page = File.generated(config, file.src_uri.removesuffix(".ipynb") + ".md", content=text)
        _outputs[page.src_uri] = outputs
        files.append(page)
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Leads links from other pages to the page of a notebook, where a repository shows the notebook itself."""
    return markdown if page.file.src_uri in _outputs else LINK.sub(r"\1.md", markdown)


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Puts the outputs into a page of a notebook."""
    for number, one in enumerate(_outputs.get(page.file.src_uri, [])):
        output = output.replace(PLACE.format(number), f'<div class="notebook-output">{one}</div>')
    return output


def rendered(notebook: NotebookNode, name: str) -> tuple[str, list[str]]:
    """A notebook as Markdown with a place for each output, and the outputs as HTML.

    Args:
        notebook: text and code cells, in order; the first begins with the title.
        name: the notebook's file, for a link.
    """
    parts, outputs = list[str](), list[str]()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        elif cell.cell_type == "code":
            parts.append(f"```python\n{cell.source}\n```")
            for one in _shown(cell.outputs):
                parts.append(PLACE.format(len(outputs)))
                outputs.append(one)
    title, _, rest = "\n\n".join(parts).partition("\n")
    return f"{title}\n\n*This page is a [notebook]({name}) with its outputs, to download and run.*\n{rest}\n", outputs


def _shown(outputs: list[NotebookNode]) -> Iterator[str]:
    """Each output in the richest form that it has; warnings and other streams as text."""
    for output in outputs:
        yield _richest(output.get("data", {"text/plain": output.get("text", "")}))


def _richest(data: Mapping[str, str]) -> str:
    for kind in ("text/html", "image/svg+xml"):
        if kind in data:
            return data[kind]
    text = html.escape(data.get("text/plain", ""))
    if "image/png" in data:
        return f'<img alt="{text}" src="data:image/png;base64,{data["image/png"].strip()}">'
    return f"<pre>{text}</pre>"
