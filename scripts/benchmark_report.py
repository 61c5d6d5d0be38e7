"""What the report of a large sweep costs: one record of the tiny subject, copied as other units, collected and drawn.

    python scripts/benchmark_report.py [--jobs 500] [--steps 200]

Prints JSON: seconds of `actmax-report`, the most memory that it held (GB), and the size of the page (MB).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

LAYERS = 12
"""Of the tiny subject; the copies are units of its blocks in turn."""


def made(folder, steps):
    """One record, as a run leaves it."""
    overrides = ["subject=tiny", f"steps={steps}", "seeds='0:10'", "report=false", "hydra.run.dir=first"]
    subprocess.run([sys.executable, "-m", "actmax", *overrides], cwd=folder, check=True, capture_output=True)
    return folder / "first"


def copied(record, target, number):
    """The same record as if of another unit."""
    layer, index = number % LAYERS, number // LAYERS
    target.mkdir(parents=True)
    for file in record.glob("*.parquet"):
        table = pd.read_parquet(file)
        if "index" in table:
            table = table.assign(layer=pd.array([layer] * len(table), dtype="Int64"), index=index)
        table.to_parquet(target / file.name, index=False)
    os.link(record / "embeddings.safetensors", target / "embeddings.safetensors")
    name = hashlib.sha256(str(number).encode()).hexdigest()
    for file in ("summary.json", "status.json"):
        content = {**json.loads((record / file).read_text()), "job_hash": name}
        (target / file).write_text(json.dumps(content))
    text = (
        (record / "config.yaml")
        .read_text()
        .replace("layer: 8", f"layer: {layer}")
        .replace("index: 91", f"index: {index}")
    )
    (target / "config.yaml").write_text(text)


def measured(folder):
    """Seconds and GB of a process of its own."""
    begun = time.perf_counter()
    command = [sys.executable, "-c", "from actmax.app.report import main; main()", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, code, usage = os.wait4(process.pid, 0)
    if code:
        sys.exit(f"actmax-report ended with {code}")
    return time.perf_counter() - begun, usage.ru_maxrss / 2**20


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--steps", type=int, default=200)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        record, sweep = made(Path(place), asked.steps), Path(place) / "sweep"
        for number in range(asked.jobs):
            copied(record, sweep / f"job{number:03d}", number)
        seconds, memory = measured(sweep)
        size = (sweep / "report.html").stat().st_size / 1e6
    print(json.dumps({"jobs": asked.jobs, "seconds": seconds, "peak_gb": memory, "page_mb": size}, indent=2))


if __name__ == "__main__":
    main()
