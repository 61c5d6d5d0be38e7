"""How fast a maximization is: actmax beside the ways it is otherwise done, on one random model, in one run.

    python scripts/benchmark.py [--restarts 10 100] [--steps 50] [--alternations 5] [--only a,d,e] [--json FILE]
    python scripts/benchmark.py --agreement smollm2    # how far the fast path is from the plain one
    python scripts/benchmark.py --agreement smollm2 --device cuda  # how far a GPU's fast path is from a CPU's
    python scripts/benchmark.py --others               # start-up, the comparison and sweeps, by their own scripts

a  the literal script: one restart at a time, whole causal language model, `output_hidden_states`, all weights
   requiring gradients, Adam over the embedding
a0 the same on the base model, which has no head
b  TransformerLens 4: one restart at a time as its documentation shows it; "cut" stops at the layer and freezes the
   weights; "batched" does so with all restarts in one tensor
c  nnsight, in the same three ways
d  a bare PyTorch loop: batched, truncated, frozen
e  actmax: a default job's LightningModule, Trainer and callbacks
eb the same with weights in bfloat16; eh and em with float32 weights and `trainer.matmul_precision=high` (TF32 on a GPU)
and `medium`; ec compiled (`trainer.compile=true`), ek compiled and in bfloat16

Every row has a process of its own, which waits while it is not its turn: so peak memory is its own, and what a library
patches stays with it. Turns alternate, every second time in reverse order; ratios are taken within an alternation.
docs/performance.md says what is counted.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024, "vocab_size": 50257},
    "tiny": {"n_layer": 3, "n_embd": 32, "n_head": 4, "n_positions": 32, "vocab_size": 300},
}
TARGETS = {"gpt2": (8, 91), "tiny": (2, 7)}
"""Layer and index of `resid_pre`; Report A's, for GPT-2."""
PACKAGES = ("actmax", "torch", "transformers", "lightning", "transformer-lens", "nnsight")
LR = 0.001
WARMUP = 3


@dataclass(frozen=True)
class Setting:
    """What every row has in common."""

    size: str = "gpt2"
    """Of the model."""
    tokens: int = 5
    """Of a restart."""
    steps: int = 50
    """Of a turn."""
    alternations: int = 5
    """Turns of every row."""
    device: str = "cpu"
    """Where."""
    dtype: str = "float32"
    """Of the weights."""
    batches: tuple[int, ...] = (10, 100)
    """How many restarts the batched rows have."""

    @property
    def architecture(self) -> dict[str, Any]:
        """Of the model."""
        return {"model_type": "gpt2", **SIZES[self.size]}

    @property
    def total(self) -> int:
        """Steps of a row."""
        return WARMUP + self.steps * self.alternations


# what is counted


def block_matmuls(width: int) -> list[tuple[int, int]]:
    """Inputs and outputs of a GPT-2 block's four projections."""
    return [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]


def flops_per_restart_step(*, layers: int, width: int, tokens: int) -> int:
    """Floating-point operations of one restart's forward and backward pass through some GPT-2 blocks.

    A product of (m, k) and (k, n) counts 2 m k n. Forward, a block has its four projections, and queries times keys and
    weights times values over all pairs of positions. Backward, a frozen projection has one product (to its input; the
    other would be the weights' gradient), a product of two activations has two. Norms, activation functions, biases,
    softmax, Adam and the bookkeeping count nothing.

    Args:
        layers: blocks up to the target.
        width: d_model.
        tokens: of a restart.
    """
    projections = sum(2 * tokens * rows * columns for rows, columns in block_matmuls(width))
    attention = 2 * (2 * tokens * tokens * width)
    return layers * (2 * projections + 3 * attention)


# the rows


