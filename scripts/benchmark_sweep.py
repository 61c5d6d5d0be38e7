"""What a job costs in a sweep by `launch=serial`, beyond its own work: many jobs on the tiny subject.

    python scripts/benchmark_sweep.py [--jobs 100]

Prints JSON: seconds of the whole command, of its first job (with all imports), per job after the
first (from the records' own times, start to start), and of the same command again, when nothing is left to do.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path


def run(folder, jobs):
    """The sweep's seconds."""
    seeds = ",".join(map(str, range(jobs)))
    overrides = ["-m", "subject=tiny", "steps=20", "report=false", "meaning.embedder=none"]
    overrides += ["sweep=s", f"seeds={seeds}"]
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "actmax", *overrides], cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - begun


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100)
    jobs = parser.parse_args().jobs
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        whole, again = run(folder, jobs), run(folder, jobs)
        statuses = [json.loads(file.read_text()) for file in folder.rglob("*/status.json")]
    started = sorted(datetime.fromisoformat(one["started"]) for one in statuses)
    apart = [(b - a).total_seconds() for a, b in itertools.pairwise(started[1:])]
    found = {
        "jobs": len(statuses),
        "seconds": whole,
        "first_job_seconds": (started[1] - started[0]).total_seconds(),
        "per_job_after_the_first": {
            "mean": statistics.mean(apart),
            "median": statistics.median(apart),
            "max": max(apart),
        },
        "per_job_with_plan_and_collection": (whole - (started[1] - started[0]).total_seconds()) / (jobs - 1),
        "nothing_left_seconds": again,
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
