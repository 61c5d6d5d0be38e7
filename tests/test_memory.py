"""What of the memory is free."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from actmax.maximize.memory import free_memory, kept_for_backward

GB = 1024**3
CPU = torch.device("cpu")


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    """A file system of a machine with 20 GB left, as far as it is looked at."""
    files = {
        "proc/meminfo": f"MemTotal: 99 kB\nMemAvailable:   {20 * 1024**2} kB\n",
        "proc/self/cgroup": groups,
    } | files
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def group(folder: str, may: str, uses: int, cache: int, *, version: int = 2) -> dict[str, str]:
    names = ("memory.max", "memory.current", "inactive_file")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    limit, usage, inactive = names
    stat = f"cache 5\n{inactive} {cache}\nunevictable 0\n"
    files = {limit: may, usage: str(uses), "memory.stat": stat}
    return {f"sys/fs/cgroup/{folder}/{name}": f"{text}\n" for name, text in files.items()}


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("", {}, 20 * GB),
        ("0::/job\n", group("job", "max", GB, 0), 20 * GB),
        ("0::/job\n", group("job", str(8 * GB), 3 * GB, GB), 6 * GB),
        ("0::/slurm/step\n", group("slurm/step", "max", 0, 0) | group("slurm", str(4 * GB), 3 * GB, 0), GB),
        ("0::/job\n", group("job", str(2 * GB), 3 * GB, 0), 0),
        ("4:memory:/job\n0::/\n", group("memory/job", str(8 * GB), 3 * GB, 0, version=1), 5 * GB),
        ("4:cpuset:/job\n", group("cpuset/job", str(8 * GB), 3 * GB, 0), 20 * GB),  # no business of memory's
        ("0::/job\n", group("job", str(80 * GB), 3 * GB, 0), 20 * GB),
    ],
)
def test_a_limit_of_the_process_counts_where_it_is_lower(
    tmp_path: Path, groups: str, files: dict[str, str], expected: int
) -> None:
    assert free_memory(CPU, machine(tmp_path, groups, files)) == expected


def test_what_is_not_known_is_none(tmp_path: Path) -> None:
    assert free_memory(CPU, tmp_path) is None
    assert free_memory(torch.device("meta")) is None


def test_on_this_machine_it_is_no_more_than_there_is() -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < (free_memory(CPU) or 1) < total


def test_each_storage_counts_once() -> None:
    weight, value = torch.ones(100, 100), torch.ones(3, 100, requires_grad=True)
    product = 3 * 100 * 4

    def twice() -> torch.Tensor:
        hidden = (value @ weight).exp()  # keeps the weight, and its own result
        return (hidden.view(300) * hidden.view(300)).sum()  # keeps that again, in two views

    assert kept_for_backward(twice) == weight.nbytes + product
    assert kept_for_backward(lambda: (value @ weight).exp().exp()) == weight.nbytes + 2 * product


def test_what_was_freed_between_what_lives_on_is_handed_back() -> None:
    program = """
from actmax.maximize.memory import give_back

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

before = resident()
blocks = [bytearray(100_000) for _ in range(2000)]  # too small for pages of their own
blocks[::2] = [None] * 1000
freed = resident()
give_back()
print(freed - before, resident() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    freed, after = map(int, done.stdout.split())
    assert freed > 180e6  # glibc keeps what lies between blocks in use
    assert after < 130e6
