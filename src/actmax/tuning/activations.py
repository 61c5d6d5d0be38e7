"""One vector per word at every site and layer, read by `Trainer.predict` in one pass, in memory or on disk."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from lightning import Callback, LightningModule, Trainer
from numpy import ndarray
from torch import Tensor
from tqdm.auto import tqdm

from actmax.architecture import Geometry
from actmax.subject import Place, Subject
from actmax.tuning.tokens import Batch

VECTORS = ("last", "mean")


def name_of(place: Place) -> str:
    """A place as `SITE.LAYER`."""
    site, layer = place
    return site if layer is None else f"{site}.{layer}"


class Store:
    """The activations of all samples, an array per site and layer.

    Where they are more than a job may hold in memory, each array is a NumPy file, mapped, and at most one is read at a
    time. It is a context manager: the files are deleted at its end, unless they are to be kept.

    Args:
        geometry: of the subject.
        places: pairs of site and layer.
        samples: rows.
        memory: bytes above which the arrays go to disk.
        folder: where to.
        keep: leave them there, whether or not they would have fitted.
        dtype: of the arrays.
    """

    def __init__(
        self,
        geometry: Geometry,
        places: Sequence[Place],
        samples: int,
        *,
        memory: float | int,
        folder: Path,
        keep: bool = False,
        dtype: str = "float32",
    ) -> None:
        self.places = tuple(places)
        self.folder, self.keep = folder, keep
        widths = {place: geometry.width(place[0]) for place in self.places}
        self.bytes = samples * sum(widths.values()) * np.dtype(dtype).itemsize
        self.on_disk = keep or self.bytes > memory
        if self.on_disk:
            folder.mkdir(parents=True, exist_ok=True)
        shapes = {place: (samples, width) for place, width in widths.items()}
        self._arrays: dict[Place, ndarray] = {}
        for place, shape in shapes.items():
            if self.on_disk:
                # a new file reads as zeros, and its pages are written out again as others are needed
                np.lib.format.open_memmap(self._file(place), mode="w+", dtype=dtype, shape=shape).flush()
            else:
                self._arrays[place] = np.zeros(shape, dtype=dtype)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._arrays.clear()
        if self.on_disk and not self.keep:
            shutil.rmtree(self.folder)

    def _file(self, place: Place) -> Path:
        return self.folder / f"{name_of(place)}.npy"

    def __getitem__(self, place: Place) -> Float[ndarray, "samples width"]:
        return self._arrays[place] if not self.on_disk else np.load(self._file(place), mmap_mode="r")

    def add(self, place: Place, samples: Sequence[int], values: Float[ndarray, "texts width"]) -> None:
        """Adds to some samples' rows; a sample may be named more than once."""
        array = np.load(self._file(place), mmap_mode="r+") if self.on_disk else self._arrays[place]
        np.add.at(array, list(samples), values)


def word_vectors(
    values: Float[Tensor, "texts tokens width"], batch: Batch, vector: str
) -> Float[Tensor, "texts width"]:
    """Each text's word at a site: its last sub-token, or the mean over its sub-tokens.

    Begin-of-text and padding are no part of a word, so they enter neither.
    """
    if vector == "last":
        positions = torch.arange(values.shape[1], device=values.device)
        last = torch.where(batch.word, positions, -1).amax(1)
        return values[torch.arange(len(values), device=values.device), last]
    # picked before they are summed: the sink is a hundred times larger, and 0 times it is a rounding error
    return torch.stack([row[word].mean(0) for row, word in zip(values, batch.word, strict=True)])


class Reader(LightningModule):
    """Runs texts through the subject and puts each word's vector into the store.

    Args:
        subject: the model.
        store: says which places, and takes what is read.
        vector: `last` or `mean`, over the word's sub-tokens.
    """

    def __init__(self, subject: Subject, store: Store, *, vector: str = "last") -> None:
        super().__init__()
        self.__dict__["subject"] = subject  # past nn.Module's registration
        self.store, self.vector = store, vector

    subject: Subject

    def on_predict_start(self) -> None:
        """Brings the subject, which Lightning does not know of, to this device."""
        self.subject.to(self.device)

    def predict_step(self, batch: Batch, batch_idx: int) -> int:
        """One forward pass, no deeper than the deepest place; returns how many texts it took."""
        captured = self.subject.run(self.subject.embedding_matrix[batch.ids], self.store.places)
        shares = np.array(batch.shares)[:, None]
        for place, values in captured.items():
            vectors = word_vectors(values, batch, self.vector)
            kept = vectors.to(torch.promote_types(torch.float32, vectors.dtype)).cpu().numpy()
            self.store.add(place, batch.samples.tolist(), (kept * shares).astype(kept.dtype))
        return len(batch.shares)


class Bar(Callback):
    """A bar over the batches on a terminal; elsewhere a plain line now and then.

    Args:
        seconds: between two lines where there is no terminal.
    """

    def __init__(self, seconds: float | int = 10) -> None:
        self.seconds = seconds
        self.bar: tqdm | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the bar."""
        self.total, self.shown = int(sum(trainer.num_predict_batches)), time.monotonic()
        if sys.stderr.isatty():
            self.bar = tqdm(total=self.total, desc="activations", unit="batch")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Moves on."""
        if self.bar is not None:
            self.bar.update(1)
        elif time.monotonic() - self.shown > self.seconds:
            self.shown = time.monotonic()
            line = f"actmax: activations: batch {batch_idx + 1} of {self.total}"
            print(line, file=sys.stderr, flush=True)  # noqa: T201

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Closes the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def trainer(*, accelerator: str = "auto", folder: Path | None = None) -> Trainer:
    """A Lightning Trainer that predicts on one device and leaves nothing on disk.

    Args:
        accelerator: as Lightning names it.
        folder: where Lightning would write.
    """
    return Trainer(
        accelerator=accelerator,
        devices=1,
        logger=False,
        callbacks=[Bar()],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
