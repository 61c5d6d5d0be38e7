"""What stands around the optimized tokens, made of settings: begin-of-text, a prefix, windows of text, a chat."""

from __future__ import annotations

import logging
from collections.abc import Collection
from heapq import heappush, heappushpop
from pathlib import Path

import numpy as np

from actmax.errors import InputError, renamed
from actmax.model.context import NONE, Context
from actmax.model.settings import TOKENS, ContextSettings
from actmax.model.subject import Subject
from actmax.text.files import BYTE_ORDER_MARK, SAMPLE, text_files
from actmax.text.typed import Typed
from actmax.text.windows import windows

log = logging.getLogger(__name__)

DOCUMENTS = "<|endoftext|>"
"""The token before every document in the training of GPT-2, GPT-Neo, GPT-NeoX and SmolLM2."""
TRIED = 200
"""Number of tokens that are tried beside the ends of a prefix or a chat."""
FEW = 0.05
"""Share of these tokens that must stand there unmerged, at least."""
MANY = 0.25
"""Share of merging tokens from which on a warning is given."""
WAY_OUT = "A space beside the tokens is best left out: words bring their own."


def begin_token(subject: Subject, token: str | None = None) -> int:
    """The id of the token that stands before every text.

    It must be the one that a subject's training documents began with, which need not be what its tokenizer calls
    `bos_token`: in SmolLM2-Instruct that is `<|im_start|>`, behind which some words become attention sinks themselves.

    Args:
        subject: the model whose vocabulary it is taken from.
        token: a token by name; None for `<|endoftext|>` where the vocabulary has it, else the tokenizer's own.

    Raises:
        InputError: there is no such token, or the model has no embedding for it.
    """
    found = _begin(subject, token)
    if found is None:
        allowed = f"must name a token of {subject.name}, whose tokenizer has no begin-of-text token"
        raise InputError("token", None, allowed, "context=none puts nothing before the tokens.")
    return found


def _begin(subject: Subject, token: str | None) -> int | None:
    """Begin-of-text; None where none is named and the tokenizer has none."""
    tokenizer = subject.tokenizer
    known = tokenizer.get_vocab()
    own = DOCUMENTS if DOCUMENTS in known else tokenizer.bos_token or tokenizer.eos_token
    chosen = token if token is not None else own
    if chosen is None:
        return None
    if chosen not in known:
        raise InputError("token", chosen, f"must be a token of {subject.name}")
    if known[chosen] >= len(subject.embedding_matrix):
        allowed = f"must be a token that {subject.name} has an embedding for: its id is {known[chosen]}, of "
        raise InputError("token", chosen, f"{allowed}{len(subject.embedding_matrix)} embeddings")
    return known[chosen]


def make_context(
    subject: Subject,
    settings: ContextSettings,
    *,
    tokens: int,
    default: str = "none",
    apart: Collection[tuple[int, ...]] = (),
) -> Context:
    """What stands around the tokens of a job.

    Args:
        subject: the language model.
        settings: what is asked for.
        tokens: number of tokens that are to stand there.
        default: the context that `auto` stands for: `none` or `bos`, which falls back to nothing where the tokenizer
            has no begin-of-text.
        apart: windows that are not to be drawn.

    Raises:
        InputError: names the setting: no such token, no chat template, too few windows, an end that merges with nearly
            every token, or more tokens than the subject's context has room for.
    """
    name = settings.name
    if name == "auto":
        name = "none" if default == "bos" and _begin(subject, settings.token) is None else default
    makers = {"bos": _bos, "prefix": _prefix, "chat": _chat}
    if name == "none":
        found = NONE
    elif name == "text":
        found = _text(subject, settings, apart)
    else:
        found = makers[name](subject, settings)
    key = {"prefix": "text", "text": "window", "chat": "chat"}.get(name, "name")
    _check_length(subject, found, tokens, key, settings)
    if name in ("prefix", "chat"):
        _check_ends(subject, found, key, settings)
    return found


def _check_length(subject: Subject, context: Context, tokens: int, key: str, settings: ContextSettings) -> None:
    size, own = subject.geometry.context, context.length + len(context.after)
    if own + tokens > size:
        allowed = f"is {own} tokens, which with {tokens} optimized ones do not fit into the {size} of {subject.name}"
        raise InputError(key, getattr(settings, key), allowed)
    if context.after and own + tokens > subject.unstretched:
        allowed = f"is {own} tokens: with {tokens} optimized ones, what stands behind these would change what they give"
        way_out = f"Up to {subject.unstretched} tokens the rotary positions of {subject.name} do not depend on length."
        raise InputError(key, getattr(settings, key), allowed, way_out)


