"""One token budget over the three memories, and what it left out: pure functions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from memory_integrations.delimiters import SEARCH, Kind, as_data, delimit, without_tags
from memory_integrations.layout import MemoryHit
from memory_integrations.messages import Content, Message, transcript_line
from memory_integrations.views import Dropped, View, warn_of_overflow

FACTS_SHARE = 1 / 2
"""Facts take what they need, up to this share of the budget."""
CONVERSATION_SHARE = 1 / 2
"""Of what the facts leave, the conversation may take at least this share; recalled memories get the rest."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a model is given of the three memories.

    Attributes:
        combined: The whole as text: facts, then the conversation, then what was recalled; empty parts left out.
        messages: The recent conversation as messages; what looks like memory in a tool's result is escaped.
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
    session_id: str | None = None,
    most: int = sys.maxsize,
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
        session_id: The conversation's session; message ids of other sessions are other messages.
        most: How many memories are recalled at most.

    Warns:
        BudgetWarning: What must be shown is over the budget.
    """
    transcript = _Transcript(view, count)
    required = transcript.within(0).tokens
    for_facts = min(int(budget * FACTS_SHARE), budget - required) - _tokens("facts", ["-"], count)
    facts_text, facts_left_out = facts(max_tokens=max(for_facts, 0))
    fact_lines = [] if facts_text == "{}" else [facts_text]
    left = budget - _tokens("facts", fact_lines, count)
    # First what the conversation is sure of, then the hits, then the conversation with what they did not need: it may
    # then show some of them itself.
    needed = transcript.within(left).tokens
    sure = transcript.within(min(needed, int(left * CONVERSATION_SHARE)) if hits else left)
    recalled, dropped = _recall(hits, sure.view.ids, session_id, left - sure.tokens, count, most)
    talk = transcript.within(left - _tokens("recalled", [hit.text for hit in recalled], count))
    recalled, repeated = _recall(recalled, talk.view.ids, session_id, budget, count)
    recalled_lines = [hit.text for hit in recalled]
    usage = {
        "features": _tokens("facts", fact_lines, count),
        "short_term": talk.tokens,
        "long_term": _tokens("recalled", recalled_lines, count),
    }
    total = sum(usage.values())
    if total > budget:
        warn_of_overflow(total, budget)
    blocks = (
        delimit("facts", "\n".join(fact_lines)),
        delimit("conversation", "\n".join(talk.lines)),
        delimit("recalled", "\n".join(recalled_lines)),
    )
    return Context(
        combined="\n".join(block for block in blocks if block),
        messages=tuple(map(defused, talk.view.messages)),
        features=facts_text,
        short_term="\n".join(talk.lines),
        long_term="\n".join(recalled_lines),
        hits=tuple(recalled),
        token_usage={**usage, "total": total, "budget": budget},
        dropped=[
            *(Dropped("fact", key, 0, "budget") for key in facts_left_out),
            *talk.view.dropped,
            *dropped,
            *repeated,
        ],
    )


def defused(message: Message) -> Message:
    """A tool's result that cannot pass for memory, unless it is what a search in memory found."""
    if message.role != "tool" or _is_found(message):
        return message
    content = message.content
    safe: Content = without_tags(content) if isinstance(content, str) else [_defused_block(block) for block in content]
    return message if safe == content else replace(message, content=safe)


def _is_found(message: Message) -> bool:
    """Whether it is what our own tool found: its artifact says the same, to which no text that another one reads gets.

    The name is anybody's.
    """
    artifact = getattr(message.raw, "artifact", None)
    if message.name != SEARCH or not isinstance(artifact, list):
        return False
    texts = [found.get("text") if isinstance(found, Mapping) else None for found in artifact]
    return message.content == delimit("recalled", "\n".join(text for text in texts if isinstance(text, str)))


def _defused_block(block: str | Mapping[str, Any]) -> str | Mapping[str, Any]:
    if isinstance(block, str):
        return without_tags(block)
    text = block.get("text")
    return {**block, "text": without_tags(text)} if isinstance(text, str) else block


def _tokens(kind: Kind, lines: Sequence[str], count: Callable[[str], int]) -> int:
    """Tokens of a block, the end of its last line included; none for an empty one.

    Lines are counted one by one, so that a counter which remembers them counts each once. That is exact: no token of
    an encoding goes over a line end into a line that begins with something visible.
    """
    if not lines:
        return 0
    return count(f"<memory:{kind}>\n") + sum(count(f"{line}\n") for line in lines) + count(f"</memory:{kind}>\n")


@dataclass(frozen=True, slots=True)
class _Talk:
    """A view of the conversation, its lines, and their tokens with the delimiters."""

    view: View
    lines: list[str]
    tokens: int


class _Transcript:
    """The conversation as lines within budgets. Each message is written and counted once."""

    def __init__(self, view: Callable[[int], View], count: Callable[[str], int]) -> None:
        self._view = view
        self._count = count
        self._written: dict[int, tuple[Message, str, int]] = {}
        self._frame = _tokens("conversation", ["-"], count)
        self._around = self._frame - count("-\n")

    def within(self, budget: int) -> _Talk:
        """The largest view whose lines, delimited, fit: a view counts contents, the lines also have speakers."""
        allowed = max(budget - self._frame, 0)
        while True:
            shown = self._view(allowed)
            written = [self._write(message) for message in shown.messages]
            tokens = sum(tokens for _, _, tokens in written) + (self._around if written else 0)
            over = tokens - budget
            if over <= 0 or allowed == 0 or shown.tokens > allowed:
                return _Talk(shown, [line for _, line, _ in written], tokens)
            allowed = max(min(allowed, shown.tokens) - over, 0)

    def _write(self, message: Message) -> tuple[Message, str, int]:
        written = self._written.get(id(message))
        if written is None:  # with the message, so that no other one gets its identity
            line = as_data(transcript_line(message))
            written = self._written[id(message)] = message, line, self._count(f"{line}\n")
        return written


def _recall(
    hits: Sequence[MemoryHit],
    shown: frozenset[str],
    session_id: str | None,
    budget: int,
    count: Callable[[str], int],
    most: int = sys.maxsize,
) -> tuple[list[MemoryHit], list[Dropped]]:
    """The hits that fit, in order, and those that do not."""
    recalled: list[MemoryHit] = []
    dropped: list[Dropped] = []
    left = budget - _tokens("recalled", ["-"], count)
    for hit in hits:
        tokens = count(f"{hit.text}\n")
        if hit.metadata.get("session_id") == session_id and shown.issuperset(hit.message_ids):
            dropped.append(Dropped("memory", hit.id, tokens, "already in the conversation"))
        elif len(recalled) == most:
            dropped.append(Dropped("memory", hit.id, tokens, "recall"))
        elif tokens > left:
            dropped.append(Dropped("memory", hit.id, tokens, "budget"))
        else:
            recalled.append(hit)
            left -= tokens
    return recalled, dropped