class Pace:
    """Cuts a row's steps into a warm-up and turns, and times the turns; a row calls it after every step.

    Args:
        steps: of a turn.
        turns: how many.
        wait: returns when it is the row's turn.
        report: gets the seconds of a turn, and what was noted in it.
        synchronize: returns when the device has done all it was given.
        warmup: steps before the first turn.
    """

    def __init__(
        self,
        steps: int,
        turns: int,
        *,
        wait: Callable[[], None],
        report: Callable[[float, dict[str, Any]], None],
        synchronize: Callable[[], None],
        warmup: int = WARMUP,
    ) -> None:
        self.steps, self.left, self.edge = steps, turns, warmup
        self.wait, self.report, self.synchronize = wait, report, synchronize
        self.done, self.notes, self.started = 0, {}, None

    def __call__(self) -> None:
        """A step is done."""
        self.done += 1
        if self.done < self.edge:
            return
        self.synchronize()
        if self.started is not None:
            self.report(time.perf_counter() - self.started, self.notes)
            self.left -= 1
        if self.left:
            self.wait()
            self.edge, self.notes, self.started = self.edge + self.steps, {}, time.perf_counter()


def random_model(setting: Setting) -> Any:
    """The subject of every row but actmax's, which makes its own with the same weights."""
    from transformers.activations import NewGELUActivation

    from actmax.model.subject import load

    subject = load(name="random", source="random", architecture=setting.architecture, dtype=setting.dtype)
    for block in subject.base.h:
        block.mlp.act = NewGELUActivation()  # `load` puts a faster one there, which the others do not have
    return subject.to(setting.device)


def starts(setting: Setting, subject: Any, restarts: int) -> Any:
    """Initial embeddings, as actmax draws them."""
    from actmax.maximize.optimizee import initial, scaled

    return initial(scaled(subject.embedding_matrix, setting.tokens), range(restarts)).to(setting.device)


def optimize(setting: Setting, start: Any, pace: Pace, hidden_at: Callable[[Any], Any]) -> Any:
    """The loop that a person writes: Adam over an embedding of one or more restarts, from `hidden_at` its target."""
    import torch

    embedding = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([embedding], lr=LR)
    index = TARGETS[setting.size][1]
    for _ in range(setting.total):
        optimizer.zero_grad()
        hidden = hidden_at(embedding)
        loss = -hidden[:, :, index].mean(1).sum()
        loss.backward()
        optimizer.step()
        pace()
    return embedding.detach()


def literal(setting: Setting, restarts: int, pace: Pace, *, head: bool = True) -> Any:
    """(a) and (a0): the script of the report."""
    subject = random_model(setting)
    model, layer = subject.model if head else subject.base, TARGETS[setting.size][0]
    model.requires_grad_(True)

    def hidden_at(embedding: Any) -> Any:
        return model(inputs_embeds=embedding.to(subject.dtype), output_hidden_states=True).hidden_states[layer]

    return optimize(setting, starts(setting, subject, restarts), pace, hidden_at)


def literal_base(setting: Setting, restarts: int, pace: Pace) -> Any:
    """(a0)."""
    return literal(setting, restarts, pace, head=False)


def _lens(setting: Setting) -> tuple[Any, Any]:
    from transformer_lens.model_bridge import TransformerBridge

    from actmax.model.subject import byte_tokenizer

    subject, tokenizer = random_model(setting), byte_tokenizer()
    start = starts(setting, subject, max(setting.batches))  # before the bridge takes the model apart
    tokenizer.init_kwargs.update(name_or_path="bytes", add_bos_token=True)  # else it is looked for on the hub
    subject.model.requires_grad_(True)
    bridge = TransformerBridge.boot_transformers(
        "gpt2", hf_model=subject.model, tokenizer=tokenizer, device=setting.device, dtype=subject.dtype
    )
    return bridge, start


def lens(setting: Setting, restarts: int, pace: Pace) -> Any:
    """(b): a hook on the residual stream, the whole model, weights as they come."""
    bridge, start = _lens(setting)
    name, seen = f"blocks.{TARGETS[setting.size][0]}.hook_resid_pre", {}

    def keep(value: Any, hook: Any) -> None:  # noqa: ARG001
        seen["value"] = value

    def hidden_at(embedding: Any) -> Any:
        bridge.run_with_hooks(embedding.to(bridge.cfg.dtype), fwd_hooks=[(name, keep)], return_type=None)
        return seen["value"]

    return optimize(setting, start[:restarts], pace, hidden_at)


