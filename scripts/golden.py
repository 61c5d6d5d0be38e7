"""Whether a change of the code changed a number: every task on the tiny subject, a digest of every column it leaves.

    python scripts/golden.py --write FILE      # runs all cases, two minutes on one core, and writes their digests
    python scripts/golden.py --compare FILE    # runs them and says which columns differ from those of FILE
    python scripts/golden.py --compare FILE --only gcg,sweep --renamed method=search --renamed front=pareto

The cases run by the command line (`python -m actmax`) in a scratch folder, with a cache of their own, one thread and
the caller's PYTHONPATH, so another checkout is measured with `PYTHONPATH=CHECKOUT/src`. Nothing of actmax is imported.

Digested are Parquet tables (number of rows, and sha256 of each column: floats as float64 bytes with one NaN), tensors
of safetensors and NumPy files, and the values of `summary.json` and `sweep.json` by dotted key. Times, hosts, devices,
versions and hashes of configs are left out. What a sweep collects is ordered by the number of its jobs, since the
names of their folders hold such a hash.

tests/reference/golden/golden.json is what tests/test_golden.py holds the code against. A change that is meant to change
numbers, or adds a column, writes it anew. Float digits may be others on another kind of processor or with other
libraries; a canary in the file tells, and where it differs means are compared to a tolerance.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from pyarrow import parquet

GOLDEN = Path(__file__).parents[1] / "tests" / "reference" / "golden" / "golden.json"

COMMON = (
    "subject=tiny subject.dtype=float64 trainer=cpu logger=none page=false "
    "nulls.draws=299 nulls.displacements=40 gap.draws=40 transfer.draws=40 meaning.draws=99 meaning.pool=20"
)
"""Overrides of every case."""
CASES = {
    "maximization": "unit.layer=2 unit.index=[3,4] seeds=0:4 steps=30 prior=[l2,smooth]",
    "simplex": "unit.layer=3 unit.index=7 seeds=0:4 steps=30 prior=simplex init=randn objective.reduction=max",
    "rounding": "unit=head unit.layer=1 unit.index=30 seeds=0:4 steps=30 rounding.restarts=2 objective.sign=minimize",
    "tokens": "unit=neuron unit.site=mlp_post unit.layer=[1,3] unit.index=5 seeds=0:4 steps=30 init=tokens "
    "optimizer=adamw objective.reduction=last",
    "file": "unit.layer=2 unit.index=3 seeds=0:4 steps=10 init=file init.path=rounding optimizer=sgd",
    "gcg": "task=search search=gcg unit.layer=2 unit.index=[3,4] seeds=0:3 search.passes=300 search.candidates=32 "
    "context=none",
    "epo": "task=search search=epo unit.layer=2 unit.index=3 seeds=0:3 search.passes=300 search.candidates=32 "
    "context=none",
    "random": "task=search search=random unit=final_norm unit.index=9 seeds=0:3 search.passes=300 context=none",
    "text": "task=search search=text search.text=text.txt unit.layer=2 unit.index=3 seeds=0:3 search.passes=300 "
    "context=none",
    "bos": "task=search search=epo unit.layer=2 unit.index=[3,4] seeds=0:3 search.passes=300 search.candidates=32",
    "windows": "unit.layer=2 unit.index=3 seeds=0:3 steps=20 context=text context.windows=3 context.window=8 "
    "prior=fluency",
    "prefix": "task=search search=gcg unit.layer=3 unit.index=7 seeds=0:3 search.passes=300 search.candidates=32 "
    "context=prefix context.text=Once objective.reduction=max",
    "simulation": "task=simulation simulation.effects=[0,1,3,6] simulation.repetitions=25 simulation.n_0=12 "
    "simulation.n_1=15 simulation.distribution=skewed",
    "tuning": "task=tuning tuning.data=words.csv tuning.sites=[mlp_pre,resid_post,z] tuning.layers=[0,3] "
    "tuning.splits=4 tuning.folds=3 tuning.permutations=40 tuning.top=5 tuning.text=story.txt tuning.save=true",
    "tuning_pairs": "task=tuning tuning.data=pairs.csv tuning.sites=[mlp_out,final_norm] tuning.layers=[4] "
    "tuning.vector=mean tuning.splits=4 tuning.folds=3 tuning.permutations=40 tuning.top=5 tuning.text=story.txt",
    "examples": "task=examples examples.text=text.txt examples.record=maximization unit.layer=2 unit.index=[3,4] "
    "examples.window=32 examples.top=5 examples.sample=1000",
    "sweep": "-m unit.layer=2,4 unit.index=[3,4] seeds=0:3,3:6 steps=30",
    "ladder": "-m prior=none,simplex,[pca,norm,manifold,fluency] unit.layer=2 unit.index=[3,4] seeds=0:3 steps=20",
    "methods": "-m method=none,gcg unit.layer=2 unit.index=3 seeds=0:2,2:4 steps=100 search.passes=200 "
    "search.candidates=32 context=none",
}
"""What to run: overrides, with -m for a sweep. A record lies in the folder that is called like its case."""
NEEDS = {"file": "rounding", "examples": "maximization"}
"""A case that reads another's record."""

