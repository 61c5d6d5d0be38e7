"""What a job leaves on disk, and the only place that knows its file names.

Every file is written beside its place and renamed into it, so a reader sees a whole file or none.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from filelock import FileLock, Timeout

from actmax.errors import BusyError, InputError

if TYPE_CHECKING:
    import pandas as pd  # half a second, and this module is read before the config is checked

VERSION = 2
"""Of the record's layout; a reader refuses another."""

State = Literal["running", "complete", "interrupted", "failed"]
Table = Literal[
    "jobs",
    "layers",
    "trajectory",
    "restarts",
    "tokens",
    "candidates",
    "units",
    "rarefaction",
    "gaps",
    "rounding",
    "front",
    "ladder",
    "methods",
    "comparison",
    "rates",
    "effects",
    "correlations",
    "agreement",
    "tuning",
    "shares",
    "replication",
    "decoders",
    "strata",
    "words",
    "balance",
    "skipped",
    "examples",
    "heatmap",
    "contexts",
    "quantiles",
]


def job_hash(identity: Mapping[str, Any]) -> str:
    """Names the work: sha256 over the canonical JSON of whatever identifies it, and the record's version."""
    text = json.dumps({"record": VERSION, **identity}, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def from_yaml(text: str) -> Any:
    """What a YAML text says; by libyaml where PyYAML has it, ten times as fast as without.

    Raises:
        yaml.YAMLError: it is none.
    """
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506


@dataclass(frozen=True)
class Status:
    """How a job stands."""

    state: State
    """`running`, `complete`, `interrupted` (stopped by hand; what it had is kept) or `failed`."""
    job_hash: str
    """Which work it is."""
    started: str
    """When, ISO 8601 in UTC."""
    finished: str | None = None
    """When it ended."""
    error: dict[str, str] | None = None
    """Type, message and traceback of what ended a failed job."""
    version: int = VERSION
    """Of the record."""
    request: str | None = None
    """What was asked for, known without loading the weights: a sweep skips a complete job by it."""


class Record:
    """The folder of one job.

    Args:
        folder: Hydra's output folder of the job.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    @property
    def checkpoint(self) -> Path:
        """The one checkpoint, the newest."""
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def lock(self) -> Path:
        """Held by the process that works in the folder, and let go by the system when that process dies."""
        return self.folder / ".lock"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other processes out of the folder.

        Raises:
            BusyError: one is there.
        """
        lock = FileLock(self.lock)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            allowed = "another process is running this very job there"
            raise BusyError("hydra.run.dir", self.folder, allowed, "Wait for it, or name another folder.") from None
        try:
            yield
        finally:
            lock.release()

    @property
    def busy(self) -> bool:
        """Whether a process holds the job."""
        if not self.lock.exists():
            return False
        try:
            with self.alone():
                return False
        except BusyError:
            return True

    def settle(self, state: State, message: str) -> Status | None:
        """How the job stands when nobody should be at it any more; one that died without a word gets its status.

        Args:
            state: what a job whose process died becomes.
            message: what its error says.
        """
        status = self.status()
        if status is None or status.state != "running":
            return status
        try:
            with self.alone():
                status = self.status()
                if status is not None and status.state == "running":
                    error = {"type": "Died", "message": message, "traceback": ""}
                    status = replace(status, state=state, finished=now(), error=error)
                    self.set_status(status)
        except BusyError:
            pass  # somebody is at it
        return status

    @property
    def logs(self) -> Path:
        """Where loggers write."""
        return self.folder / "logs"

    def require_space(self, needed: int) -> None:
        """Refuses to start where the record will not fit or may not be written.

        Raises:
            InputError: names the folder.
        """
        way_out = "Name another folder (hydra.run.dir=FOLDER, in a sweep hydra.sweep.dir=FOLDER), or make room."
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            allowed = f"must be a folder that can be written ({error.strerror})"
            raise InputError("hydra.run.dir", self.folder, allowed, way_out) from error
        if free < needed:
            allowed = f"needs {needed / 1e6:.0f} MB for this job, and {free / 1e6:.0f} MB are free"
            raise InputError("hydra.run.dir", self.folder, allowed, way_out)

    def path(self, name: str) -> Path:
        """A file of the record."""
        return self.folder / name

    def write(self, name: str, save: Callable[[Path], object]) -> Path:
        """Writes a file whole or not at all: `save` gets a temporary path, which is then renamed."""
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        os.close(handle)
        try:
            save(Path(scratch))
            with open(scratch, "rb") as stream:  # noqa: PTH123
                os.fsync(stream.fileno())
            Path(scratch).chmod(0o644)
            Path(scratch).replace(target)
        finally:
            Path(scratch).unlink(missing_ok=True)
        return target

    def write_json(self, name: str, content: Mapping[str, Any]) -> Path:
        """Writes JSON; what is not a finite number becomes null, so that any parser reads it."""
        text = json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        return self.write(name, lambda path: path.write_text(text, encoding="utf-8"))

    def write_text(self, name: str, text: str) -> Path:
        """Writes text."""
        return self.write(name, lambda path: path.write_text(text, encoding="utf-8"))

    def write_table(self, name: Table, table: pd.DataFrame) -> Path:
        """Writes a Parquet table."""
        import pyarrow as pa
        from pyarrow import parquet

        # as pandas' own `to_parquet`, whose threads cost more than they bring where a row has 171 columns
        content = pa.Table.from_pandas(table, preserve_index=False, nthreads=1)
        return self.write(f"{name}.parquet", lambda path: parquet.write_table(content, path))

    def write_tensors(self, name: str, tensors: Mapping[str, Any]) -> Path:
        """Writes a safetensors file."""
        from safetensors.torch import save_file

        whole = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        return self.write(f"{name}.safetensors", lambda path: save_file(whole, path))

    def table(self, name: Table) -> pd.DataFrame:
        """Reads a table."""
        import pandas as pd

        return pd.read_parquet(self.folder / f"{name}.parquet")

    def summary(self) -> dict[str, Any]:
        """Reads `summary.json`."""
        return json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))

    def status(self) -> Status | None:
        """Reads `status.json`; None where there is none.

        Raises:
            InputError: it is damaged, or of another version.
        """
        file = self.folder / "status.json"
        if not file.exists():
            return None
        try:
            status = Status(**json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise InputError(str(file), "damaged", "must be a record's status", "Move that folder away.") from error
        if status.version != VERSION:
            raise InputError(
                str(file), f"version {status.version}", f"must be of version {VERSION}", "Move that folder away."
            )
        return status

    def move_aside(self, status: Status) -> None:
        """Puts a whole old record into `previous/TIME`; nothing is deleted."""
        aside = self.folder / "previous" / status.started.replace(":", "-")
        aside.mkdir(parents=True, exist_ok=True)
        for item in self.folder.iterdir():
            if item.name not in ("previous", ".hydra", ".lock") and item.suffix != ".log":
                item.rename(aside / item.name)

    def set_status(self, status: Status) -> None:
        """Writes `status.json`."""
        self.write_json("status.json", vars(status))


def now() -> str:
    """The time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
