"""Replaying the sample conversation that ships with the package, as if it were happening now."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import as_file, files
from itertools import groupby

from memory_integrations.arrival import utc_now
from memory_integrations.decisions import Promote
from memory_integrations.ingest import Read, read_file
from memory_integrations.manager import MemoryManager
from memory_integrations.messages import Message
from memory_integrations.plans import ManagementReceipt

NEW_SESSION = "the-next-one"
NEW_QUESTION = "May my dog move in with me? What did the lease say?"
"""What she asks in a session that is not in the sample, where nothing is in the conversation yet."""

_SAMPLES = files("memory_integrations") / "samples"


@dataclass(frozen=True, slots=True)
class Question:
    """A question about the sample.

    Args:
        text: The question.
        evidence: The ids of the messages that answer it.
    """

    text: str
    evidence: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ReplayedSession:
    """One session of the sample, after it ended.

    Args:
        id: The session's id.
        receipt: What managing its short-term memory did at its end.
    """

    id: str
    receipt: ManagementReceipt

    @property
    def learnt(self) -> list[str]:
        """The keys of the facts that were promoted from it."""
        return [decision.key for decision in self.receipt.decisions if isinstance(decision, Promote)]


class ReplayClock:
    """Gives the time of the message that is being replayed, so that the history of facts has the sample's dates."""

    def __init__(self) -> None:
        self.now = utc_now()

    def __call__(self) -> datetime:
        """The time in the replay."""
        return self.now


def sample_messages() -> list[Message]:
    """The sample conversation, oldest first."""
    with as_file(_SAMPLES / "conversation.jsonl") as path:
        return [item.message for item, _ in read_file(path) if isinstance(item, Read)]


def sample_questions() -> list[Question]:
    """The questions that ship with the sample."""
    questions = json.loads((_SAMPLES / "questions.json").read_text(encoding="utf-8"))
    return [Question(fields["question"], frozenset(fields["evidence"])) for fields in questions]


def replay(memory: MemoryManager, clock: ReplayClock, messages: Iterable[Message]) -> Iterator[ReplayedSession]:
    """Say everything again, a session at a time.

    Turns are added as an application would add them; at the end of a session its short-term memory is managed by
    rules, which promotes facts, and cleared.

    Args:
        memory: The user's memory, made with the clock.
        clock: Set to the times of the messages.
        messages: Oldest first.

    Yields:
        Every session, as it ended.
    """
    for session_id, said in groupby(messages, key=lambda message: message.session_id):
        session = memory.for_scope(memory.scope.with_session(session_id))
        for turn in _turns(said):
            clock.now = turn[-1].created_at or clock.now
            session.add_messages(turn)
        receipt = session.manage_short_term()
        assert isinstance(receipt, ManagementReceipt)  # not a plan: it was no dry run
        session.clear_session()
        yield ReplayedSession(session_id or "", receipt)


def ask(memory: MemoryManager, question: str) -> MemoryManager:
    """Begin a new session with a question; returns the memory of that session."""
    session = memory.for_scope(memory.scope.with_session(NEW_SESSION))
    session.short_term.add(question)
    return session


def _turns(messages: Iterable[Message]) -> Iterator[list[Message]]:
    """What a user says, with the answers to it."""
    turn: list[Message] = []
    for message in messages:
        if message.role == "user" and turn:
            yield turn
            turn = []
        turn.append(message)
    if turn:
        yield turn