def _bos(subject: Subject, settings: ContextSettings) -> Context:
    return Context("bos", ((begin_token(subject, settings.token),),))


def _start(subject: Subject, settings: ContextSettings) -> tuple[int, ...]:
    """Begin-of-text, where it is asked for and there is one."""
    found = _begin(subject, settings.token) if settings.begin else None
    return () if found is None else (found,)


def _prefix(subject: Subject, settings: ContextSettings) -> Context:
    ids = tuple(subject.tokens((settings.text or "").removeprefix(BYTE_ORDER_MARK)))
    if not ids:
        raise InputError("text", settings.text, "must hold at least one token with context=prefix")
    return Context("prefix", ((*_start(subject, settings), *ids),))


def _chat(subject: Subject, settings: ContextSettings) -> Context:
    if not getattr(subject.tokenizer, "chat_template", None):
        allowed = f"cannot be had: the tokenizer of {subject.name} has no chat template"
        raise InputError("name", "chat", allowed, "context=prefix takes a text of your own.")
    message = [{"role": "user", "content": settings.chat}]
    try:
        text = str(subject.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # a template is a program of its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError("chat", settings.chat, f"the chat template refuses it ({reason})") from error
    if text.count(TOKENS) != 1:
        allowed = f"must stand once in what the chat template makes of it, with {TOKENS}; it is there "
        raise InputError("chat", settings.chat, f"{allowed}{text.count(TOKENS)} times")
    before, after = (tuple(subject.tokens(part)) for part in text.split(TOKENS))
    return Context("chat", (before,), after)


def _text(subject: Subject, settings: ContextSettings, apart: Collection[tuple[int, ...]]) -> Context:
    begin = _start(subject, settings)
    if settings.window <= len(begin):
        allowed = "must be at least 2 with context=text, begin-of-text among them"
        raise InputError("window", settings.window, allowed)
    # the windows with the smallest random keys: a uniform choice from a stream whose length is not known
    kept: list[tuple[float, int, tuple[int, ...]]] = []
    rng, seen = np.random.default_rng(settings.seed), 0
    place = SAMPLE if settings.texts is None else Path(settings.texts)
    with renamed({"place": "texts"}):
        for window in windows(subject, text_files(place), size=settings.window, before=begin):
            if len(window.ids) < settings.window or window.ids in apart:
                continue
            seen += 1
            item = (-float(rng.random()), seen, window.ids)
            heappush(kept, item) if len(kept) < settings.windows else heappushpop(kept, item)
    if not seen:
        raise InputError(
            "window", settings.window, f"must be no longer than {place.name}, which has not as many tokens"
        )
    if seen < settings.windows:
        allowed = f"must be at most {seen}, the windows of {settings.window} tokens that the text has"
        raise InputError("windows", settings.windows, allowed)
    return Context("text", tuple(ids for _, _, ids in sorted(kept, reverse=True)))


def _check_ends(subject: Subject, context: Context, key: str, settings: ContextSettings) -> None:
    """Refuses a text whose ends merge with nearly every token that could stand beside them, and warns where many do.

    Behind a space at the end, a word without a space of its own becomes another token.
    """
    if not subject.tokenizer.is_fast:
        return
    plain = subject.plain_tokens
    step = max(1, len(plain) // TRIED)
    alone = [(token,) for token in plain[::step].tolist()]
    tried = [one for one, same in zip(alone, Typed(subject)(alone), strict=True) if same]
    merged = [one for one, same in zip(tried, Typed(subject, context)(tried), strict=True) if not same]
    if len(merged) < MANY * len(tried) or not tried:
        return
    ends = " and ".join(repr(subject.text(ids)) for ids in (context.before[0][-1:], context.after[:1]) if ids)
    words = [one for one in merged if subject.text(one).strip().isalpha()] or merged
    reason = f"{len(merged) / len(tried):.0%} of tokens merge with {ends}, as {subject.text(words[0])!r} does"
    if len(merged) > (1 - FEW) * len(tried):
        raise InputError(key, getattr(settings, key), f"must leave room for tokens: {reason}", WAY_OUT)
    log.warning("context.%s: %s: sequences in which any does are not used by searches. %s", key, reason, WAY_OUT)
