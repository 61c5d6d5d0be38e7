"""Embedders: what a text is about, as a vector. A static table of word pieces, a sentence encoder, or the subject."""

from __future__ import annotations

import importlib.util
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from safetensors.numpy import load_file

from actmax.errors import InputError
from actmax.json_text import from_json
from actmax.model.architecture import RESIDUAL
from actmax.model.subject import Subject
from actmax.model.target import Target, Unit
from actmax.progress import DELAY, track
from actmax.text.contexts import begin_token
from actmax.text.settings import EMBEDDERS, MeaningSettings, check_folder, folder_words

TOGETHER = 256
"""Texts that an encoder reads at once."""
TABLE, TOKENIZER = "weights/l2_supercat_256.safetensors", "tokenizers/l2_supercat_tokenizer_config.json"
"""Files of the wordllama package: 32,000 pieces of Llama 2's tokenizer, each a vector of 256 numbers."""


class MissingExtraError(InputError):
    """The package that carries an embedder is not installed."""


@dataclass(frozen=True)
class Embedded:
    """What some texts are about."""

    vectors: Float[ndarray, "texts dims"]
    """A vector per text; zeros for a text that holds nothing that the embedder knows."""
    unknown: Float[ndarray, " texts"]
    """The share of each text's pieces that the embedder does not know."""


class Embedder(ABC):
    """Says what texts are about."""

    confounded: ClassVar[bool] = False
    """Whether texts may be alike there because of what was maximized in them, whatever they are about."""

    @abstractmethod
    def __call__(self, texts: Sequence[str]) -> Embedded:
        """The vectors of some texts; white space at their ends does not count."""


class StaticTable(Embedder):
    """A table of word pieces: a text is the mean of its pieces' rows, whatever their order.

    Args:
        tokenizer: cuts a text into pieces; of the `tokenizers` package.
        rows: a vector per piece.
        unknown: ids that stand for what the tokenizer does not know, single bytes among them; they are left out.
    """

    def __init__(self, tokenizer: Any, rows: Float[ndarray, "pieces dims"], unknown: frozenset[int]) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.tokenizer, self.rows, self.unknown = tokenizer, rows, unknown

    def __call__(self, texts: Sequence[str]) -> Embedded:
        """The mean of the rows of each text's known pieces."""
        pieces = self.tokenizer.encode_batch([text.strip() for text in texts], add_special_tokens=False)
        ids = [[piece for piece in one.ids if piece not in self.unknown] for one in pieces]
        # sums of runs of one long list of rows, a run per text
        flat = np.array([piece for one in ids for piece in one], dtype=np.int64)
        ends = np.cumsum([len(one) for one in ids])
        vectors = np.zeros((len(texts), self.rows.shape[1]))
        for number, (one, end) in enumerate(zip(ids, ends, strict=True)):
            if one:
                vectors[number] = self.rows[flat[end - len(one) : end]].mean(0)
        shares = [1 - len(one) / max(1, len(all_.ids)) for one, all_ in zip(ids, pieces, strict=True)]
        return Embedded(vectors, np.array(shares))


class Encoder(Embedder):
    """A sentence encoder of a folder that sentence-transformers wrote: a transformer, and how its tokens are pooled.

    Args:
        folder: the folder.
        device: where it runs.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        from transformers import AutoModel, AutoTokenizer

        pooling = from_json((folder / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
        self.first = bool(pooling.get("pooling_mode_cls_token", pooling.get("pooling_mode") == "cls"))
        self.model = AutoModel.from_pretrained(folder, local_files_only=True).eval().to(device)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Embedded:
        """The mean of each text's last hidden states, or that of its first token, as the folder says."""
        found, unknown = [], []
        for start in track(range(0, len(texts), TOGETHER), "vectors of texts", unit="batch", delay=DELAY):
            some = [text.strip() for text in texts[start : start + TOGETHER]]
            read = self.tokenizer(some, padding=True, truncation=True, return_tensors="pt").to(self.model.device)
            states = self.model(**read).last_hidden_state.double()
            mask = read["attention_mask"][..., None].double()
            pooled = states[:, 0] if self.first else (states * mask).sum(1) / mask.sum(1).clamp_min(1)
            found.append(pooled.cpu().numpy())
            pieces = self.tokenizer(some, add_special_tokens=False)["input_ids"]
            lost = self.tokenizer.unk_token_id
            unknown += [sum(piece == lost for piece in one) / max(1, len(one)) for one in pieces]
        return Embedded(np.concatenate(found), np.array(unknown))


