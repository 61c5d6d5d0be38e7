"""One vector per word at every site and layer, read by `Trainer.predict` in one pass, in memory or on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from actmax.errors import InputError
from actmax.memory import in_batches
from actmax.model.subject import Subject
from actmax.model.target import Place, place_name
from actmax.progress import Bar
from actmax.tasks.tuning.store import Store
from actmax.words.encoding import Batch, Batches, Encoded


def word_vectors(
    values: Float[Tensor, "texts tokens width"], batch: Batch, vector: str
) -> Float[Tensor, "texts width"]:
    """Each text's word at a site: its last sub-token, or the mean over its sub-tokens.

    Begin-of-text and padding are no part of a word, and enter neither.
    """
    if vector == "last":
        positions = torch.arange(values.shape[1], device=values.device)
        last = torch.where(batch.word, positions, -1).amax(1)
        return values[torch.arange(len(values), device=values.device), last]
    # Selected before they are summed: begin-of-text, an attention sink, is a hundred times larger, and a mask of zeros
    # would leave its rounding error.
    return torch.stack([row[word].mean(0) for row, word in zip(values, batch.word, strict=True)])


class Reader(LightningModule):
    """Runs texts through the subject and adds each word's vector to the store.

    Args:
        subject: the language model.
        store: names the sites and layers, and takes the vectors.
        vector: a word's vector: that of its `last` sub-token, or the `mean` over all.
        words: the word of each sample, for messages.
    """

    def __init__(self, subject: Subject, store: Store, *, vector: str = "last", words: Sequence[str] = ()) -> None:
        super().__init__()
        self.__dict__["subject"] = subject  # past nn.Module's registration
        self.store, self.vector, self.words = store, vector, words
        self.rows: int | None = None
        """Most texts of a forward pass, where memory ran out for more; None as long as it has not."""

    subject: Subject
    """The language model, hidden from Lightning."""

    def on_predict_start(self) -> None:
        """Moves the subject, which Lightning does not know of, to this device."""
        self.subject.to(self.device)

    def predict_step(self, batch: Batch, batch_idx: int) -> int:
        """One forward pass, no deeper than the deepest site; returns the number of texts.

        Where memory runs out the batch goes through in parts, and so do the next ones.

        Raises:
            InputError: an activation is no finite number: no test has a place for it.
        """
        count = len(batch.shares)
        parts = in_batches(
            lambda start, stop: self._read(batch[start:stop]),
            count,
            min(count, self.rows or count),
            lambda rows: setattr(self, "rows", rows),
            "tuning.batch_tokens",
        )
        return sum(parts)

    def _read(self, batch: Batch) -> int:
        captured = self.subject.run(self.subject.embed(batch.ids), self.store.places)
        shares = np.array(batch.shares)[:, None]
        found = {}
        for place, values in captured.items():
            vectors = word_vectors(values, batch, self.vector)
            found[place] = vectors.to(torch.promote_types(torch.float32, vectors.dtype)).cpu().numpy()
            self._refuse_non_finite(place, batch, found[place])
        for place, kept in found.items():  # behind all that may run out of memory: a word is added once
            self.store.add(place, batch.samples.tolist(), (kept * shares).astype(kept.dtype))
        return len(batch.shares)

    def _refuse_non_finite(self, place: Place, batch: Batch, vectors: Float[np.ndarray, "texts width"]) -> None:
        wrong = batch.samples[~torch.from_numpy(np.isfinite(vectors).all(1))].tolist()
        if wrong:
            word = self.words[wrong[0]] if self.words else f"sample {wrong[0]}"
            allowed = f"an activation of {len(set(wrong))} words at {place_name(*place)} is no finite number"
            raise InputError(
                "data", word, allowed, "A wider number format helps (subject.dtype=float32); or leave it out."
            )


class Progress(Callback):
    """Shows how many batches have been read."""

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the bar before the first batch."""
        self.bar = Bar("activations", int(sum(trainer.num_predict_batches)), unit="batch")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Moves the bar on by a batch."""
        self.bar.advance()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Closes the bar after the last batch."""
        self.bar.close()


def trainer(*, accelerator: str = "auto", folder: Path | None = None) -> Trainer:
    """A Lightning Trainer that predicts on one device and leaves nothing on disk.

    Args:
        accelerator: Lightning's name of the kind of device.
        folder: the folder that Lightning would write to.
    """
    return Trainer(
        accelerator=accelerator,
        devices=1,
        logger=False,
        callbacks=[Progress()],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


class Texts(LightningDataModule):
    """The texts of a job, batched by length.

    Args:
        texts: the encoded texts.
        tokens: largest number of tokens of a batch.
        padding: how many tokens shorter than its batch's longest a text may be.
    """

    def __init__(self, texts: Sequence[Encoded], *, tokens: int = 1024, padding: int = 0) -> None:
        super().__init__()
        self.batches = Batches(texts, tokens=tokens, padding=padding)

    def predict_dataloader(self) -> DataLoader:
        """The batches, longest texts first: what does not fit in memory fails at once."""
        return DataLoader(self.batches, batch_size=None, shuffle=False)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Moves token ids and word masks to the subject's device."""
        return replace(batch, ids=batch.ids.to(device), word=batch.word.to(device))