def lens_cut(setting: Setting, restarts: int, pace: Pace) -> Any:
    """(b) cut and batched: `stop_at_layer`, frozen weights."""
    bridge, start = _lens(setting)
    bridge.requires_grad_(False)
    layer = TARGETS[setting.size][0]

    def hidden_at(embedding: Any) -> Any:
        return bridge(embedding.to(bridge.cfg.dtype), stop_at_layer=layer)

    return optimize(setting, start[:restarts], pace, hidden_at)


def sight(setting: Setting, restarts: int, pace: Pace) -> Any:
    """(c): a trace of the whole model, weights as they come."""
    from nnsight import NNsight

    subject, layer = random_model(setting), TARGETS[setting.size][0]
    model = NNsight(subject.model.requires_grad_(True))

    def hidden_at(embedding: Any) -> Any:
        with model.trace(inputs_embeds=embedding.to(subject.dtype)):
            hidden = model.transformer.h[layer - 1].output.save()
        return hidden  # noqa: RET504 (the block is traced, not run)

    return optimize(setting, starts(setting, subject, restarts), pace, hidden_at)


def sight_cut(setting: Setting, restarts: int, pace: Pace) -> Any:
    """(c) cut and batched: the trace stops behind the layer, frozen weights."""
    from nnsight import NNsight

    subject, layer = random_model(setting), TARGETS[setting.size][0]
    model = NNsight(subject.model)

    def hidden_at(embedding: Any) -> Any:
        with model.trace(inputs_embeds=embedding.to(subject.dtype)) as tracer:
            hidden = model.transformer.h[layer - 1].output.save()
            tracer.stop()
        return hidden

    return optimize(setting, starts(setting, subject, restarts), pace, hidden_at)


def bare(setting: Setting, restarts: int, pace: Pace) -> Any:
    """(d): the blocks one after the other, and nothing else."""
    subject = random_model(setting)
    blocks = list(subject.base.h)[: TARGETS[setting.size][0]]
    positions = subject.base.wpe.weight[: setting.tokens]

    def hidden_at(embedding: Any) -> Any:
        hidden = embedding.to(subject.dtype) + positions
        for block in blocks:
            hidden = block(hidden)
        return hidden

    return optimize(setting, starts(setting, subject, restarts), pace, hidden_at)


def job(overrides: Sequence[str], folder: Path) -> Any:
    """A default job of actmax, prepared, in a folder."""
    from hydra import compose, initialize_config_dir

    from actmax.app import config
    from actmax.model.subject import shared
    from actmax.records.contents import Contents
    from actmax.records.store import Record
    from actmax.tasks.maximization.work import MaximizationWork
    from actmax.tasks.task import Run, plain

    config.register()
    with initialize_config_dir(str(config.conf_folder()), version_base="1.3"):
        cfg = compose("config", overrides=list(overrides))
    config.check(cfg)
    work = MaximizationWork(config.task_in(cfg), cfg, shared(**plain(cfg.subject)))
    work.prepare()
    return work, Run(Contents(Record(folder)), folder)