class ResidualStream(Embedder):
    """The subject's own residual stream: the mean over a text's tokens, behind begin-of-text where there is one.

    What raises a target raises it in later layers too, whatever the text is about. So what the targets read there is
    projected out (the coordinates of units are set to 0); what they bring about elsewhere stays, and the space is
    called confounded.

    Args:
        subject: the language model.
        layer: the block whose output is read.
        units: targets whose read-outs are projected out.
    """

    confounded = True

    def __init__(self, subject: Subject, layer: int, units: Sequence[Target]) -> None:
        self.subject, self.layer = subject, layer
        self.left_out = sorted({unit.index for unit in units if isinstance(unit, Unit)})
        width = subject.geometry.d_model
        read = [unit.weights(width) for unit in units if not isinstance(unit, Unit)]
        self.basis = np.linalg.svd(np.array(read), full_matrices=False)[2] if read else np.zeros((0, width))
        try:
            self.before = [begin_token(subject)]
        except InputError:
            self.before = []

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Embedded:
        """The mean over each text's tokens of what leaves the block."""
        place = ("resid_post", self.layer)
        ids = [self.subject.tokens(text.strip()) for text in texts]
        vectors = np.zeros((len(texts), self.subject.embedding_matrix.shape[1]))
        batches = []
        for length in sorted({len(one) for one in ids} - {0}):
            rows = [row for row, one in enumerate(ids) if len(one) == length]
            batches += [rows[start : start + TOGETHER] for start in range(0, len(rows), TOGETHER)]
        for some in track(batches, "vectors of texts", unit="batch", delay=DELAY):
            whole = torch.tensor([self.before + ids[row] for row in some])
            states = self.subject.run(self.subject.embed(whole), [place])[place][:, len(self.before) :]
            vectors[some] = states.double().mean(1).cpu().numpy()
        vectors[:, self.left_out] = 0
        vectors -= vectors @ self.basis.T @ self.basis
        return Embedded(vectors, np.zeros(len(texts)))

    def whole(self) -> ResidualStream:
        """The same stream with no coordinate left out: what leaving them out changes can be seen beside it."""
        return ResidualStream(self.subject, self.layer, ())


def make_embedder(settings: MeaningSettings, subject: Subject, units: Sequence[Target]) -> Embedder:
    """The embedder that settings name.

    Args:
        settings: name, folder, layer.
        subject: the language model of the job.
        units: the units of the job, which the subject's own residual stream leaves out.

    Raises:
        InputError: the folder holds no such embedder, or the layer or site allows none.
        MissingExtraError: the package that carries it is not installed.
    """
    if settings.embedder == "wordllama":
        return _wordllama()
    if settings.embedder == "subject":
        return _residual_stream(settings, subject, units)
    folder = check_folder(settings)
    try:
        if settings.embedder == "model2vec":
            return _model2vec(folder)
        return Encoder(folder, subject.device)
    except Exception as error:  # tokenizers and safetensors raise kinds of their own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError("path", folder, f"{folder_words(settings)}; it cannot be read ({reason})") from error


@lru_cache(maxsize=1)
def _wordllama() -> StaticTable:
    from tokenizers import Tokenizer

    found = importlib.util.find_spec("wordllama")  # its own `load` looks elsewhere, and then asks the hub
    if found is None or not found.submodule_search_locations:
        allowed = "needs a package that is not installed"
        raise MissingExtraError("embedder", "wordllama", allowed, "pip install 'actmax[meaning]'")
    folder = Path(found.submodule_search_locations[0])
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    (rows,) = load_file(folder / TABLE).values()
    return StaticTable(tokenizer, rows.astype(np.float64), _nameless(tokenizer, "<unk>"))


def _nameless(tokenizer: Any, *names: str | None) -> frozenset[int]:
    """The ids of the tokens that stand for what is not in a vocabulary: by name, and single bytes."""
    known = tokenizer.get_vocab()
    lost = [*names, *(f"<0x{byte:02X}>" for byte in range(256))]
    return frozenset(known[name] for name in lost if name in known)


@lru_cache(maxsize=2)
def _model2vec(folder: Path) -> StaticTable:
    """A folder of model2vec: rows by piece, and in newer ones a weight per piece and the row that a piece has."""
    from tokenizers import Tokenizer

    tokenizer, tensors = Tokenizer.from_file(str(folder / "tokenizer.json")), load_file(folder / "model.safetensors")
    rows = tensors["embeddings"].astype(np.float64)
    if "mapping" in tensors:
        rows = rows[tensors["mapping"].astype(np.int64)]
    if "weights" in tensors:
        rows = rows * tensors["weights"].astype(np.float64)[:, None]
    if len(rows) < tokenizer.get_vocab_size():
        raise ValueError(f"{len(rows)} rows for {tokenizer.get_vocab_size()} pieces")
    model = json.loads(tokenizer.to_str())["model"]
    lost = model.get("unk_token") or (model["vocab"][model["unk_id"]][0] if model.get("unk_id") is not None else None)
    return StaticTable(tokenizer, rows, _nameless(tokenizer, lost))


def _residual_stream(settings: MeaningSettings, subject: Subject, units: Sequence[Target]) -> ResidualStream:
    layer = settings.check_layer(subject.geometry.layers)
    if other := [unit for unit in units if unit.site not in RESIDUAL]:
        allowed = f"cannot leave out what {other[0]} reads, which is no coordinate of the residual stream"
        raise InputError("embedder", "subject", allowed, f"Take one of {', '.join(EMBEDDERS[:3])}.")
    return ResidualStream(subject, layer, units)
