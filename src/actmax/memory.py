"""How much memory this process could still take. Imports nothing heavy."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

log = logging.getLogger(__name__)

Found = TypeVar("Found")

LIMITS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Files of a control group, version 2 and version 1: its limit, its usage, and the cache within the usage."""


LACK = ("allocate memory", "not enough memory", "bad_alloc", "bad allocation", "out of memory")
"""What PyTorch's errors, which are of no class of their own on a CPU, say where memory runs out."""


def is_lack(error: BaseException) -> bool:
    """Whether an error says that memory has run out: on a GPU, on a CPU, or within a limit of the process.

    Example:
        >>> is_lack(MemoryError()), is_lack(RuntimeError("shapes differ"))
        (True, False)
    """
    said = isinstance(error, RuntimeError) and any(words in str(error).lower() for words in LACK)
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or said


def fewer(rows: int, error: BaseException, key: str = "max_rows") -> int:
    """Half as many rows for the next try, where memory ran out; says so.

    Args:
        rows: the rows that were tried together.
        error: what was raised; it is raised again where it is another, or where one row is too many.
        key: the key that sets the number of rows.
    """
    if rows == 1 or not is_lack(error):
        raise error
    half = -(-rows // 2)
    said = "Out of memory: going on with %d rows at a time, to the same result beyond rounding (%s sets how many)"
    log.warning(said, half, key)
    return half


def in_batches(
    act: Callable[[int, int], Found],
    count: int,
    rows: int,
    lowered: Callable[[int], object] = lambda _: None,
    key: str = "max_rows",
) -> Iterator[Found]:
    """What some rows give, batch by batch; where memory runs out, in batches of half as many rows from then on.

    Args:
        act: answers the rows from a first number to the one before a second.
        count: number of rows.
        rows: most rows of a batch.
        lowered: called with the number of rows that the next batches have, where it is lowered.
        key: the key that sets the number of rows.

    Raises:
        Exception: what `act` raised, where it is no lack of memory, or one row is too many.

    Example:
        >>> list(in_batches(lambda start, stop: (start, stop), 5, 2))
        [(0, 2), (2, 4), (4, 5)]
    """
    start = 0
    while start < count:
        stop = min(start + rows, count)
        try:
            found = act(start, stop)
        except (MemoryError, RuntimeError) as error:
            rows = fewer(stop - start, error, key)
        else:
            yield found
            start = stop
            continue
        # Outside of the handler the error is gone, and with it the tensors that it held.
        release()
        lowered(rows)


def release() -> None:
    """Hands memory that PyTorch keeps on a GPU back to the driver."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


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