def fit(work: Any, run: Any, after_each: Callable[[], None]) -> None:
    """Its fit alone, without what comes behind it; calls a function behind every step's callbacks."""
    from lightning import Callback

    from actmax.app.run import tracker_of
    from actmax.tasks.execution import matmul_precision

    class Steps(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            after_each()

    work.callbacks.append(Steps())
    tracker = tracker_of(work.cfg, run.contents.record, work)
    run.loggers = tracker.loggers
    work._bind(work.callbacks, run.contents)
    with matmul_precision(work.cfg.trainer.matmul_precision):
        work._fit(run)
    tracker.finish(0)


def framework(setting: Setting, restarts: int, pace: Pace, *options: str) -> Any:
    """(e): actmax, and what else its command says."""
    layer, index = TARGETS[setting.size]
    overrides = ["subject=tiny", f"subject.dtype={setting.dtype}", f"steps={setting.total}", f"tokens={setting.tokens}"]
    overrides += [f"++subject.architecture.{key}={value}" for key, value in setting.architecture.items()]
    overrides += [f"unit.layer={layer}", f"unit.index={index}", f"seeds='0:{restarts}'", f"optimizer.lr={LR}"]
    overrides += ["controls=0", "sweep=benchmark", f"trainer={'cpu' if setting.device == 'cpu' else 'gpu'}", *options]
    with tempfile.TemporaryDirectory() as folder, quiet():
        work, run = job(overrides, Path(folder))
        fit(work, run, pace)
        return work.module.embedding


def framework_bfloat16(setting: Setting, restarts: int, pace: Pace) -> Any:
    """(e) with weights in bfloat16, whatever the other rows have."""
    return framework(replace(setting, dtype="bfloat16"), restarts, pace)


def framework_high(setting: Setting, restarts: int, pace: Pace) -> Any:
    """(e) with weights as they are, and products that a GPU may do in TF32."""
    return framework(setting, restarts, pace, "trainer.matmul_precision=high")


def framework_compiled(setting: Setting, restarts: int, pace: Pace) -> Any:
    """(e) with compiled blocks."""
    return framework(setting, restarts, pace, "trainer.compile=true")


def framework_compiled_bfloat16(setting: Setting, restarts: int, pace: Pace) -> Any:
    """(e) with compiled blocks and weights in bfloat16."""
    return framework_compiled(replace(setting, dtype="bfloat16"), restarts, pace)


def framework_medium(setting: Setting, restarts: int, pace: Pace) -> Any:
    """(e) with weights as they are, and products that PyTorch may round to bfloat16."""
    return framework(setting, restarts, pace, "trainer.matmul_precision=medium")


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's announcements."""
    from actmax.tasks.execution import quieted

    with quieted():
        yield


def gemm(setting: Setting, restarts: int, pace: Pace) -> None:  # noqa: ARG001
    """The machine's matrix products: large square ones, and those of the blocks at every number of restarts."""
    import torch

    dtype, width = getattr(torch, setting.dtype), SIZES[setting.size]["n_embd"]
    side = 2048 if setting.size == "gpt2" else 128
    cases = {"square": [(side, side, side)] * 3}
    for batch in setting.batches:
        rows = batch * setting.tokens
        forward = [(rows, a, b) for a, b in block_matmuls(width)]
        cases[f"blocks at {batch}"] = [*forward, *[(rows, b, a) for _, a, b in forward]]
    tensors = {
        name: [[torch.randn(m, k, dtype=dtype), torch.randn(k, n, dtype=dtype)] for m, k, n in shapes]
        for name, shapes in cases.items()
    }
    operands = {name: [[t.to(setting.device) for t in pair] for pair in pairs] for name, pairs in tensors.items()}
    for _ in range(1 + setting.alternations):
        for name, shapes in cases.items():
            work = sum(2 * m * k * n for m, k, n in shapes)
            pace.notes[name] = max(work / _seconds(operands[name], pace.synchronize) for _ in range(5))
        pace()


def _seconds(pairs: Sequence[Sequence[Any]], synchronize: Callable[[], None]) -> float:
    synchronize()
    begun = time.perf_counter()
    for left, right in pairs:
        left @ right
    synchronize()
    return time.perf_counter() - begun


@dataclass(frozen=True)
class Contestant:
    """A kind of row."""

    label: str
    """What the table calls it."""
    run: Callable[[Setting, int, Pace], Any]
    """Takes all steps, with a pause behind each."""
    batched: bool = False
    """Whether it is run at every number of restarts; else one restart at a time."""


CONTESTANTS = {
    "a": Contestant("literal script", literal),
    "a0": Contestant("literal script, no head", literal_base),
    "b": Contestant("TransformerLens", lens),
    "b1": Contestant("TransformerLens, cut", lens_cut),
    "bn": Contestant("TransformerLens, cut, batched", lens_cut, batched=True),
    "c": Contestant("nnsight", sight),
    "c1": Contestant("nnsight, cut", sight_cut),
    "cn": Contestant("nnsight, cut, batched", sight_cut, batched=True),
    "d": Contestant("bare PyTorch", bare, batched=True),
    "e": Contestant("actmax", framework, batched=True),
    "eb": Contestant("actmax, bfloat16", framework_bfloat16, batched=True),
    "eh": Contestant("actmax, high products", framework_high, batched=True),
    "em": Contestant("actmax, medium products", framework_medium, batched=True),
    "ec": Contestant("actmax, compiled", framework_compiled, batched=True),
    "ek": Contestant("actmax, compiled, bfloat16", framework_compiled_bfloat16, batched=True),
    "peak": Contestant("matrix products", gemm),
}
OF_PEAK = ("bn", "cn", "d", "e")
"""Rows set beside the peak: batched, and products in its own dtype."""


# a process for every row


@dataclass
class Row:
    """A row of the table, as it was measured."""

    key: str
    """Of `CONTESTANTS`."""
    restarts: int
    """In one batch."""
    seconds: list[float] = field(default_factory=list)
    """Of every turn."""
    notes: list[dict[str, Any]] = field(default_factory=list)
    """Of every turn."""
    peak_bytes: int | None = None
    """Most memory that its process (or its GPU) held."""
    error: str | None = None
    """Why there is nothing."""


def synchronizer(device: str) -> Callable[[], None]:
    """What waits for a device."""
    if device == "cpu":
        return lambda: None
    import torch

    return torch.cuda.synchronize


def peak_bytes(device: str) -> int:
    """Most memory so far: of the process on a CPU, of the tensors on a GPU."""
    if device != "cpu":
        import torch

        return torch.cuda.max_memory_allocated()
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    except (OSError, StopIteration):  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def pace_of(row: Row, setting: Setting, **doors: Any) -> Pace:
    """The pace of a row: the machine's peak is one measurement per turn."""
    steps, warmup = (1, 1) if row.key == "peak" else (setting.steps, WARMUP)
    return Pace(steps, setting.alternations, warmup=warmup, synchronize=synchronizer(setting.device), **doors)


def serve(connection: Any, row: Row, setting: Setting, threads: int | None) -> None:
    """A row's process: says when it is ready, waits for each turn, reports it."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

    def wait() -> None:
        connection.send(("ready", peak_bytes(setting.device)))
        connection.recv()

    def report(seconds: float, notes: dict[str, Any]) -> None:
        connection.send(("turn", (seconds, notes)))

    try:
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        CONTESTANTS[row.key].run(setting, row.restarts, pace_of(row, setting, wait=wait, report=report))
        connection.send(("end", peak_bytes(setting.device)))
    except ModuleNotFoundError as error:
        connection.send(("error", f"not installed: {str(error.name).partition('.')[0]}"))
    except Exception as error:  # the other rows go on
        traceback.print_exc()
        connection.send(("error", f"{type(error).__name__}: {str(error).splitlines()[0][:100] if str(error) else ''}"))


class Runner:
    """A row and its process."""

    def __init__(self, row: Row, setting: Setting, threads: int | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.row = row
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, row, setting, threads), daemon=True)
        self.process.start()
        theirs.close()

    def listen(self) -> None:
        """Takes what the process says until it waits again or has ended."""
        while True:
            try:
                kind, content = self.connection.recv()
            except EOFError:
                kind, content = "error", "its process died"
            if kind == "turn":
                self.row.seconds.append(content[0])
                self.row.notes.append(content[1])
                continue
            if kind == "error":
                self.row.error = content
            else:
                self.row.peak_bytes = content
            return

    def turn(self) -> None:
        """One turn."""
        if self.row.error is None:
            self.connection.send("go")
            self.listen()

    def close(self) -> None:
        """Ends the process."""
        self.connection.close()
        self.process.join(timeout=30)
        if self.process.is_alive():
            self.process.kill()


def chosen(only: str | None, batches: Sequence[int]) -> list[Row]:
    """The rows that were asked for: by letter (all of a letter's), or one by `=` and its key; the peak always."""
    wanted = list(CONTESTANTS) if only is None else [*only.split(","), "peak"]
    unknown = [name for name in wanted if name.removeprefix("=") not in CONTESTANTS]
    if unknown:
        raise SystemExit(f"--only {unknown[0]}: must be of {', '.join(CONTESTANTS)}")
    rows = []
    for key, one in CONTESTANTS.items():
        if {key, f"={key}"} & {*wanted} or (len(key) == 2 and key[0] in wanted):
            rows += [Row(key, restarts) for restarts in (batches if one.batched else [1])]
    return rows


def measure(rows: Sequence[Row], setting: Setting, *, threads: int | None = None) -> None:
    """Fills the rows: all processes ready first, then the alternations."""
    runners = []
    try:
        together = setting.device != "cpu"  # the rows of a CPU would disturb each other's start, and need its memory
        for row in rows:
            runners.append(Runner(row, setting, threads))
            if not together:
                ready(runners[-1])
        for runner in runners if together else ():
            ready(runner)
        for number in range(setting.alternations):
            for runner in runners if number % 2 == 0 else reversed(runners):
                runner.turn()
            say(f"alternation {number + 1} of {setting.alternations}")
    finally:
        for runner in runners:
            runner.close()


def ready(runner: Runner) -> None:
    """Waits until a row has warmed up, and says so."""
    runner.listen()
    say(f"{CONTESTANTS[runner.row.key].label}, {runner.row.restarts}: {runner.row.error or 'ready'}")


def say(line: str) -> None:
    """Progress, beside the table."""
    print(line, file=sys.stderr, flush=True)


# the table


@dataclass(frozen=True)
class Spread:
    """Over alternations."""

    median: float
    """The figure."""
    low: float
    """Smallest."""
    high: float
    """Largest."""

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g})"


