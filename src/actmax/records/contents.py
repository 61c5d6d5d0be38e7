"""What a job found, held in memory: tables, tensors, texts and a summary, written to a record as they come or later.

Tables are held as Arrow tables, which is what a record's Parquet files give back: a result is the same whether it was
just computed or read from disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from actmax.errors import InputError
from actmax.records.store import Record, Status, Summary, Table

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from torch import Tensor


class Contents:
    """Tables, tensors, texts and the summary of one job.

    Args:
        record: a record to which everything is written as soon as it is known; None keeps it in memory alone.
    """

    def __init__(self, record: Record | None = None) -> None:
        self.record = record
        self.config_text = ""
        self.status: Status | None = None
        self.summary: Summary = {}
        self.texts: dict[str, str] = {}
        self._tables: dict[str, pa.Table] = {}
        self._tensors: dict[str, Mapping[str, Tensor]] = {}

    @classmethod
    def read(cls, folder: Path | str) -> Contents:
        """What a record holds; its tables and tensors are read when they are asked for.

        Raises:
            InputError: there is no record, it is damaged, of another version, or not complete.
        """
        record = Record(folder)
        status = record.status() if record.folder.is_dir() else None
        if status is None:
            way_out = "Name the folder of one job: it holds status.json."
            raise InputError("folder", folder, "must hold a record", way_out)
        if status.state != "complete":
            way_out = "Run its command again, which goes on from where it stopped."
            raise InputError("folder", folder, f"must hold a complete record; this job is {status.state}", way_out)
        found = cls()
        found.status = status
        try:
            found.summary = record.summary()
            found.config_text = record.path("config.yaml").read_text(encoding="utf-8")
            if not isinstance(found.summary, dict):
                raise ValueError("summary.json holds no object")
        except (OSError, ValueError) as error:
            raise damaged(record, error) from error
        found.record = record
        return found

    @property
    def names(self) -> list[str]:
        """The tables that there are, in the order in which records list them."""
        files = [] if self.record is None else self.record.folder.glob("*.parquet")
        here = {*self._tables, *(file.stem for file in files)}
        known = [name for name in get_args(Table) if name in here]
        return [*known, *sorted(here - set(known))]

    def has(self, name: str) -> bool:
        """Whether there is such a table."""
        return name in self._tables or (self.record is not None and (self.record.folder / f"{name}.parquet").exists())

    def table(self, name: str) -> pd.DataFrame:
        """A table, as a record gives it back.

        Raises:
            FileNotFoundError: there is none.
            InputError: its file is damaged.
        """
        if name not in self._tables:
            self._tables[name] = self._read(name)
        return self._tables[name].to_pandas()

    def _read(self, name: str) -> pa.Table:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self.record is None:
            raise FileNotFoundError(f"{name}.parquet")
        file = self.record.folder / f"{name}.parquet"
        try:
            return pq.ParquetFile(self.record.path(file.name)).read(use_threads=False)
        except FileNotFoundError:
            raise
        except (OSError, ValueError, pa.ArrowException) as error:
            raise damaged(self.record, error, file.name) from error

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Takes a table, and writes it where there is a record."""
        import pyarrow as pa

        # as pandas' own `to_parquet`, whose threads cost more than they bring where a row has 171 columns
        self._tables[name] = pa.Table.from_pandas(table, preserve_index=False, nthreads=1)
        if self.record is not None:
            self.record.write_arrow(name, self._tables[name])

    def tensors(self, name: str) -> Mapping[str, Tensor]:
        """The tensors of a safetensors file, by name.

        Raises:
            FileNotFoundError: there is no such file.
            InputError: it is damaged.
        """
        if name not in self._tensors:
            from safetensors.torch import load_file

            if self.record is None or not (self.record.folder / f"{name}.safetensors").exists():
                raise FileNotFoundError(f"{name}.safetensors")
            try:
                self._tensors[name] = load_file(self.record.path(f"{name}.safetensors"))
            except Exception as error:  # safetensors raises its own kinds
                raise damaged(self.record, error, f"{name}.safetensors") from error
        return self._tensors[name]

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Takes tensors that belong in one file, and writes it where there is a record."""
        self._tensors[name] = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        if self.record is not None:
            self.record.write_tensors(name, self._tensors[name])

    def write_text(self, name: str, text: str) -> None:
        """Takes a text file, and writes it where there is a record."""
        self.texts[name] = text
        if self.record is not None:
            self.record.write_text(name, text)

    def save(self, record: Record) -> None:
        """Writes everything to a record; its status comes last, so that a reader finds a whole record or none."""
        for name in self.names:
            self.table(name)
            record.write_arrow(name, self._tables[name])
        for name in (*self._tensors, *self._unread_tensors):
            record.write_tensors(name, self.tensors(name))
        for name, text in self.texts.items():
            record.write_text(name, text)
        record.write_text("config.yaml", self.config_text)
        record.write_json("summary.json", self.summary)
        if self.status is not None:
            record.set_status(self.status)

    @property
    def _unread_tensors(self) -> list[str]:
        files = [] if self.record is None else sorted(self.record.folder.glob("*.safetensors"))
        return [file.stem for file in files if file.stem not in self._tensors]


def damaged(record: Record, error: Exception, name: str = "summary.json or config.yaml") -> InputError:
    """The error of a record whose file cannot be read."""
    allowed = f"its record is damaged: {name} cannot be read ({type(error).__name__})"
    return InputError("folder", record.folder, allowed, "Run its command again with force=true.")