LEFT_OUT = {
    "seconds",
    "started",
    "finished",
    "collected",
    "device",
    "visible",
    "host",
    "process",
    "versions",
    "job_hash",
    "request",
}
"""Columns and keys that say when, where and from what the record was made."""
NUMBERED = ("job", "condition")
"""Columns and keys that name a job by a hash of its config: in a record left out, in a sweep numbered."""
STATISTICS = {
    "agreement",
    "comparison",
    "correlations",
    "decoders",
    "effects",
    "ladder",
    "layers",
    "methods",
    "rarefaction",
    "rates",
    "replication",
    "rounding",
    "shares",
    "strata",
    "tuning",
    "units",
}
"""Tables that differences, quotients and comparisons of floats go into: the last digit of one can decide a word, and
grows a thousandfold where groups are nearly separated."""
ROUNDING = {"same_seed_activation_difference"}
"""Columns that are nothing but rounding: a difference of equals."""
SAME_DIGITS = {
    "OPENBLAS_CORETYPE": "Haswell",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}
"""Environment in which OpenBLAS, PyTorch, MKL, oneDNN and NumPy use the same instructions on every x86 with AVX2."""
ROWS = "#rows"
"""Stands for the number of rows among the columns of a table."""
DIGITS = 16
"""Hexadecimal digits of a sha256 that are kept."""
TOLERANCE, LOOSE_TOLERANCE = 1e-5, 1e-3
"""Of the mean of a float column on another kind of machine, in its mean magnitude; the second in `STATISTICS`. Without
AVX (ATEN_CPU_CAPABILITY=default OPENBLAS_CORETYPE=Nehalem) the largest were 2e-6 and 1e-4 on one machine."""

WORDS = (
    ("p", "goat boat coat moat newt boot root foot cat bee"),
    ("q", "bake cave give hide make pave save wave dive eat"),
)
"""By category; all but one of each end alike, so that there is something to find."""
TEXT = """The harbour was quiet when the first boats came in, and nobody on the pier could say how many were missing.
A woman in a grey coat counted them twice: seven, then seven again. "There were nine," she said to the man with the
lamp, who shrugged, wrote 7 in his book, and went back to his tea.
By noon the wind had turned. Gulls stood in rows along the wall; a dog slept; two children threw crusts at the water and
argued over whose had gone furthest. Far out, beyond the second buoy, something red went up and down, up and down.
It was late before anyone thought of the bell. They rang it until the rope burned their hands, 40 strokes, a pause, 40
more, and the sound went out over the flat grey sea and did not come back.
"""

Leaf = list[Any]
"""A column or a tensor: what it is (with a tensor's shape), digest, and of numbers how many, mean, mean magnitude."""
File = dict[str, Any]
"""A table's columns or a file's tensors by name, each a leaf; of JSON its values by dotted key."""


@dataclass(frozen=True)
class Row:
    """How one file compares."""

    case: str
    """Which case, and which of a sweep's jobs."""
    file: str
    """Its name in the record."""
    equal: tuple[str, ...]
    """Columns, tensors or keys that are the same."""
    changed: tuple[str, ...]
    """Those whose content differs."""
    lost: tuple[str, ...]
    """Those that there were before only."""
    new: tuple[str, ...]
    """Those that there are after only."""

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.changed or self.lost or self.new)


# running