def spread(values: Sequence[float]) -> Spread:
    """Median and range."""
    return Spread(statistics.median(values), min(values), max(values))


def rates(row: Row, steps: int) -> list[float]:
    """Restart-steps per second of every turn."""
    return [row.restarts * steps / seconds for seconds in row.seconds]


def _against(values: Sequence[float], base: Sequence[float] | None) -> Spread | None:
    return spread([one / other for one, other in zip(values, base, strict=True)]) if base else None


def figures(rows: Sequence[Row], setting: Setting) -> list[dict[str, Any]]:
    """What the table shows, a row each: rate, ratios, memory, share of the machine's matrix-product peak."""
    by_key = {(row.key, row.restarts): rates(row, setting.steps) for row in rows if row.error is None}
    flops = flops_per_restart_step(
        layers=TARGETS[setting.size][0], width=SIZES[setting.size]["n_embd"], tokens=setting.tokens
    )
    peaks = [max(notes.values()) for row in rows if row.key == "peak" for notes in row.notes]
    found = []
    for row in rows:
        if row.key == "peak":
            continue
        own: dict[str, Any] = {"key": row.key, "label": CONTESTANTS[row.key].label, "restarts": row.restarts}
        own |= {"error": row.error, "peak_gb": None if row.peak_bytes is None else row.peak_bytes / 1e9}
        if row.error is None:
            rate = by_key[row.key, row.restarts]
            own |= {"rate": spread(rate), "seconds": row.seconds}
            own |= {f"times_{key}": _against(rate, by_key.get((key, 1))) for key in ("a", "a0", "b", "c")}
            own["times_d"] = _against(rate, by_key.get(("d", row.restarts)))
            useful = [flops * one for one in rate]
            own["of_peak"] = _against(useful, peaks) if row.key in OF_PEAK else None
        found.append(own)
    return found


