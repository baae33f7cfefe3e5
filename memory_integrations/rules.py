"""Managing short-term memory without a model: pure rules, cautious where a model would guess.

They delete exact duplicates, greetings (as whole messages, never as a part of one), what is past its age and
what has decayed; they compress long texts to their most telling sentences; and they promote what a user says
of themselves in plain English sentences of a closed list, as facts of ``source="rule"``.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from memory_integrations.decisions import Compress, Decision, Delete, Promote
from memory_integrations.delimiters import strip_injected
from memory_integrations.plans import ManagementPlan, ManagementRequest, planned
from memory_integrations.policies import Entry, ShortTermPolicy, evictable, expired, retention
from memory_integrations.statements import LISTS, statements

RULE_CONFIDENCE = 0.9
"""What a promotion by rule claims: the sentence is plain, but nobody understood it."""

_GREETINGS = frozenset(
    (
        "hi|hello|hey|hey there|hi there|hello there"
        "|good morning|good afternoon|good evening|good night"
        "|thanks|thank you|thanks a lot|thank you very much|thanks so much|thank you so much|many thanks|thx|ty|cheers"
        "|ok|okay|ok thanks|okay thanks|great thanks|perfect thanks|no problem|my pleasure"
        "|you're welcome|you are welcome|have a nice day|have a good day"
        "|bye|goodbye|bye bye|see you|see you later|see you soon|take care|talk to you later"
    ).split("|")
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*|\n+")
# A compressed text keeps about this share of the tokens.
_COMPRESSED_SHARE = 0.4
_PEOPLE = frozenset(("user", "assistant"))
_SAID_AGAIN = "said again later, word for word"
# A duplicate of fewer words ("yes", "the second one") may answer another question.
_DUPLICATE_WORDS = 3


class RuleManager:
    """The manager without a model: from a request to a plan, by rules.

    Args:
        count: Counts tokens.
    """

    def __init__(self, count: Callable[[str], int]) -> None:
        self._count = count

    def invoke(self, request: ManagementRequest) -> ManagementPlan:
        """The plan for a request."""
        proposed = propose(request.entries, request.facts, request.now, request.policy, self._count)
        return planned(proposed, request, self._count, source="rule")

    async def ainvoke(self, request: ManagementRequest) -> ManagementPlan:
        """Async twin of :meth:`invoke`, in a thread."""
        return await asyncio.to_thread(self.invoke, request)


def propose(
    entries: Sequence[Entry],
    facts: Mapping[str, Any],
    now: datetime,
    policy: ShortTermPolicy,
    count: Callable[[str], int],
) -> list[Decision]:
    """What the rules would do; ``decisions.validate`` has the last word.

    Args:
        entries: Short-term memory, oldest first.
        facts: The facts known already, which are not promoted again.
        now: For age and decay.
        policy: The limits.
        count: Counts tokens.
    """
    decisions: list[Decision] = [*promotions(entries, facts)]
    last_of = {_identity(entry): entry.id for entry in entries}
    asked = {later.id for entry, later in pairwise(entries) if "?" in entry.content and entry.role != later.role}
    for entry in evictable(entries, policy):
        reason = _reason_to_delete(entry, last_of, asked, now, policy)
        if reason:
            decisions.append(Delete(entry.id, reason))
        elif shorter := _compressed(entry, policy.compression_threshold, count):
            decisions.append(Compress(entry.id, shorter, f"longer than {policy.compression_threshold} tokens"))
    return decisions


def _compressed(entry: Entry, threshold: int | None, count: Callable[[str], int]) -> str | None:
    """A shorter text for what somebody said at length; None for a short entry, a tool's output, or one done before."""
    if threshold is None or entry.tokens <= threshold or entry.original is not None or not _is_plain(entry):
        return None
    return compress(entry.content, min(int(entry.tokens * _COMPRESSED_SHARE), threshold), count)


def _reason_to_delete(
    entry: Entry,
    last_of: Mapping[tuple[str, str], str],
    asked: Collection[str],
    now: datetime,
    policy: ShortTermPolicy,
) -> str | None:
    if expired(entry, now, policy):
        return "past its age"
    if not _is_plain(entry):
        return None
    if is_greeting(entry.content) and entry.id not in asked:  # "ok" after a question is an answer
        return "a greeting"
    if _is_twin(entry, last_of):
        return _SAID_AGAIN
    if policy.decay_half_life is not None and retention(entry, now, policy) < policy.min_retention:
        return "decayed"
    return None


def duplicates(entries: Sequence[Entry], policy: ShortTermPolicy) -> list[Delete]:
    """The entries that were said again later, word for word."""
    last_of = {_identity(entry): entry.id for entry in entries}
    return [
        Delete(entry.id, _SAID_AGAIN)
        for entry in evictable(entries, policy)
        if _is_plain(entry) and _is_twin(entry, last_of)
    ]


def _is_plain(entry: Entry) -> bool:
    """Whether it is nothing but text that a user or an assistant said."""
    message = entry.message
    return not message.tool_calls and entry.role in _PEOPLE and isinstance(message.content, str)


def _is_twin(entry: Entry, last_of: Mapping[tuple[str, str], str]) -> bool:
    return len(entry.content.split()) >= _DUPLICATE_WORDS and last_of[_identity(entry)] != entry.id


def _identity(entry: Entry) -> tuple[str, str]:
    return entry.message.speaker, (entry.original or entry.message).text.strip()


def is_greeting(text: str) -> bool:
    """Whether the whole message is a greeting, thanks or a goodbye; English."""
    words = re.findall(r"[a-z']+|\d+|[^\W\d_a-z]+", text.lower().replace("’", "'"))
    return " ".join(words) in _GREETINGS


def compress(text: str, max_tokens: int, count: Callable[[str], int]) -> str | None:
    """The most telling sentences, in their order, within a budget; None when that leaves nothing shorter.

    A sentence scores by the mean frequency of its words in the text (Luhn 1958, as averaged in SumBasic,
    Nenkova and Vanderwende 2005); the first one is favoured, since texts begin with what they are about.
    """
    sentences = [sentence.strip() for sentence in _SENTENCE.split(text) if sentence.strip()]
    if len(sentences) < 2:
        return None
    words = [[w for w in re.findall(r"\w+", sentence.lower()) if len(w) > 3] for sentence in sentences]
    frequency = Counter(w for sentence in words for w in sentence)
    scores = [sum(frequency[w] for w in sentence) / (len(sentence) + 3) for sentence in words]
    scores[0] *= 1.5
    chosen: set[int] = set()
    left = max_tokens
    for i in sorted(range(len(sentences)), key=lambda i: -scores[i]):
        tokens = count(sentences[i]) + 1
        if tokens <= left:
            chosen.add(i)
            left -= tokens
    if not chosen or len(chosen) == len(sentences):
        return None
    return " ".join(sentences[i] for i in sorted(chosen))


def promotions(entries: Sequence[Entry], facts: Mapping[str, Any]) -> list[Promote]:
    """The facts that users state of themselves, oldest first; what is known already is left out."""
    known = dict(facts)
    found = []
    for entry in entries:
        if entry.role != "user" or entry.original is not None or not isinstance(entry.message.content, str):
            continue
        for key, value in statements(strip_injected(entry.message.content)):
            if key in LISTS and key in known:
                before = known[key] if isinstance(known[key], list) else [known[key]]
                value = [*before, *(item for item in value if item not in before)]
            if known.get(key) != value:
                known[key] = value
                found.append(Promote(entry.id, key, value, "stated in the first person", RULE_CONFIDENCE))
    return found
