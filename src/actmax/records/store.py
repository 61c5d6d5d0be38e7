"""The record of a job on disk, and the only place that knows its file names.

Every file is written under a temporary name and then renamed, so that a reader sees a whole file or none.
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
    import pyarrow as pa

VERSION = 5
"""Version of the record's layout; a reader refuses another."""

State = Literal["running", "complete", "interrupted", "failed"]
"""States of a job; `interrupted`: it was stopped by hand, and what it had is kept."""
Table = Literal[
    "jobs",
    "layers",
    "trajectory",
    "restarts",
    "tokens",
    "candidates",
    "units",
    "findings",
    "rarefaction",
    "gaps",
    "theme",
    "meaning",
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
Summary = dict[str, Any]
"""The headline numbers of a job by name, as `summary.json` holds them."""


def job_hash(identity: Mapping[str, Any]) -> str:
    """The sha256 of the canonical JSON of whatever identifies a job's work, and of the record's version."""
    text = json.dumps({"record": VERSION, **identity}, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def from_yaml(text: str) -> Any:
    """The content of a YAML text, read by libyaml where PyYAML has it, which is ten times as fast.

    Raises:
        yaml.YAMLError: the text is no YAML.
    """
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506


@dataclass(frozen=True)
class Status:
    """The state of a job, as `status.json` holds it."""

    state: State
    """One of `State`: whether the job runs, or how it ended."""
    job_hash: str
    """Hash of everything that can change the result (`job_hash`)."""
    started: str
    """Time of the start, ISO 8601 in UTC."""
    finished: str | None = None
    """Time of the end, ISO 8601 in UTC; None while the job runs."""
    error: dict[str, str] | None = None
    """Type, message and traceback of the error that ended a failed job."""
    version: int = VERSION
    """Version of the record's layout."""
    request: str | None = None
    """Hash of the config, known without loading the weights: a sweep skips a complete job by it."""


class Record:
    """The folder of one job, and the files in it.

    Args:
        folder: the job's folder; on the command line it is Hydra's output folder.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    @property
    def checkpoint(self) -> Path:
        """The file of the newest checkpoint; there is one at most."""
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def lock(self) -> Path:
        """The lock file of the process that works in the folder; the system releases it when that process ends."""
        return self.folder / ".lock"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Holds the folder's lock, so that no other process works in it.

        Raises:
            BusyError: another process holds it.
        """
        lock = FileLock(self.lock)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            allowed = "another process is running this very job there"
            raise BusyError("folder", self.folder, allowed, "Wait for it, or name another folder.") from None
        try:
            yield
        finally:
            lock.release()

    @property
    def busy(self) -> bool:
        """Whether a process works in the folder."""
        if not self.lock.exists():
            return False
        try:
            with self.alone():
                return False
        except BusyError:
            return True

    def settle(self, state: State, message: str) -> Status | None:
        """The status, after its process should have ended; of one that ended without writing it, it is written.

        Args:
            state: the new state of a job that says `running` while no process holds its lock.
            message: the message of that job's error.
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
            pass  # a process works on it
        return status

    @property
    def logs(self) -> Path:
        """The folder that loggers write to."""
        return self.folder / "logs"

    def require_space(self, needed: int) -> None:
        """Refuses a folder in which the record does not fit, or that may not be written.

        Args:
            needed: bytes of the record.

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
            raise InputError("folder", self.folder, allowed, way_out) from error
        if free < needed:
            allowed = f"needs {needed / 1e6:.0f} MB for this job, and {free / 1e6:.0f} MB are free"
            raise InputError("folder", self.folder, allowed, way_out)

    def path(self, name: str) -> Path:
        """The path of a file of the record, by the file's name."""
        return self.folder / name

    def write(self, name: str, save: Callable[[Path], object]) -> Path:
        """Writes a file whole or not at all: `save` gets a temporary path, which is then renamed."""
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        os.close(handle)
        try:
            save(Path(scratch))
            with Path(scratch).open("rb") as stream:
                os.fsync(stream.fileno())
            Path(scratch).chmod(0o644)
            Path(scratch).replace(target)
        finally:
            Path(scratch).unlink(missing_ok=True)
        return target

    def write_json(self, name: str, content: Mapping[str, Any]) -> Path:
        """Writes JSON; what is not a finite number becomes null, so that any parser reads it."""
        text = json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        return self.write(name, lambda path: path.write_text(text, encoding="utf-8"))

    def write_text(self, name: str, text: str) -> Path:
        """Writes a file of text, in UTF-8."""
        return self.write(name, lambda path: path.write_text(text, encoding="utf-8"))

    def write_table(self, name: str, table: pd.DataFrame) -> Path:
        """Writes a table as a Parquet file, without its index."""
        import pyarrow as pa

        # As pandas' own `to_parquet`, whose threads cost more than they bring where a row has 171 columns.
        return self.write_arrow(name, pa.Table.from_pandas(table, preserve_index=False, nthreads=1))

    def write_arrow(self, name: str, table: pa.Table) -> Path:
        """Writes a Parquet table from an Arrow table."""
        from pyarrow import parquet

        return self.write(f"{name}.parquet", lambda path: parquet.write_table(table, path))

    def write_tensors(self, name: str, tensors: Mapping[str, Any]) -> Path:
        """Writes tensors by name as a safetensors file."""
        from safetensors.torch import save_file

        whole = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        return self.write(f"{name}.safetensors", lambda path: save_file(whole, path))

    def table(self, name: str) -> pd.DataFrame:
        """Reads the table of that name."""
        import pandas as pd

        return pd.read_parquet(self.folder / f"{name}.parquet")

    def summary(self) -> Summary:
        """Reads the headline numbers, `summary.json`."""
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
        """Moves an old record, all of it, into `previous/TIME`; nothing is deleted."""
        aside = self.folder / "previous" / status.started.replace(":", "-")
        aside.mkdir(parents=True, exist_ok=True)
        for item in self.folder.iterdir():
            if item.name not in ("previous", ".hydra", ".lock") and item.suffix != ".log":
                item.rename(aside / item.name)

    def set_status(self, status: Status) -> None:
        """Writes the status as `status.json`."""
        self.write_json("status.json", vars(status))


def now() -> str:
    """The current time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def finite(value: Any) -> Any:
    """A value as JSON can hold it: numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
