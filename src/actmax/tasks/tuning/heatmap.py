"""One unit over a text: a colour per token, on the terminal and in one HTML file without any script."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from rich.text import Text

from actmax.errors import InputError
from actmax.model.architecture import Unit
from actmax.model.subject import Subject
from actmax.words.encoding import begin_token
from actmax.words.lists import names_file

SATURATED = 2.0
"""Distance from the middle, in standard deviations, at which a colour is full."""
COLD, WARM = (33, 102, 172), (178, 24, 43)


@dataclass(frozen=True)
class Scale:
    """What a unit's activation is measured by: the words of the two groups."""

    middle: float
    """Half-way between the groups' means."""
    spread: float
    """The groups' pooled standard deviation."""
    towards_1: float
    """1 where group 1 has the larger mean, else -1."""
    categories: tuple[str, str]
    """The groups' names."""

    def score(self, activation: float) -> float:
        """Distance from the middle in standard deviations, positive towards group 1."""
        return self.towards_1 * (activation - self.middle) / self.spread if self.spread > 0 else 0.0


@dataclass(frozen=True)
class HeatMap:
    """One unit over a text."""

    unit: Unit
    """Which."""
    tokens: pd.DataFrame
    """A row per token: `position token activation score`; the begin-of-text token in front is left out."""
    scale: Scale
    """What the scores mean."""

    @property
    def title(self) -> str:
        """What is shown."""
        first, second = self.scale.categories
        return f"{self.unit}: blue leans to {first}, red to {second}; full colour {SATURATED:g} SD from the middle"

    def html(self) -> str:
        """The same as a page that needs nothing else; a token's numbers show under the pointer."""
        title, spans = html.escape(self.title), []
        for row in self.tokens.to_dict("records"):
            red, green, blue = _colour(row["score"])
            said = f"{row['position']}: activation {row['activation']:.4g}, {row['score']:+.2f} SD"
            shown = html.escape(str(row["token"])).replace("\n", "↵<br>")
            spans.append(f'<span style="background:rgb({red},{green},{blue})" title="{said}">{shown}</span>')
        body = "".join(spans)
        style = "body{font:1.1rem/2 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem;color:#000;"
        style += "background:#fff}p{white-space:pre-wrap}h1{font-size:1rem}span{padding:.15em 0;border-radius:.15em}"
        return (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
            f"<style>{style}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p>{body}</p>\n</body>\n</html>\n"
        )


def _colour(score: float) -> tuple[int, int, int]:
    """White in the middle, blue or red away from it."""
    if not math.isfinite(score):
        return 255, 255, 255
    share, full = min(abs(score) / SATURATED, 1.0), WARM if score > 0 else COLD
    red, green, blue = (round(255 + (channel - 255) * share * 0.75) for channel in full)
    return red, green, blue


def text_of(said: str) -> str:
    """A text, or the content of the file that it names.

    Raises:
        InputError: the file is no text, or there is nothing in it.
    """
    try:
        text = Path(said).read_text(encoding="utf-8") if names_file(said) else said
    except UnicodeDecodeError as error:
        raise InputError("tuning.text", said, "must be UTF-8 text") from error
    if not text.strip():
        raise InputError("tuning.text", repr(said), "must hold text")
    return text


def encoded(subject: Subject, text: str, *, bos: str | None = None) -> list[int]:
    """A text's tokens behind begin-of-text.

    Raises:
        InputError: it has none, or more than the subject's context.
    """
    ids = [begin_token(subject, bos), *subject.tokenizer(text, add_special_tokens=False)["input_ids"]]
    if not 1 < len(ids) <= subject.geometry.context:
        allowed = f"must have 1 to {subject.geometry.context - 1} tokens, and has {len(ids) - 1}"
        raise InputError("tuning.text", repr(text[:40]), allowed, "Give a part of it.")
    return ids


def heat_map(subject: Subject, unit: Unit, ids: list[int], scale: Scale) -> HeatMap:
    """Reads a unit at every token of a text.

    Args:
        subject: the model.
        unit: which.
        ids: what `encoded` gave.
        scale: of its activations.
    """
    place = (unit.site, unit.layer)
    with torch.inference_mode():
        embeddings = subject.embedding_matrix[torch.tensor([ids], device=subject.device)]
        values = subject.run(embeddings, [place])[place][0, 1:, unit.index].double().tolist()
    rows = {
        "position": range(1, len(ids)),
        "token": [subject.token(token) for token in ids[1:]],
        "activation": values,
        "score": [scale.score(value) for value in values],
    }
    return HeatMap(unit, pd.DataFrame(rows), scale)


def terminal(tokens: pd.DataFrame) -> Text:
    """The tokens of a `HeatMap` (or of its table in a record) in colours, for rich."""
    text = Text()
    for row in tokens.to_dict("records"):
        red, green, blue = _colour(row["score"])
        text.append(str(row["token"]), style=f"black on rgb({red},{green},{blue})")
    return text
