"""JSON that somebody else may have written or damaged."""

from __future__ import annotations

import json
from typing import Any


def from_json(text: str | bytes) -> Any:
    """The content of a JSON text.

    Raises:
        ValueError: it is no JSON, or nested more deeply than Python reads: the parser's own error of that is no
            `ValueError`, and would get past whoever expects damage.

    Example:
        >>> from_json("[1, 2]")
        [1, 2]
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