def environment(cache: Path) -> dict[str, str]:
    """The caller's, with one thread, no network, no GPU, the instructions of `SAME_DIGITS` and another cache."""
    paths = [str(Path(place).resolve()) for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    own = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg"}
    return {**os.environ, **SAME_DIGITS, **own, "ACTMAX_CACHE": str(cache), "PYTHONPATH": os.pathsep.join(paths)}


def write_inputs(folder: Path) -> None:
    """The files that the cases read."""
    listed = [(word, group) for group, words in WORDS for word in words.split()]
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    (folder / "story.txt").write_text("The cat ate, the goat sat; we dive and wave.", encoding="utf-8")
    rows = ["word,category", *(f"{word},{group}" for word, group in listed), "ant,p"]
    (folder / "words.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    rows = ["word,category,pair,context"]
    for number, (one, other) in enumerate(zip(*(words.split() for _, words in WORDS), strict=True)):
        rows += [f"{one},p,n{number},the {one} is here", f"{other},q,n{number},to {other} is hard"]
        rows += [f"{one},p,n{number},no {one}"] * (number < 4)
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def run(folder: Path, only: Iterable[str] = CASES, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Runs cases in an empty folder and digests what they leave.

    Args:
        folder: the scratch folder.
        only: which cases; those whose records they read are run too.
        say: is told how long each took.

    Returns:
        `canary` and `cases`: by case (`CASE/NUMBER` for a sweep's jobs) and file its digests.

    Raises:
        RuntimeError: a case failed; its last words are in the message.
    """
    asked = set(only) | {NEEDS[name] for name in only if name in NEEDS}
    write_inputs(folder)
    cases: dict[str, dict[str, File]] = {}
    for name in (name for name in CASES if name in asked):
        begun = time.perf_counter()
        overrides = shlex.split(f"{CASES[name]} {COMMON} hydra.run.dir={name} hydra.sweep.dir={name}")
        command = [sys.executable, "-m", "actmax", *overrides]
        done = subprocess.run(
            command, cwd=folder, env=environment(folder / "cache"), capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = (done.stdout + done.stderr)[-3000:]
            raise RuntimeError(f"the case {name} ended with exit code {done.returncode}: {shlex.join(command)}\n{said}")
        cases |= dict(digested(folder / name, name))
        say(f"{name}: {time.perf_counter() - begun:.1f} s")
    return {"canary": canary(), "cases": cases}


def digested(folder: Path, case: str) -> Iterator[tuple[str, dict[str, File]]]:
    """The records under a folder: of a job the folder itself; of a sweep its jobs by number, and what it collected."""
    if (folder / "status.json").exists():
        yield case, digest_record(folder)
        return
    jobs = {_number(file.parent): file.parent for file in folder.glob("*/status.json")}
    numbers: dict[str, int] = {}
    for number, job in sorted(jobs.items(), reverse=True):  # so that a condition has its first job's number
        summary = json.loads((job / "summary.json").read_text("utf-8"))
        numbers |= {job.name: number, str(summary.get("condition")): number}
    for number, job in sorted(jobs.items()):
        yield f"{case}/{number}", digest_record(job)
    yield case, digest_record(folder, numbers)


def _number(job: Path) -> int:
    """Which job of the sweep it is, in the order of the command line."""
    hydra = yaml.safe_load((job / ".hydra" / "hydra.yaml").read_text("utf-8"))
    return int(hydra["hydra"]["job"]["num"])


# digests


def digest_record(folder: Path, numbers: Mapping[str, int] | None = None) -> dict[str, File]:
    """The digests of a record's files, by name.

    Args:
        folder: the record, or a sweep's folder.
        numbers: of a sweep: the numbers of its jobs by folder and by condition.
    """
    found: dict[str, File] = {}
    for file in sorted(folder.glob("*.parquet")):
        found[file.name] = digest_table(parquet.read_table(file), numbers)
    for file in sorted(folder.glob("*.safetensors")):
        found[file.name] = digest_tensors(file)
    for file in sorted(folder.glob("activations/*.npy")):
        found.setdefault("activations/*.npy", {})[file.stem] = _array_leaf(np.load(file))
    for name in ("summary.json", "sweep.json"):
        if (folder / name).exists():
            found[name] = dict(flatten(json.loads((folder / name).read_text("utf-8")), numbers))
    return found


def digest_table(table: pa.Table, numbers: Mapping[str, int] | None = None) -> File:
    """The digests of a table's columns and its number of rows."""
    names = [name for name in table.column_names if name not in LEFT_OUT]
    columns = {name: table.column(name) for name in names}
    named = [name for name in NUMBERED if name in columns]
    for name in named:
        mapped = [None if numbers is None else numbers.get(value) for value in columns[name].to_pylist()]
        columns[name] = pa.chunked_array([pa.array(mapped, pa.int64())])
    if named and numbers is not None:
        keys = [-1 if key is None else key for key in columns[named[0]].to_pylist()]
        order = pa.array(np.argsort(keys, kind="stable"))
        columns = {name: column.take(order) for name, column in columns.items()}
    elif numbers is None:
        columns = {name: column for name, column in columns.items() if name not in named}
    return {ROWS: table.num_rows, **{name: digest_column(column) for name, column in columns.items()}}


def digest_column(column: pa.ChunkedArray) -> Leaf:
    """What a column is, its digest, and of numbers how many there are, their mean and mean magnitude."""
    kind, values = _kind(column.type), column.to_pylist()
    if kind == "float":
        numbers = np.array([math.nan if value is None else value for value in values], dtype="<f8")
        numbers[np.isnan(numbers)] = np.nan  # one NaN of many
        return [kind, _sha256(numbers.tobytes()), *_moments(numbers)]
    digest = _sha256(json.dumps(values, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass"))
    if kind == "int":
        return [kind, digest, *_moments(np.array([value for value in values if value is not None], dtype=float))]
    return [kind, digest]


def digest_tensors(file: Path) -> File:
    """The digests of a safetensors file's tensors."""
    from safetensors.numpy import load_file

    return {name: _array_leaf(value) for name, value in sorted(load_file(file).items())}


def flatten(
    content: Any, numbers: Mapping[str, int] | None = None, prefix: str = ""
) -> Iterator[tuple[str, float | str | None]]:
    """JSON as one level of dotted keys, less what is left out."""
    if isinstance(content, list):
        if numbers is not None and all(isinstance(item, dict) and "condition" in item for item in content):
            content = sorted(content, key=lambda item: numbers.get(item["condition"], -1))
        content = dict(enumerate(content))
    if not isinstance(content, dict):
        yield prefix, content
        return
    for key, value in content.items():
        if key in NUMBERED and not isinstance(value, (dict, list)):
            if numbers is not None:
                yield f"{prefix}.{key}".lstrip("."), numbers.get(value)
        elif key not in LEFT_OUT:
            yield from flatten(value, numbers, f"{prefix}.{key}".lstrip("."))


def _kind(kind: pa.DataType) -> str:
    """The class of a column's type; how wide its numbers are makes no difference."""
    if pa.types.is_dictionary(kind):
        return _kind(kind.value_type)
    tests = {
        "bool": pa.types.is_boolean,
        "int": pa.types.is_integer,
        "float": pa.types.is_floating,
        "text": lambda one: pa.types.is_string(one) or pa.types.is_large_string(one),
        "null": pa.types.is_null,
        "list": lambda one: pa.types.is_list(one) or pa.types.is_large_list(one),
    }
    return next((name for name, test in tests.items() if test(kind)), str(kind))


def _array_leaf(array: np.ndarray) -> Leaf:
    shape = "x".join(map(str, array.shape))
    whole = np.ascontiguousarray(array)
    return [f"{array.dtype} {shape}", _sha256(whole.tobytes()), *_moments(whole.astype(float).ravel())]


def _moments(numbers: np.ndarray) -> list[Any]:
    """How many are finite, their mean and their mean magnitude."""
    finite = numbers[np.isfinite(numbers)].tolist()
    if not finite:
        return [0, None, None]
    try:
        mean, scale = (math.fsum(map(kind, finite)) / len(finite) for kind in (float, abs))
    except OverflowError:
        return [len(finite), None, None]
    return [len(finite), float(f"{mean:.10g}"), float(f"{scale:.2g}")]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGITS]


# is this the same kind of machine?


def canary() -> dict[str, str]:
    """Digests of what the cases compute with, and versions of who computes it, in a process like theirs."""
    command = [sys.executable, __file__, "--canary"]
    return json.loads(
        subprocess.run(
            command, env=environment(Path(tempfile.gettempdir())), capture_output=True, text=True, check=True
        ).stdout
    )


def compute_canary() -> dict[str, str]:
    """The same in this process."""
    import scipy.linalg
    import scipy.special
    import scipy.stats
    import torch
    from torch.nn import functional

    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((96, 64)), rng.standard_normal((64, 48))
    t = rng.standard_normal(500) * 4
    square = a.T @ a
    found: dict[str, Any] = {
        "python sum": np.array([sum(t.tolist()), math.fsum(map(math.exp, t.tolist()))]),
        "numpy normal": a,
        "numpy matmul": a @ b,
        "numpy svd": np.linalg.svd(a, full_matrices=False)[1],
        "numpy solve": np.linalg.solve(square, b),
        "numpy exp": np.exp(t),
        "numpy log1p": np.log1p(np.abs(t)),
        "numpy sum": np.array([t.sum(), t.std(), a.mean()]),
        "scipy t": scipy.stats.t.sf(t, 7.5),
        "scipy normal": scipy.special.ndtr(t),
        "scipy eigh": scipy.linalg.eigvalsh(square),
    }
    for dtype in (torch.float64, torch.float32):
        x, y, z = (torch.from_numpy(one).to(dtype) for one in (a, b, t))
        heads = x.reshape(1, 4, 24, 64)
        found |= {
            f"torch {dtype} {name}": value.double().numpy()
            for name, value in {
                "normal": torch.randn(300, generator=torch.Generator().manual_seed(0), dtype=dtype),
                "matmul": x @ y,
                "exp": z.exp(),
                "tanh": z.tanh(),
                "log": z.abs().log(),
                "softmax": functional.softmax(x * 3, -1),
                "layer norm": functional.layer_norm(x, (64,)),
                "attention": functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True),
                "norm": x.norm(dim=1),
                "sum": x.sum(0),
            }.items()
        }
    libraries = ("numpy", "scipy", "pandas", "scikit-learn", "statsmodels", "torch", "transformers")
    versions = {f"version of {name}": importlib.metadata.version(name) for name in libraries}
    digests = {name: _sha256(np.ascontiguousarray(value, "<f8").tobytes()) for name, value in found.items()}
    python = ".".join(map(str, sys.version_info[:2]))
    return {**digests, "processor": _processor(), "version of python": python, **versions}


def _processor() -> str:
    """Maker and model of the processor: linear algebra takes other kernels on another, at sizes that no digest has."""
    with suppress(OSError):
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()]
        said = {name.strip(): value.strip() for name, _, value in reversed(lines)}
        return " ".join(said.get(name, "?") for name in ("vendor_id", "cpu family", "model"))
    return platform.processor() or platform.machine()


def other_machine(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What of the canary differs between two documents; nothing where digits may be compared."""
    old, new = before["canary"], after["canary"]
    return sorted(name for name in {**old, **new} if old.get(name) != new.get(name))


# comparing


def compare(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    renamed: Sequence[tuple[str, str]] = (),
    *,
    exact: bool = True,
) -> list[Row]:
    """A row per file of either, in their order.

    Args:
        before: cases, as under `cases` of what `run` returns.
        after: the same of the changed code; cases that it lacks are not compared.
        renamed: names of columns, tensors, tables or (parts of) dotted keys, before and after.
        exact: compare digests and values. Else, for another kind of machine: kinds, numbers of rows, means of floats
            to a tolerance, digests of everything else but in tables of `STATISTICS`, and of JSON the keys alone.
    """
    rows = []
    for case, files in after.items():
        known = {_renamed(name, renamed): file for name, file in before.get(case, {}).items()}
        for file in dict.fromkeys([*known, *files]):
            old = {_renamed(name, renamed): leaf for name, leaf in known.get(file, {}).items()}
            rows.append(_row(case, file, old, files.get(file, {}), exact=exact))
    return rows


def _row(case: str, file: str, old: File, new: File, *, exact: bool) -> Row:
    both = [name for name in old if name in new]
    same = {name for name in both if (_equal(old[name], new[name]) if exact else _similar(file, name, old, new))}
    return Row(
        case,
        file,
        tuple(name for name in both if name in same),
        tuple(name for name in both if name not in same),
        tuple(name for name in old if name not in new),
        tuple(name for name in new if name not in old),
    )


def _equal(old: Any, new: Any) -> bool:
    return json.dumps(old) == json.dumps(new)


def _similar(file: str, name: str, old: File, new: File) -> bool:
    one, other, statistic = old[name], new[name], Path(file).stem in STATISTICS
    if name == ROWS:
        return one == other
    if file.endswith(".json"):
        return True
    if one[0] != other[0]:
        return False
    if "float" not in one[0]:
        return statistic or one[1] == other[1]
    if name in ROUNDING:
        return True
    (count, mean, scale), (other_count, other_mean, other_scale) = one[2:], other[2:]
    if count != other_count or mean is None or other_mean is None:
        return count == other_count and mean == other_mean
    return abs(mean - other_mean) <= (LOOSE_TOLERANCE if statistic else TOLERANCE) * max(scale, other_scale)


def _renamed(name: str, renamed: Sequence[tuple[str, str]]) -> str:
    """A name with its parts between dots replaced.

    Example:
        >>> _renamed("priors.l2.weight", [("l2", "terms.l2")]), _renamed("l2_weight", [("l2", "x")])
        ('priors.terms.l2.weight', 'l2_weight')
    """
    for old, new in renamed:
        parts, sought = name.split("."), old.split(".")
        found = next((at for at in range(len(parts)) if parts[at : at + len(sought)] == sought), None)
        if found is not None:
            name = ".".join([*parts[:found], new, *parts[found + len(sought) :]])
    return name


def table(rows: Sequence[Row]) -> str:
    """The comparison as text: a line per file that differs, the equal ones of a case in one."""
    lines = [("case", "file", "equal", "changed", "only before", "only after")]
    for case in dict.fromkeys(row.case for row in rows):
        own = [row for row in rows if row.case == case]
        equal = [row for row in own if row.same]
        lines.append((case, f"{len(equal)} of {len(own)} files", str(sum(len(row.equal) for row in equal)), "", "", ""))
        for row in own:
            if not row.same:
                counts = (len(row.equal), len(row.changed), len(row.lost), len(row.new))
                lines.append(("", row.file, *(str(count) if count else "" for count in counts)))
    widths = [max(len(line[column]) for line in lines) for column in range(6)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    for row in rows:
        for label, names in (("changed", row.changed), ("only before", row.lost), ("only after", row.new)):
            if names:
                shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
                text.append(f"{row.case} {row.file}, {label}: {shown}")
    return "\n".join([*text, total(rows)])


def total(rows: Sequence[Row]) -> str:
    """The comparison in a line."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts += Counter(
            equal=len(row.equal), changed=len(row.changed), **{"only before": len(row.lost), "only after": len(row.new)}
        )
    said = ", ".join(f"{counts[name]} {name}" for name in ("equal", "changed", "only before", "only after"))
    return f"{len(rows)} files: {said}"


def written(document: Mapping[str, Any]) -> str:
    """A document as JSON with a line per column."""

    def lines(content: Any, indent: int) -> str:
        if not isinstance(content, dict) or not content:
            return json.dumps(content, ensure_ascii=False, allow_nan=False)
        items = [f"{json.dumps(key, ensure_ascii=False)}: {lines(value, indent + 1)}" for key, value in content.items()]
        return "{\n" + ",\n".join(" " * (indent + 1) + item for item in items) + "\n" + " " * indent + "}"

    return lines(document, 0) + "\n"


def _pair(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not (old and equals and new):
        raise argparse.ArgumentTypeError(f"{text!r} must read OLD=NEW")
    return old, new


def _cases(text: str) -> list[str]:
    names = text.split(",")
    if wrong := [name for name in names if name not in CASES]:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} must be of {', '.join(CASES)}")
    return names


def main() -> int:
    """Runs, writes and compares; 1 if a value changed or is gone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the digests")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="compare with digests that were written before")
    parser.add_argument("--after", type=Path, metavar="FILE", help="digests to compare, instead of running the cases")
    parser.add_argument("--renamed", type=_pair, action="append", default=[], metavar="OLD=NEW", help="may be repeated")
    parser.add_argument("--only", type=_cases, default=list(CASES), metavar="CASE,...", help="run these alone")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="run in this new folder, and leave it")
    parser.add_argument("--canary", action="store_true", help="print this machine's canary alone")
    asked = parser.parse_args()
    if asked.canary:
        print(json.dumps(compute_canary()))
        return 0
    if asked.after is not None:
        document = json.loads(asked.after.read_text("utf-8"))
    else:
        package = importlib.util.find_spec("actmax")
        print(f"actmax of {package.origin if package else 'nowhere'}", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="golden-") as scratch:
            folder = Path(scratch) if asked.keep is None else asked.keep
            folder.mkdir(parents=True, exist_ok=asked.keep is None)
            document = run(folder.resolve(), asked.only, lambda said: print(said, file=sys.stderr))
    if asked.write is not None:
        asked.write.parent.mkdir(parents=True, exist_ok=True)
        asked.write.write_text(written(document), encoding="utf-8")
    if asked.compare is None:
        return 0
    expected = json.loads(asked.compare.read_text("utf-8"))
    differs = other_machine(expected, document)
    rows = compare(expected["cases"], document["cases"], asked.renamed, exact=not differs)
    print(table(rows))
    if differs:
        print(f"Compared to a tolerance only, for this is another kind of machine: {', '.join(differs)}")
    return int(any(row.changed or row.lost for row in rows))


if __name__ == "__main__":
    sys.exit(main())