COLUMNS = {
    "restart-steps/s": "rate",
    "x a": "times_a",
    "x a0": "times_a0",
    "x b": "times_b",
    "x c": "times_c",
    "x d": "times_d",
    "of peak": "of_peak",
}


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """The figures as text."""
    lines = [["", "restarts", *COLUMNS, "peak GB"]]
    for own in found:
        start = [str(own["label"]), str(own["restarts"])]
        if own["error"] is not None:
            lines.append([*start, str(own["error"])])
            continue
        memory = "" if own["peak_gb"] is None else f"{own['peak_gb']:.2f}"
        lines.append([*start, *("" if own[name] is None else str(own[name]) for name in COLUMNS.values()), memory])
    whole = [line for line in lines if len(line) == len(lines[0])]
    widths = [max(len(line[column]) for line in whole) for column in range(len(lines[0]))]
    widths[0] = max(len(line[0]) for line in lines)
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip() for line in lines
    )


def peak_lines(rows: Sequence[Row]) -> str:
    """The machine's matrix products, in words."""
    notes = [one for row in rows if row.key == "peak" for one in row.notes]
    parts = [f"{name} {spread([one[name] / 1e9 for one in notes])}" for name in (notes[0] if notes else {})]
    return "Matrix products, GFLOP/s: " + "; ".join(parts)


