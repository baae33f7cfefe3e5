"""One token budget over the three memories, and what it left out: pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from memory_integrations.delimiters import Kind, as_data, delimit
from memory_integrations.long_term import MemoryHit
from memory_integrations.messages import Message, transcript_line
from memory_integrations.short_term import Dropped, View

FACTS_SHARE = 1 / 2
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
    facts_text, facts_left_out = facts(max_tokens=max(int(budget * FACTS_SHARE) - _frame("facts", count), 0))
    if facts_text == "{}":
        facts_block, left = "", budget
    else:
        facts_block = delimit("facts", facts_text)
        left = budget - _tokens_of_block("facts", facts_text, count)
    all_lines = _conversation(view, left, count)[1]
    sure = min(_tokens_of_block("conversation", all_lines, count), int(left * CONVERSATION_SHARE))
    shown, lines = _conversation(view, sure if hits else left, count)
    recalled, dropped = _recall(hits, shown.ids, left - _tokens_of_block("conversation", lines, count), count)
    # What the recalled memories did not need goes to the conversation, which may then show some of them itself.
    shown, lines = _conversation(
        view, left - _tokens_of_block("recalled", "\n".join(hit.text for hit in recalled), count), count
    )
    recalled, repeated = _recall(recalled, shown.ids, budget, count)
    dropped += repeated
    conversation_block = delimit("conversation", lines)
    while True:
        recalled_block = delimit("recalled", "\n".join(hit.text for hit in recalled))
        combined = "\n".join(block for block in (facts_block, conversation_block, recalled_block) if block)
        if not recalled or count(combined) <= budget:
            break
        worst = recalled.pop()
        dropped.insert(0, Dropped("memory", worst.id, count(worst.text), "budget"))
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
            *dropped,
        ],
    )


def _frame(kind: Kind, count: Callable[[str], int]) -> int:
    """Tokens of the delimiters alone."""
    return count(delimit(kind, "-"))


def _tokens_of_block(kind: Kind, body: str, count: Callable[[str], int]) -> int:
    """Tokens of a block and the line end after it; none for an empty one."""
    return count(delimit(kind, body)) + 1 if body else 0


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
