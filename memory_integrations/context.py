"""One token budget over the three memories, and what it left out: pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from memory_integrations.delimiters import as_data, delimit
from memory_integrations.long_term import MemoryHit
from memory_integrations.messages import Message, transcript_line
from memory_integrations.short_term import Dropped, View

FACTS_SHARE = 1 / 3
"""Facts take what they need, up to this share of the budget."""
CONVERSATION_SHARE = 1 / 2
"""Of what the facts leave, the conversation may take at least this share; recalled memories get the rest."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a model is given of the three memories.

    Attributes:
        combined: The whole as text: facts, then the conversation, then what was recalled; empty parts left out.
        messages: The recent conversation as messages.
        features: The facts as JSON; ``{}`` when there are none.
        short_term: The recent conversation as lines.
        long_term: The recalled memories as lines, best first.
        hits: The recalled memories.
        token_usage: Tokens of ``features``, ``short_term``, ``long_term`` (each with its delimiters), of the
            ``total``, and the ``budget``.
        dropped: What was left out, and why.
    """

    combined: str
    messages: tuple[Message, ...] = ()
    features: str = "{}"
    short_term: str = ""
    long_term: str = ""
    hits: tuple[MemoryHit, ...] = ()
    token_usage: dict[str, int] = field(default_factory=dict)
    dropped: list[Dropped] = field(default_factory=list)

    def __str__(self) -> str:
        return self.combined


class FactSource(Protocol):
    """Gives facts within a budget: the text and the keys left out."""

    def __call__(self, *, max_tokens: int) -> tuple[str, list[str]]:
        """The facts as JSON, and the keys that did not fit."""


def assemble(
    budget: int,
    facts: FactSource,
    view: Callable[[int], View],
    hits: Sequence[MemoryHit],
    count: Callable[[str], int],
) -> Context:
    """Spend a budget once over facts, conversation and recalled memories.

    Facts first, up to their share; then the conversation is sure of its share and recalled memories take what is
    left, best first; then the conversation takes what they did not need. A memory whose message is in the
    conversation anyway is left out. The latest user message is there even over the budget.

    Args:
        budget: Tokens of the whole.
        facts: Gives the facts within a budget.
        view: Gives the conversation within a budget.
        hits: What was recalled, best first.
        count: Counts the tokens of a text.
    """
    facts_text, facts_left_out = facts(max_tokens=int(budget * FACTS_SHARE) - _frame("facts", count))
    if facts_text == "{}":
        facts_block, left = "", budget
    else:
        facts_block = delimit("facts", facts_text)
        left = budget - count(facts_block) - 1
    everything, lines = _conversation(view, left, count)
    needed = count(delimit("conversation", lines)) + 1 if lines else 0
    for_hits = left - min(needed, int(left * CONVERSATION_SHARE))
    recalled, not_recalled = _recall(hits, everything.ids, for_hits, count)
    while True:
        recalled_block = delimit("recalled", "\n".join(hit.text for hit in recalled))
        for_conversation = left - (count(recalled_block) + 1 if recalled else 0)
        shown, lines = _conversation(view, for_conversation, count)
        conversation_block = delimit("conversation", lines)
        combined = "\n".join(block for block in (facts_block, conversation_block, recalled_block) if block)
        if not recalled or count(combined) <= budget:
            break
        not_recalled.insert(0, Dropped("memory", recalled[-1].id, count(recalled[-1].text), "budget"))
        recalled = recalled[:-1]
    return Context(
        combined=combined,
        messages=shown.messages,
        features=facts_text,
        short_term=lines,
        long_term="\n".join(hit.text for hit in recalled),
        hits=tuple(recalled),
        token_usage={
            "features": count(facts_block),
            "short_term": count(conversation_block),
            "long_term": count(recalled_block),
            "total": count(combined),
            "budget": budget,
        },
        dropped=[
            *(Dropped("fact", key, 0, "budget") for key in facts_left_out),
            *shown.dropped,
            *not_recalled,
        ],
    )


def _frame(kind: Any, count: Callable[[str], int]) -> int:
    """Tokens of the delimiters alone."""
    return count(delimit(kind, "-"))


def _conversation(view: Callable[[int], View], budget: int, count: Callable[[str], int]) -> tuple[View, str]:
    """The largest view whose lines, delimited, fit: a view counts contents, the lines also have speakers."""
    frame = _frame("conversation", count)
    allowed = max(budget - frame, 0)
    while True:
        shown = view(allowed)
        lines = "\n".join(as_data(transcript_line(message)) for message in shown)
        over = count(lines) + frame - budget
        if over <= 0 or allowed == 0 or shown.tokens > allowed:
            return shown, lines
        allowed = max(min(allowed, shown.tokens) - over, 0)


def _recall(
    hits: Sequence[MemoryHit], shown: frozenset[str], budget: int, count: Callable[[str], int]
) -> tuple[list[MemoryHit], list[Dropped]]:
    """The hits that fit, in order, and those that do not."""
    recalled: list[MemoryHit] = []
    dropped: list[Dropped] = []
    left = budget - _frame("recalled", count)
    for hit in hits:
        tokens = count(hit.text) + 1
        if shown.issuperset(hit.message_ids):
            dropped.append(Dropped("memory", hit.id, tokens, "already in the conversation"))
        elif tokens > left:
            dropped.append(Dropped("memory", hit.id, tokens, "budget"))
        else:
            recalled.append(hit)
            left -= tokens
    return recalled, dropped