def machine() -> dict[str, Any]:
    """Where it ran, and with what."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        lines, name = [], platform.processor()
    known = set(" ".join(line for line in lines if line.startswith("flags")).split())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    instructions = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in known]
    return {"processor": name, "cores": cores, "instructions": instructions, "versions": versions}


def compete(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures, prints the table, and returns everything."""
    setting = Setting(
        size=arguments.size,
        steps=arguments.steps,
        alternations=arguments.alternations,
        device=arguments.device,
        dtype=arguments.dtype,
        batches=tuple(arguments.restarts),
    )
    rows = chosen(arguments.only, setting.batches)
    measure(rows, setting, threads=arguments.threads)
    found = figures(rows, setting)
    print(table(found))
    print(peak_lines(rows))
    peaks = [notes for row in rows if row.key == "peak" for notes in row.notes]
    plain = [
        {key: asdict(value) if isinstance(value, Spread) else value for key, value in own.items()} for own in found
    ]
    return {"machine": machine(), "setting": asdict(setting), "rows": plain, "matrix_products": peaks}


# how far the fast path is from the plain one

BOUNDS = {"step_20": 1e-3, "mean_activation": 0.05, "retention": 0.12, "unique": 2.0, "tokens_changed": 0.2}
"""Contract 3 of docs/design.md."""


def plain_path(subject: Any, starts: Any, *, layer: int, index: int, steps: int) -> tuple[Any, Any]:
    """One restart at a time through the whole model: final embeddings, activations by step and restart.

    The weights take no gradient: that does not touch the embedding's, and would take twice as long.
    """
    import torch

    ends, paths = [], []
    for number, start in enumerate(starts):
        embedding = start[None].clone().requires_grad_()
        optimizer, path = torch.optim.Adam([embedding], lr=LR), []
        for _ in range(steps):
            optimizer.zero_grad()
            hidden = subject.base(inputs_embeds=embedding.to(subject.dtype), output_hidden_states=True, use_cache=False)
            activation = hidden.hidden_states[layer][0, :, index].mean()
            path.append(activation.item())
            (-activation).backward()
            optimizer.step()
        with torch.no_grad():
            hidden = subject.base(inputs_embeds=embedding.to(subject.dtype), output_hidden_states=True, use_cache=False)
        path.append(hidden.hidden_states[layer][0, :, index].mean().item())
        ends.append(embedding.detach()[0])
        paths.append(path)
        say(f"plain path: restart {number + 1} of {len(starts)}")
    return torch.stack(ends), torch.tensor(paths).double().T


def fast_path(
    subject_name: str, folder: Path, *, layer: int, index: int, restarts: int, steps: int, device: str = "cpu"
) -> Any:
    """The job of actmax: its prepared work, initial and final embeddings, activations by step and restart."""
    import torch

    overrides = [f"subject={subject_name}", f"unit.layer={layer}", f"unit.index={index}", f"seeds='0:{restarts}'"]
    trainer = "cpu" if device == "cpu" else "gpu"
    with quiet():
        work, run = job([*overrides, f"steps={steps}", "controls=0", f"trainer={trainer}", "sweep=benchmark"], folder)
        path: list[Any] = []
        fit(work, run, lambda: path.append(work.module.activation.clone()))
    initial, final, _, activation = work.module.outcome()
    return work, initial.cpu(), final.cpu(), torch.stack([*path, activation]).double().cpu()


def differences(initial: Any, fast: tuple[Any, Any], plain: tuple[Any, Any], decode: Callable[[Any], Any]) -> Any:
    """How far two paths are apart, in contract 3's terms.

    Args:
        initial: embeddings of both.
        fast: final embeddings, and activations by step and restart.
        plain: the same of the other path.
        decode: embeddings to token ids.
    """
    early = min(20, len(fast[1]) - 1)
    begin, ends = decode(initial), [decode(fast[0]), decode(plain[0])]
    kept = [float((end == begin).double().mean()) for end in ends]
    unique = [len(end.unique()) for end in ends]
    means = [float(path[-1].mean()) for path in (fast[1], plain[1])]
    found = {
        "step_20": float(((fast[1][early] - plain[1][early]) / plain[1][early]).abs().max()),
        "mean_activation": abs(means[0] / means[1] - 1),
        "retention": abs(kept[0] - kept[1]),
        "unique": float(abs(unique[0] - unique[1])),
        "tokens_changed": float((ends[0] != ends[1]).double().mean()),
    }
    said = {"activation": means, "retention": kept, "unique": unique}
    return {"differences": found, "fast_and_plain": said, "holds": {k: found[k] <= BOUNDS[k] for k in found}}


