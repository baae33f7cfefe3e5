"""What a model is shown of a conversation, and what was left out of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, overload

from memory_integrations.messages import Message, transcript
from memory_integrations.policies import Entry, Selection


class BudgetWarning(UserWarning):
    """A budget was too small for what must be shown, so it was exceeded."""


def warn_of_overflow(tokens: int, budget: int) -> None:
    """Warn the caller's caller that what must be shown took more than its budget."""
    warnings.warn(
        f"The latest user message and the protected ones take {tokens} tokens, over the budget of {budget}; they are "
        "shown all the same.",
        BudgetWarning,
        stacklevel=3,
    )


@dataclass(frozen=True, slots=True)
class Dropped:
    """Something that a context left out."""

    kind: Literal["message", "fact", "memory"]
    id: str
    """The message's id, or the fact's key."""
    tokens: int
    reason: str


class View(Sequence[Message]):
    """The messages that a model is shown, oldest first.

    Attributes:
        messages: The messages.
        tokens: Tokens of their contents.
    """

    __slots__ = ("_entries", "_selection", "_text", "messages", "tokens")

    def __init__(self, selection: Selection, entries: Sequence[Entry] = ()) -> None:
        self.messages = selection.messages
        self.tokens = selection.tokens
        self._selection = selection
        self._entries = entries
        self._text: str | None = None

    @property
    def text(self) -> str:
        """The messages as lines ``speaker: text``."""
        if self._text is None:
            self._text = transcript(self.messages)
        return self._text

    @property
    def ids(self) -> frozenset[str]:
        """The ids of the messages shown."""
        return frozenset(message.id for message in self.messages if message.id)

    @property
    def dropped(self) -> list[Dropped]:
        """The messages left out, oldest first, each with its reason."""
        shown, reasons = self.ids, self._selection.reasons
        return [
            Dropped("message", entry.id, entry.tokens, reasons.get(entry.id, "budget"))
            for entry in self._entries
            if entry.id not in shown
        ]

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Message, ...]: ...
    def __getitem__(self, index: int | slice) -> Message | tuple[Message, ...]:
        return self.messages[index]

    def __len__(self) -> int:
        return len(self.messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"View({len(self.messages)} messages, {self.tokens} tokens)"
