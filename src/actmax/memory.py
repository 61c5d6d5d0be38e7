"""How much memory this process could still take. Imports nothing heavy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

LIMITS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Files of a control group, version 2 and version 1: its limit, its usage, and the cache within the usage."""


def free_bytes(root: Path = Path("/"), *, used: bool = True) -> int | None:
    """Bytes of the machine's memory that this process could still take; None where that is not known (macOS).

    Under Linux: `MemAvailable`, or what is left in a control group of this process if that is less, since Slurm and
    containers set such limits, and end processes that exceed them; or of its address space (`ulimit -v`, `prlimit
    --as`), beyond which nothing is given to it.

    Args:
        root: root of the file system.
        used: whether the address space that is used already is taken off; not before the large libraries are there.
    """
    available = re.search(r"^MemAvailable: *(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    machine = [1024 * int(available[1])] if available else []
    return min([*machine, *_left_in_groups(root), *_left_of_addresses(root, used=used)], default=None)


def _left_of_addresses(root: Path, *, used: bool) -> Iterator[int]:
    """Bytes left of this process's address space, where it has a limit."""
    limit = re.search(r"^Max address space +(\d+)", _text(root / "proc/self/limits"), re.MULTILINE)
    if limit is not None:
        pages = _text(root / "proc/self/statm").split()
        taken = int(pages[0]) * os.sysconf("SC_PAGE_SIZE") if pages and used else 0
        yield max(0, int(limit[1]) - taken)


def _left_in_groups(root: Path) -> Iterator[int]:
    """Bytes left in each control group of this process, and in each of its parents, that has a limit."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        top = root / "sys/fs/cgroup" / controllers  # version 2 has one tree, and no controllers here
        if controllers not in ("", "memory"):
            continue
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            if top not in (folder, *folder.parents):
                break
            for limit, usage, cache in LIMITS:
                allowed, used = _text(folder / limit).strip(), _text(folder / usage).strip()
                if allowed.isdigit() and used.isdigit():
                    # The kernel drops cached files before it ends a process.
                    cached = re.search(rf"^{cache} (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
                    yield max(0, int(allowed) - int(used) + (int(cached[1]) if cached else 0))


def _text(file: Path) -> str:
    """The content of a file; nothing where it cannot be read."""
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
