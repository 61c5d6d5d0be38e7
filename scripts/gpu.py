"""What one CUDA GPU gives, in one command: `bash scripts/gpu.sh FOLDER [--small] [--only PART ...] [--limit SECONDS]`.

The parts run one after the other, each in a process of its own with a time limit. A part that fails or takes too long
is named in the results, and the others run. Everything is written again behind every part: `gpu.json` holds all that
was measured, `gpu.md` the tables made of it.

rows       scripts/benchmark.py: restart-steps per second and memory at 10, 100 and 1,000 restarts; float32, TF32
           (`trainer.matmul_precision=high`), bfloat16, compiled, beside a bare PyTorch loop
main       `experiment=reproducibility` on the GPU, with and without its null in the cache
cpu        the same on the CPU of the same machine
agreement  the main job's fit on the GPU beside the same on the CPU, in the terms of docs/design.md's third contract
search     `task=search` with gcg, 8 restarts of 2,000 passes, and candidates per second beside nanoGCG
atlas      `experiment=atlas` of one layer: every coordinate, 2 seeds
launch     two jobs of a sweep by `launch=gpus`, both on this GPU
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmark import BOUNDS, machine

SCRIPTS = Path(__file__).parent


@dataclass(frozen=True)
class Sizes:
    """What differs between a GPU and a trial on a CPU."""

    device: str
    trainer: str
    model: str
    subject: str
    unit: tuple[int, int]
    batches: tuple[str, ...]
    steps: int
    rows: str
    options: tuple[str, ...] = ()


FULL = Sizes("cuda", "gpu", "gpt2", "smollm2", (8, 91), ("10", "100", "1000"), 20, "d,=e,eb,eh,ec")
SMALL = Sizes("cpu", "cpu", "tiny", "tiny", (2, 7), ("2", "4"), 2, "d,=e,eb,eh", ("steps=4", "gap.draws=50"))


class Part:
    """A part's folder, and what runs commands in it.

    Args:
        sizes: of the models and jobs.
        folder: of the part; new.
        end: when its time is over, in seconds of `time.monotonic`.
    """

    def __init__(self, sizes: Sizes, folder: Path, end: float) -> None:
        self.sizes, self.folder, self.end = sizes, folder, end

    def call(self, *words: str) -> float:
        """Runs Python with some arguments; gives the seconds that it took.

        Raises:
            RuntimeError: it failed, or had no time left; with the end of what it said.
        """
        begun = time.monotonic()
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
        with (self.folder / "log").open("ab+") as log:
            try:
                ran = subprocess.run(
                    [sys.executable, *words],
                    cwd=self.folder,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=max(1.0, self.end - begun),
                    env=environment,
                    check=False,
                )
                problem = f"exit code {ran.returncode}" if ran.returncode else ""
            except subprocess.TimeoutExpired:
                problem = "stopped: its time was over"
            log.seek(0)
            said = log.read().decode(errors="replace")[-1500:]
        if problem:
            raise RuntimeError(f"{' '.join(words[:8])}: {problem}\n{said}")
        return time.monotonic() - begun

    def script(self, name: str, *words: str) -> Any:
        """Runs a script of this folder that writes JSON to the file named by `--json`, and gives it."""
        file = self.folder / "found.json"
        self.call(str(SCRIPTS / f"{name}.py"), *words, "--json", str(file))
        return json.loads(file.read_text())

    def job(self, name: str, *overrides: str) -> dict[str, Any]:
        """Runs a job of actmax: the seconds of the whole command, its summary, its folder."""
        folder, sizes = self.folder / name, self.sizes
        unit = [f"unit.layer={sizes.unit[0]}", f"unit.index={sizes.unit[1]}"]
        words = [
            "-m",
            "actmax",
            f"subject={sizes.subject}",
            *unit,
            f"hydra.run.dir={folder}",
            *sizes.options,
            *overrides,
        ]
        seconds = self.call(*words)
        return {"command_seconds": seconds, "summary": json.loads((folder / "summary.json").read_text())}


def rows(part: Part) -> Any:
    """Restart-steps per second."""
    sizes = part.sizes
    options = ["--size", sizes.model, "--device", sizes.device, "--restarts", *sizes.batches]
    return part.script("benchmark", *options, "--steps", str(sizes.steps), "--alternations", "3", "--only", sizes.rows)


def main_job(part: Part) -> Any:
    """The main job on the GPU, twice: the second time the activations of random sequences are in the cache."""
    runs = ("the first time", "again")
    options = ("experiment=reproducibility", f"trainer={part.sizes.trainer}")
    return {name: part.job(f"job_{number}", *options) for number, name in enumerate(runs)}


def on_cpu(part: Part) -> Any:
    """The main job on the CPU; it takes the null from the cache, for that does not depend on the device."""
    return {"on the CPU": part.job("job", "experiment=reproducibility", "trainer=cpu")}


def agreement(part: Part) -> Any:
    """The fit on the GPU beside the fit on the CPU."""
    sizes, steps = part.sizes, "500" if part.sizes is FULL else "4"
    unit = ["--layer", str(sizes.unit[0]), "--index", str(sizes.unit[1])]
    options = ["--device", sizes.device, "--restarts", sizes.batches[0], "--agreement-steps", steps]
    return part.script("benchmark", "--agreement", sizes.subject, *unit, *options)


def search(part: Part) -> Any:
    """A search, and candidates per second."""
    few = () if part.sizes is FULL else ("search.passes=200", "transfer.draws=50")
    job = part.job("job", "task=search", "seeds='0:8'", f"trainer={part.sizes.trainer}", *few)
    options = ["--device", part.sizes.device, "--subject", part.sizes.subject]
    return {"job": job, "candidates": part.script("benchmark_search", *options)}


def atlas(part: Part) -> Any:
    """Every coordinate of one layer."""
    folder, sizes = part.folder / "sweep", part.sizes
    few = () if sizes is FULL else ("unit.index='0:4'",)
    seconds = part.call(
        *("-m", "actmax", "experiment=atlas", f"subject={sizes.subject}", f"trainer={sizes.trainer}", "max_rows=null"),
        *(f"unit.layer={sizes.unit[0]}", f"hydra.sweep.dir={folder}", *sizes.options, *few),
    )
    (summary,) = folder.glob("*/summary.json")
    return {"command_seconds": seconds, "summary": json.loads(summary.read_text())}


def launch(part: Part) -> Any:
    """Two jobs of a sweep, side by side on one GPU."""
    folder, sizes = part.folder / "sweep", part.sizes
    few = ("controls=0", "seeds='0:4'", "steps=100") if sizes is FULL else ("controls=0",)
    seconds = part.call(
        *("-m", "actmax", "-m", "experiment=reproducibility", f"subject={sizes.subject}", f"trainer={sizes.trainer}"),
        *(f"unit.layer={sizes.unit[0]}", f"unit.index={sizes.unit[1]},{sizes.unit[1] + 1}", *sizes.options, *few),
        *(f"hydra.sweep.dir={folder}", "launch=gpus", "launch.gpus=1", "launch.jobs_per_gpu=2"),
    )
    summaries = [json.loads(file.read_text()) for file in sorted(folder.glob("*/summary.json"))]
    if len(summaries) != 2:
        raise RuntimeError(f"{len(summaries)} of 2 jobs left a summary")
    return {"command_seconds": seconds, "summaries": summaries}


PARTS: dict[str, tuple[Callable[[Part], Any], float]] = {
    "main": (main_job, 80.0),
    "search": (search, 80.0),
    "launch": (launch, 60.0),
    "rows": (rows, 150.0),
    "atlas": (atlas, 120.0),
    "agreement": (agreement, 90.0),
    "cpu": (on_cpu, 150.0),
}
"""What is run, in this order, and for how many seconds at most."""


# tables


def cell(value: Any, digits: int = 3) -> str:
    """A number of the JSON, with its range where it has one."""
    if isinstance(value, Mapping):
        return f"{value['median']:,.{digits}g} ({value['low']:,.{digits}g} to {value['high']:,.{digits}g})"
    return "" if value is None else f"{value:,.{digits}g}"


def lines_of_rows(found: Mapping[str, Any]) -> list[str]:
    """Speed and memory."""
    lines = ["| row | restarts | restart-steps per second | times bare | peak GB |", "|---|---|---|---|---|"]
    for row in found["rows"]:
        values = [cell(row.get("rate"), 4), cell(row.get("times_d")), cell(row["peak_gb"])]
        said = f"{row['error']} | |" if row["error"] else " | ".join(values)
        lines.append(f"| {row['label']} | {row['restarts']} | {said} |")
    return lines


def lines_of_main(found: Mapping[str, Any]) -> list[str]:
    """The main job's times and headline."""
    lines = [
        "| main job | whole command, s | fit, s | mean activation | in tokens | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in found.items():
        summary = one["summary"]
        values = [cell(summary[key], 4) for key in ("activation_final_mean", "activation_snapped_mean")]
        times = f"{one['command_seconds']:.1f} | {summary['seconds']['fit']:.1f}"
        lines.append(f"| {name} | {times} | {' | '.join(values)} | {summary['verdict']} |")
    readings = "; ".join(f"{one['measure']} {one['reading']}" for one in summary["findings"])
    return [*lines, "", f"Findings: {readings}."]


def lines_of_agreement(found: Mapping[str, Any]) -> list[str]:
    """How far the two fits are apart."""
    lines = ["| GPU beside CPU | difference | allowed | holds |", "|---|---|---|---|"]
    return lines + [
        f"| {name} | {cell(value)} | {cell(BOUNDS[name])} | {'yes' if found['holds'][name] else 'NO'} |"
        for name, value in found["differences"].items()
    ]


def lines_of_search(found: Mapping[str, Any]) -> list[str]:
    """A search, and candidates per second."""
    some = found["candidates"]
    lines = [f"`task=search`, 8 restarts: whole command {found['job']['command_seconds']:.1f} s.", ""]
    lines += ["| | candidates per second | actmax is faster by |", "|---|---|---|"]
    for name, rate in some["candidates_per_second"].items():
        ratio = some["actmax_is_faster_by"].get(name)
        said = "" if ratio is None else f"{ratio['median']:.3g} ({ratio['least']:.3g} to {ratio['most']:.3g})"
        lines.append(f"| {name} | {rate:,.0f} | {said} |")
    return lines


def lines_of_jobs(found: Mapping[str, Any]) -> list[str]:
    """How long an atlas of a layer or a sweep's two jobs took."""
    summaries = found.get("summaries", [found.get("summary")])
    fits = ", ".join(cell(one["seconds"].get("fit")) for one in summaries)
    return [f"Whole command {found['command_seconds']:.1f} s; fit {fits} s."]


LINES = {
    "rows": lines_of_rows,
    "main": lines_of_main,
    "cpu": lines_of_main,
    "agreement": lines_of_agreement,
    "search": lines_of_search,
    "atlas": lines_of_jobs,
    "launch": lines_of_jobs,
}


def markdown(found: Mapping[str, Any]) -> str:
    """The tables of everything that was measured; a part that failed says so."""
    where, versions = found["machine"], found["machine"]["versions"]
    said = ", ".join(f"{name} {version}" for name, version in versions.items() if version != "not installed")
    lines = [f"# {where['accelerator']}", "", f"{where['cores']} cores of {where['processor']}; {said}.", ""]
    for name, one in found["parts"].items():
        body = LINES[name](one["found"]) if "found" in one else ["Failed:", "", "```", one["error"], "```"]
        lines += [f"## {name} ({one['seconds']:.0f} s)", "", *body, ""]
    return "\n".join(lines)


def main() -> None:
    """Runs the parts and writes what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for everything that is measured; new or empty")
    parser.add_argument("--small", action="store_true", help="on a CPU, with a tiny random model")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--limit", type=float, help="seconds that a part may take; default: a limit for each")
    arguments = parser.parse_args()
    if not arguments.small and not torch.cuda.is_available():
        raise SystemExit("There is no CUDA GPU here. `--small` tries the script on the CPU.")
    folder = arguments.folder.resolve()
    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(f"{folder} is not empty. Name a new folder.")
    accelerator = "no GPU: a trial on a CPU" if arguments.small else torch.cuda.get_device_name()
    found: dict[str, Any] = {"machine": {**machine(), "accelerator": accelerator}, "parts": {}}
    for name in arguments.only:
        run, limit = PARTS[name]
        begun, one = time.monotonic(), {}
        (folder / name).mkdir(parents=True)
        try:
            sizes = SMALL if arguments.small else FULL
            one["found"] = run(Part(sizes, folder / name, begun + (arguments.limit or limit)))
        except Exception as error:  # the other parts go on
            one["error"] = str(error)
        found["parts"][name] = {**one, "seconds": time.monotonic() - begun}
        print(f"{name}: {'failed' if 'error' in one else 'done'} in {time.monotonic() - begun:.0f} s", flush=True)
        (folder / "gpu.json").write_text(json.dumps(found, indent=2) + "\n")
        (folder / "gpu.md").write_text(markdown(found))
    print((folder / "gpu.md").read_text())
    raise SystemExit(any("error" in one for one in found["parts"].values()))


if __name__ == "__main__":
    main()
