"""Attacks, and every place where text comes to memory: each is planted between marks that say where it went."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from memory_integrations import MemoryManager, MemoryScope, Message, ToolCall
from memory_integrations.langchain import MemoryStore
from memory_integrations.messages import as_unicode

_DATA = json.loads((Path(__file__).parent / "data" / "attacks.json").read_text())
ATTACKS: dict[str, tuple[str, str]] = {
    **{f"{group}: {name}": (text, text) for group, attacks in _DATA["whole"].items() for name, text in attacks.items()},
    **{f"split: {name}": (first, second) for name, (first, second) in _DATA["split"].items()},
}
"""By name: what is planted, in two parts. An attack that is one text is planted whole in both."""
HARMLESS = "a quiet word", "and another one"

QUESTION = "What do you know of the harbour, the oboe and the lighthouse?"

# Where each mark stands.
PAST_USER, PAST_ASSISTANT, PAST_NAME, FILE, ITEM, ITEM_AS_JSON, METADATA = range(1, 8)
KEY, VALUE, KEY_AND_VALUE, NESTED, FORMER = range(10, 15)
USER, CALL, RESULT, ASSISTANT, COMPRESSED, TWO_MESSAGES, NAME = range(20, 27)

LIVE = frozenset((USER, ASSISTANT, COMPRESSED, TWO_MESSAGES, NAME))
"""What is said in the conversation that goes on: there it is a message of its own."""

_PLANTED = re.compile(r"begin(\d+)z.*?end\1z", re.DOTALL)
_BEGUN = re.compile(r"begin(\d+)z.*\Z", re.DOTALL)
_ENDED = re.compile(r"\A.*?end(\d+)z", re.DOTALL)


@dataclass(frozen=True)
class Plant:
    """One attack, ready to be planted."""

    first: str
    second: str

    def text(self, place: int) -> str:
        """The attack between its marks, behind words that no other place has: what says the same is recalled once."""
        return f"begin{place}z {_words(place)} {self.first} end{place}z"

    def pair(self, place: int) -> tuple[str, str]:
        """The attack in two parts, in two things that stand side by side."""
        return f"begin{place}z {_words(place)} {self.first}", f"{self.second} {_words(place)} end{place}z"

    def remember(self, memory: MemoryManager) -> None:
        """Plant it in everything that lasts: facts, former conversations, files, items."""
        memory.set_fact("home", "Lisbon")
        memory.set_fact(as_unicode(self.text(KEY)), True)
        memory.set_fact("diary", self.text(FORMER))
        memory.set_fact("diary", self.text(VALUE))
        key, value = self.pair(KEY_AND_VALUE)
        memory.set_fact(as_unicode(key), value)
        memory.set_fact("nested", {"list": [1, self.text(NESTED)]})
        past = memory.for_scope(memory.scope.with_session("past"))
        name, content = self.pair(PAST_NAME)
        past.add_messages(
            [
                Message("user", self.text(PAST_USER)),
                Message("assistant", self.text(PAST_ASSISTANT)),
                Message("user", content, name=name),
                Message("assistant", "The lighthouse at the harbour is white."),
                Message("user", "I heard an oboe.", metadata={self.text(METADATA): self.text(METADATA)}),
            ]
        )
        memory.store_file_summary(*self.pair(FILE))
        assert memory.scope.user_id is not None
        store, namespace = MemoryStore(memory), ("users", memory.scope.user_id, "notes")
        store.put(namespace, "one", {"text": self.text(ITEM)})
        store.put(namespace, "several", {"text": self.text(ITEM_AS_JSON), "number": 1})

    def say(self, memory: MemoryManager, session: str) -> MemoryManager:
        """Plant it in a conversation that goes on, up to the question that is asked in it."""
        live = memory.for_scope(memory.scope.with_session(session))
        first, second = self.pair(TWO_MESSAGES)
        name, content = self.pair(NAME)
        long = Message("user", "A long story. " * 800, id=f"long of {live.scope}")
        call = ToolCall("call-1", "look_up", {"about": as_unicode(self.text(CALL))})
        said = [
            Message("user", self.text(USER)),
            Message("assistant", "", tool_calls=(call,)),
            Message("tool", self.text(RESULT), name="look_up", tool_call_id="call-1"),
            Message("assistant", self.text(ASSISTANT)),
            long,
            Message("assistant", "I see."),
            Message("user", first),
            Message("user", second),
            Message("user", content, name=name),
            Message("assistant", "Noted."),
        ]
        live.follow(said, remember=False)
        live.short_term.compress_entry(f"long of {live.scope}", self.text(COMPRESSED))
        return live


def user_of(memory: MemoryManager, name: str) -> MemoryManager:
    return memory.for_scope(MemoryScope(name))


def planted_in(text: str) -> Iterator[tuple[int, str]]:
    """Where, and what became of it."""
    for found in _PLANTED.finditer(text):
        yield int(found[1]), found[0]


def masked(text: str, *, halves: bool = False) -> str:
    """The text with marks in the place of what was planted.

    Args:
        text: The text.
        halves: Whether it may hold the one half of what was planted in two messages.
    """
    text = _PLANTED.sub(r"[planted \1]", text)
    return _ENDED.sub(r"[half of \1]", _BEGUN.sub(r"[half of \1]", text)) if halves else text


def _words(place: int) -> str:
    chosen = random.Random(place).choices("harbour oboe lighthouse".split(), k=2)
    return " ".join([*chosen, *(f"word{place}n{number}" for number in range(20))])
