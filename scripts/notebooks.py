"""Runs the notebooks of docs/notebooks in place, so that what they show is real output of this version.

python scripts/notebooks.py           all of them
python scripts/notebooks.py FILE ...  these
"""

from __future__ import annotations

import copy
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
SECONDS = 600
"""Time that a cell may take."""
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore:IProgress not found",  # a file shows no widgets
}
"""What a kernel is given beside this process's environment."""
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
"""Metadata of every notebook: nothing of the machine that ran it."""
PLACE = re.compile(r"/(?:root|tmp|work|home|Users|private)/[^\s'\"<]*")
"""A path of the machine that ran a notebook."""
HOST = re.compile(rf"\b{re.escape(socket.gethostname())}\b")
"""The name of the machine."""
PICTURE = re.compile(r"data:image/[^\"']*|<svg.*?</svg>", re.DOTALL)
"""Pictures inside HTML, whose letters mean nothing."""
PROGRESS = re.compile(r"actmax: [^\n]* \d+( of \d+)?[^\n]*\n?")
"""A line that stands for a progress bar; how many there are depends on the machine."""


def execute(notebook: NotebookNode, environment: Mapping[str, str] | None = None) -> NotebookNode:
    """Runs a copy of a notebook from the top in a kernel of its own, in an empty folder.

    Args:
        notebook: what to run.
        environment: variables for the kernel, beside ENVIRONMENT.

    Returns:
        The copy with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    ran = copy.deepcopy(notebook)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder, "work")
        work.mkdir()
        # Sockets and files of the kernel stay in the folder, and the user's IPython settings are not read.
        sockets = {"transport": "ipc", "ip": f"{folder}/kernel", "connection_file": f"{folder}/kernel.json"}
        kernel = AsyncKernelManager(kernel_name="python3", **sockets)
        client = NotebookClient(ran, km=kernel, timeout=SECONDS, resources={"metadata": {"path": str(work)}})
        variables = {**os.environ, **ENVIRONMENT, "IPYTHONDIR": f"{folder}/ipython", **(environment or {})}
        client.execute(cleanup_kc=True, env=variables)
    return _tidied(ran)


def _tidied(notebook: NotebookNode) -> NotebookNode:
    """Takes out what differs between two runs on one machine: times, and lines of progress."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            for output in cell.outputs:
                if output.output_type == "stream" and output.name == "stderr":
                    output.text = PROGRESS.sub("", output.text)
            cell.outputs = [output for output in cell.outputs if output.output_type != "stream" or output.text]
    return notebook


def problems(notebook: NotebookNode) -> list[str]:
    """What should not stand in the outputs of a published notebook: errors, warnings, and traces of a machine."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error" or output.get("name") == "stderr":
                found.append(f"{cell.id}: {output.get('evalue', output.get('text'))}")
            for text in _texts(output):
                found += [f"{cell.id}: {trace}" for trace in [*PLACE.findall(text), *HOST.findall(text)]]
    return found


def _texts(output: NotebookNode) -> Iterator[str]:
    """What can be read of an output, in all its forms."""
    yield output.get("text", "")
    for kind, data in output.get("data", {}).items():
        if not kind.startswith("image/"):
            yield PICTURE.sub("", str(data))


def main() -> None:
    """Runs the notebooks that are named, or all, and writes them with their outputs."""
    files = [Path(name) for name in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb"))
    for file in files:
        started = time.monotonic()
        ran = execute(nbformat.read(file, as_version=4))
        if found := problems(ran):
            sys.exit("\n".join([f"{file}: not written", *found]))
        file.write_text(nbformat.writes(ran) + "\n", encoding="utf-8")
        print(f"{file.name}: {time.monotonic() - started:.0f} s, {file.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
