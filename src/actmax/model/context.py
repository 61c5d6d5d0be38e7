"""What stands around the tokens that are read, in the same forward pass."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Context:
    """What stands around the tokens that are read, as token ids: one surrounding, or several of one length.

    With several, whatever is read is the mean over them.
    """

    name: str
    """The kind, as `context=NAME` says it."""
    before: tuple[tuple[int, ...], ...] = ((),)
    """What stands before the tokens: one sequence, or several of one length."""
    after: tuple[int, ...] = ()
    """What stands behind the tokens."""

    def __post_init__(self) -> None:
        """Refuses sequences of several lengths."""
        if len({len(one) for one in self.before}) != 1:
            raise ValueError("what stands before the tokens must be one sequence, or several of one length")

    @property
    def count(self) -> int:
        """How many surroundings there are."""
        return len(self.before)

    @property
    def length(self) -> int:
        """Tokens that stand before those that are read, in each surrounding."""
        return len(self.before[0])

    @property
    def bare(self) -> bool:
        """Whether nothing stands around the tokens at all."""
        return not self.length and not self.after

    def without_after(self) -> Context:
        """The same with nothing behind the tokens: what a causal model computes at these does not depend on it."""
        return replace(self, after=())


NONE = Context("none")
"""Nothing: the first token that is read is the first that the model sees."""