def agreement(arguments: argparse.Namespace) -> dict[str, Any]:
    """Prints how far the job of actmax is from the plain path on a subject, or a GPU's job from a CPU's; same seeds."""
    from actmax.model.nearest import NearestTokens

    options = {"layer": arguments.layer, "index": arguments.index, "steps": arguments.agreement_steps}
    with tempfile.TemporaryDirectory() as folder:
        restarts = arguments.restarts[0]
        own, other = Path(folder) / "fast", Path(folder) / "other"
        device = arguments.device
        work, initial, final, path = fast_path(arguments.agreement, own, restarts=restarts, device=device, **options)
        if device == "cpu":
            plain = plain_path(work.subject, initial, **options)
        else:
            plain = fast_path(arguments.agreement, other, restarts=restarts, **options)[2:]
    nearest = NearestTokens(work.subject.embedding_matrix)
    found = differences(initial, (final, path), plain, lambda vectors: nearest(vectors).best)
    beside = "fast beside plain" if device == "cpu" else "GPU beside CPU"
    print(f"{arguments.agreement}, {restarts} restarts, {beside}: {found['fast_and_plain']}")
    for name, value in found["differences"].items():
        print(f"  {name:16} {value:.3g}  allowed {BOUNDS[name]:g}  {'holds' if found['holds'][name] else 'BROKEN'}")
    return {"machine": machine(), "subject": arguments.agreement, **options, "restarts": restarts, **found}


# start-up and the other benchmarks

COMMANDS = {
    "actmax --help": ["--help"],
    "a misspelt key": ["subject=tiny", "stepz=3"],
    "a wrong value": ["subject=tiny", "steps=0"],
    "a layer that is not there": ["subject=tiny", "unit.layer=99"],
}


def others(arguments: argparse.Namespace) -> dict[str, Any]:
    """Start-up times (median of 3), then what the other scripts print."""
    found: dict[str, Any] = {"machine": machine(), "start_up_seconds": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name, words in COMMANDS.items():
            seconds = []
            for _ in range(3):
                begun = time.perf_counter()
                subprocess.run([sys.executable, "-m", "actmax", *words], cwd=folder, capture_output=True, check=False)
                seconds.append(time.perf_counter() - begun)
            found["start_up_seconds"][name] = statistics.median(seconds)
            print(f"{name:28} {statistics.median(seconds):.2f} s")
    for script in arguments.scripts:
        file = Path(__file__).parent / f"benchmark_{script}.py"
        ran = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=False)
        print(f"{file.name}:", ran.stdout if ran.returncode == 0 else ran.stderr.strip().splitlines()[-1])
        found[script] = json.loads(ran.stdout) if ran.returncode == 0 else None
    return found


def parsed(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--restarts", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--steps", type=int, default=50, help="of a turn")
    parser.add_argument("--alternations", type=int, default=5)
    parser.add_argument("--only", help="a,d,e: some rows, and all that begin so; =e: this one alone")
    parser.add_argument("--size", choices=SIZES, default="gpt2")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, help="of torch; default: its own choice")
    parser.add_argument("--json", type=Path, help="file to write everything to")
    parser.add_argument("--agreement", metavar="SUBJECT", help="compare paths on a subject instead")
    parser.add_argument("--agreement-steps", type=int, default=500)
    parser.add_argument("--layer", type=int, default=8, help="of --agreement")
    parser.add_argument("--index", type=int, default=91, help="of --agreement")
    parser.add_argument("--others", action="store_true", help="start-up and the other scripts instead")
    parser.add_argument("--scripts", nargs="*", default=["comparison", "sweep"], help="of --others")
    return parser.parse_args(words)


def main() -> None:
    """Measures and prints."""
    arguments = parsed()
    task = agreement if arguments.agreement else others if arguments.others else compete
    found = task(arguments)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
