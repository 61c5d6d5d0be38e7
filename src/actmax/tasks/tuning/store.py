"""The activations of all words, an array per site and layer: in memory, or on disk where they are too many."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from actmax.model.architecture import Geometry
from actmax.model.target import Place, place_name


class Store:
    """The activations of all samples, an array per site and layer.

    Where they are more than a job may hold in memory, each array is a NumPy file, mapped, and at most one is read at a
    time. It is a context manager: the files are deleted at its end, unless they are to be kept.

    Args:
        geometry: sizes of the subject.
        places: pairs of site and layer.
        samples: number of rows of each array.
        memory: bytes above which the arrays go to disk.
        folder: folder of the files.
        keep: whether the arrays go to disk in any case, and stay there.
        dtype: number format of the arrays.
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
                # A new file reads as zeros, and its pages are written out again as others are needed.
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
        return self.folder / f"{place_name(*place)}.npy"

    def __getitem__(self, place: Place) -> Float[ndarray, "samples width"]:
        return self._arrays[place] if not self.on_disk else np.load(self._file(place), mmap_mode="r")

    def add(self, place: Place, samples: Sequence[int], values: Float[ndarray, "texts width"]) -> None:
        """Adds vectors to the rows of some samples; a sample may be named more than once."""
        array = np.load(self._file(place), mmap_mode="r+") if self.on_disk else self._arrays[place]
        np.add.at(array, list(samples), values)
