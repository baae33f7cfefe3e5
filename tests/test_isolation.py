"""Nobody sees or changes what is another's: P21, P22, P37.

Thousands of random operations of 50 scopes, whose identifiers are chosen to be taken for one another, on every journal.
What each returns is compared with what plain dictionaries say, and now and then all that every scope has.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from isolation_model import Memory, Model, Said
from strategies import Clock

pytest.importorskip("langgraph.store.base")
pytest.importorskip("sqlalchemy")
pytest.importorskip("psycopg")

from langgraph.store.base import InvalidNamespaceError

from memory_integrations import MemoryManager, MemoryScope, Message, ScopeError, ShortTermPolicy
from memory_integrations.langchain import MemoryStore
from memory_integrations.scopes import GLOBAL

LONG = 10_240

USERS = [
    "ann", "Ann", "ANN", "an", "ann ", "аnn", "ａｎｎ", "a\u200bnn", "ann\0", "ann\n", "\u202eann", "é", "e\u0301",
    "..", "/", "%", "%2F", ":", "user:", "user:ann", "user=ann", "session:", "/session:", "ann/session:s",
    "user:ann/session:s", "user=ann/session=s", "global", "deleted", "store:user:ann", "*", "👩‍👩‍👧", "x" * LONG,
    "x" * (LONG - 1) + "y",
]  # fmt: skip
SESSIONS = ["s", "S", "global", "ann/session:s", "user:ann", "\0"]
BOTH = [
    ("ann", "s"), ("ann", "S"), ("ann", "session:s"), ("ann", "/session:s"), ("Ann", "s"), ("ann/session:s", "s"),
    ("..", ".."), ("/session:", "/session:"), ("x" * LONG, "x" * LONG), ("an", "n/session:s"),
]  # fmt: skip
SCOPES = [
    GLOBAL,
    *map(MemoryScope, USERS),
    *(MemoryScope(session_id=session) for session in SESSIONS),
    *(MemoryScope(*both) for both in BOTH),
]
KEYS = ["k", "K", "к", "language", "user:ann", "../k", "\0", "é", "e\u0301", "global", "k" * 2000, "a.b"]
OTHER_SESSIONS = ["s", "t", "/session:s", "s/session:t", "\0", "é"]
TOKEN = re.compile(r"tok\d+x")
STEPS_KEPT = 12

SYLLABLES = "ba de fi go hu ka le mi no pu ra se ti vo zu".split()


def test_the_scopes_are_fifty_and_all_different() -> None:
    assert len(SCOPES) == len(set(SCOPES)) == 50
    assert len({scope.tag for scope in SCOPES}) == len({scope.storage_key for scope in SCOPES}) == 50


@pytest.mark.parametrize("empty", [{"user_id": ""}, {"session_id": ""}, {"user_id": "ann", "session_id": ""}])
def test_an_empty_identifier_is_nobodys(empty: dict[str, str], manager: Callable[..., MemoryManager]) -> None:
    with pytest.raises(ScopeError, match="non-empty"):
        MemoryScope(**empty)
    printed = "/".join(f"{name.removesuffix('_id')}:{value}" for name, value in empty.items())
    with pytest.raises(ScopeError, match="non-empty"):
        manager("user:ann").for_scope(printed)


class World:
    """One open memory, what is expected of it, and the operations that change both."""

    def __init__(self, seed: int, clock: Clock, directory: Path, journal_url: str | None) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.clock = clock
        self.model = Model()
        self.step = 0
        self.scope = GLOBAL
        self.log: dict[MemoryScope, deque[str]] = {}
        self.numbers = itertools.count()
        self.told: dict[MemoryScope, list[Said]] = {}
        """Conversations as another program keeps them, to be told again."""
        self._options = {
            "data_dir": directory,
            "journal_url": journal_url,
            "clock": clock,
            "short_term_policy": ShortTermPolicy(max_tokens=10_000_000),  # what is evicted is another test's
        }
        self.memory = MemoryManager(**self._options)
        words = ["".join(self.random.choices(SYLLABLES, k=3)) for _ in range(2000)]
        self.words = sorted(set(words))

    def run(self, steps: int) -> None:
        names, weights = zip(*OPERATIONS.items(), strict=True)
        for _ in range(steps):
            self.step += 1
            self.clock.advance()
            if self.random.random() > 0.3:  # else the one before does something more, which is seldom without effect
                self.scope = self.random.choice(SCOPES)
            name = self.random.choices(names, weights)[0]
            self.note(name)
            try:
                getattr(self, name)(self.memory.for_scope(self.scope))
            except Exception as error:
                if not isinstance(error, AssertionError):
                    error.add_note(self.trace())
                raise
        self.compare_everything(self.memory)

    # What is said when something differs

    def note(self, text: str) -> None:
        for scope in {self.scope, self.scope.owner}:
            self.log.setdefault(scope, deque(maxlen=STEPS_KEPT)).append(
                f"{self.step}: {str(self.scope)!r:.80} {text:.300}"
            )

    def trace(self, scope: MemoryScope | None = None) -> str:
        scope = scope or self.scope
        lines = dict.fromkeys([*self.log.get(scope, ()), *self.log.get(scope.owner, ())])
        return "\n".join([f"seed {self.seed}, step {self.step}, the last that touched {str(scope)!r:.80}:", *lines])

    def same(self, found: Any, expected: Any, what: str, scope: MemoryScope | None = None) -> None:
        if found != expected:
            told = f"{what}: found {found!r:.2000}, expected {expected!r:.2000}"
            raise AssertionError(f"{told}\n{self.trace(scope)}")

    # What is said

    def text(self) -> str:
        """Some words, with one that nobody else ever says."""
        words = self.random.choices(self.words, k=self.random.randint(5, 9))
        words.insert(self.random.randrange(len(words)), f"tok{next(self.numbers)}x")
        return " ".join(words)

    def any_text_of(self, scope: MemoryScope) -> Memory | None:
        known = self.model.of(scope)
        return self.random.choice(known) if known else None

    # Facts

    def set_fact(self, memory: MemoryManager) -> None:
        key = self.random.choice(KEYS)
        value: Any = self.random.choice(
            [self.text(), self.random.randrange(99), [self.text(), None], {"é": self.text()}]
        )
        self.note(f"{key!r:.40} = {value!r}")
        number = memory.set_fact(key, value)
        self.same(
            number, self.model.change(self.scope.owner, self.clock(), "set", key=key, value=value), "number of change"
        )

    def get_fact(self, memory: MemoryManager) -> None:
        key = self.random.choice(KEYS)
        self.same(memory.get_fact(key, "none"), self.model.facts(self.scope).get(key, "none"), f"fact {key!r:.40}")

    def delete_fact(self, memory: MemoryManager) -> None:
        key = self.random.choice(KEYS)
        known = key in self.model.facts(self.scope)
        self.note(f"{key!r:.40}")
        self.same(memory.features.delete(key), known, f"deleted {key!r:.40}")
        if known:
            self.model.change(self.scope.owner, self.clock(), "delete", key=key)

    def undo_fact(self, memory: MemoryManager) -> None:
        standing = self.model.standing(self.scope.owner)
        change = self.random.choice([None, *standing]) if self.random.random() < 0.3 else None
        undone = change or (standing[-1] if standing else None)
        self.note(f"{change}")
        self.same(memory.features.undo(change and change.number), undone and undone.key, "key undone")
        if undone:
            self.model.change(self.scope.owner, self.clock(), "undo", of=undone.number)

    def undo_what_is_another_s(self, memory: MemoryManager) -> None:
        """A number of change that only another scope has changes nothing here."""
        number = len(self.model.changes.get(self.scope.owner, [])) + 1
        self.same(memory.features.undo(number), None, "undone by another's number")

    def history(self, memory: MemoryManager) -> None:
        key = self.random.choice(KEYS)
        fact = memory.features.get_with_history(key)
        found = [] if fact is None else [(version.value, version.since, version.until) for version in fact.history]
        self.same(found, self.model.history(self.scope, key), f"history of {key!r:.40}")

    def as_of(self, memory: MemoryManager) -> None:
        moment = Clock().advance(self.random.randint(0, self.step))
        self.same(memory.features.as_of(moment), self.model.facts(self.scope, moment), f"facts as of {moment}")

    def keys(self, memory: MemoryManager) -> None:
        self.same(sorted(memory.features.keys()), sorted(self.model.facts(self.scope)), "keys")

    def export(self, memory: MemoryManager) -> None:
        owner = self.scope.owner
        keys = {change.key for change in self.model.standing(owner) if change.kind == "set"}
        exported = memory.features.export()
        self.same((exported["scope"], set(exported["facts"])), (str(owner), keys), "exported")

    # Conversations and long-term memory

    def add_turn(self, memory: MemoryManager) -> None:
        scope, now = self.scope, self.clock()
        other = None
        if scope.user_id is not None and self.random.random() < 0.2:
            other = self.random.choice(OTHER_SESSIONS)
            scope = scope.with_session(other)
        texts = self.text(), self.text()
        self.note(f"{texts} in {scope.session_id!r:.40}")
        for id_, role, text in zip(memory.add_turn(*texts, other), ("user", "assistant"), texts, strict=True):
            one = Said(id_, role, text)
            self.model.hear(scope, one)
            self.model.store(scope.owner, scope.session_id, one, now)

    def one_of_many(self, number: int) -> Said:
        """A message whose id every scope uses, and which says in every scope something else."""
        role = ("user", "assistant")[number % 2]
        return Said(str(number), role, f"tok{1_000_000 + 100 * SCOPES.index(self.scope) + number}x {role} said this")

    def add_messages(self, memory: MemoryManager) -> None:
        said = [self.one_of_many(self.random.randrange(10)) for _ in range(2)]
        self.note(f"{[one.id for one in said]}")
        given = [Message(one.role, one.text, id=one.id) for one in said]
        self.same(memory.add_messages(given), [one.id for one in said], "ids of what was added")
        for one in said:
            self.model.hear(self.scope, one)
            self.model.gone.get(self.scope, set()).discard(one.id)
            self.model.store(self.scope.owner, self.scope.session_id, one, self.clock())

    def follow(self, memory: MemoryManager) -> None:
        """A conversation that is kept elsewhere goes on, and is told again from its beginning."""
        told, model, scope = self.told.setdefault(self.scope, []), self.model, self.scope
        for _ in range(self.random.randrange(4)):
            role = "user" if not told or told[-1].role == "assistant" else "assistant"
            told.append(Said(f"told-{len(told)}-of-this-conversation", role, self.text()))
        unanswered = self.random.random() < 0.3
        self.note(f"{len(told)} messages, unanswered={unanswered}")
        buried = model.buried.get(scope.owner, set())
        fresh = [
            one for one in told if not model.knows(scope, one.id) and (scope.session_id, one.id) not in buried
        ]  # fmt: skip
        given = [Message(one.role, one.text, id=one.id) for one in told]
        self.same(memory.follow(given, unanswered=unanswered), [one.id for one in fresh], "what was new")
        for one in fresh:
            model.hear(scope, one)
        model.waiting.setdefault(scope, []).extend(fresh)
        model.store_waiting(scope, self.clock(), unanswered=unanswered)

    def flush(self, memory: MemoryManager) -> None:
        memory.flush()
        self.model.store_waiting(self.scope, self.clock(), unanswered=True)

    def store_conversation(self, memory: MemoryManager) -> None:
        texts = self.text(), self.text()
        self.note(f"{texts}")
        ids = memory.long_term.store_conversation(*texts)
        for hit_id, role, text in zip(ids, ("user", "assistant"), texts, strict=True):
            place = self.scope.session_id, f"unknown id of {hit_id}"
            found = Memory(text, role, self.clock(), hit_id=hit_id)
            self.model.memories.setdefault(self.scope.owner, {})[place] = found

    def store_file_summary(self, memory: MemoryManager) -> None:
        name, text = self.random.choice(KEYS), self.text()
        if not name.strip():
            name = "notes.txt"
        self.note(f"{name!r:.40}: {text}")
        hit_id = memory.store_file_summary(name, text)
        found = Memory(text, "file", self.clock(), kind="file", hit_id=hit_id)
        place = None, f"file:{name}"
        before = self.model.memories.setdefault(self.scope.owner, {}).get(place)
        self.model.memories[self.scope.owner][place] = found
        if before is not None:
            self.same(hit_id, before.hit_id, "id of a summary that replaces another")

    def search(self, memory: MemoryManager) -> None:
        """What is found is the lineage's; what somebody said is found by whoever may, and by nobody else."""
        lineage = self.scope.lineage
        asked = self.any_text_of(self.random.choice(lineage))
        if asked is None:
            asked = Memory(self.text(), "user", self.clock())
        self.found_by(memory, asked, any(asked in self.model.of(owner) for owner in lineage))

    def search_for_what_is_another_s(self, memory: MemoryManager) -> None:
        other = self.random.choice(SCOPES).owner
        asked = self.any_text_of(other)
        if asked is not None:
            self.found_by(memory, asked, other in self.scope.lineage)

    def found_by(self, memory: MemoryManager, asked: Memory, findable: bool) -> None:
        self.note(f"{asked.text!r}")
        hits = memory.search_long_term(asked.text, 5)
        for hit in hits:
            owner = MemoryScope.parse(hit.metadata["scope"])
            self.same(owner in self.scope.lineage, True, f"owner {str(owner)!r:.80} of a hit is in the lineage")
            shown = [known for known in self.model.of(owner) if known.text in hit.text]
            self.same(len(shown), 1, f"memories that the hit {hit.text!r} shows")
            self.same(hit.id, shown[0].hit_id or hit.id, "id of a hit")
            shown[0].hit_id = hit.id
        self.same(any(asked.text in hit.text for hit in hits), findable, f"{asked.text!r} is found")

    def count(self, memory: MemoryManager) -> None:
        self.same(memory.long_term.count(), len(self.model.of(self.scope.owner)), "memories counted")

    def delete_memories(self, memory: MemoryManager) -> None:
        """Ids of others, of nothing, and given twice, among the scope's own."""
        own = [known.hit_id for known in self.model.of(self.scope.owner) if known.hit_id]
        others = [
            known.hit_id
            for scope in self.random.sample(SCOPES, 5)
            if scope.owner != self.scope.owner
            for known in self.model.of(scope.owner)
            if known.hit_id
        ]
        ids = self.random.sample(own, min(len(own), self.random.randrange(3)))
        ids += self.random.sample(others, min(len(others), self.random.randrange(4)))
        ids += [*ids[:1], "00000000-0000-4000-8000-000000000000"]
        self.note(f"{len(ids)} ids")
        self.same(memory.long_term.delete(ids), self.model.delete(self.scope.owner, ids), "memories deleted")

    # Short-term memory alone

    def hear(self, memory: MemoryManager) -> None:
        role, text = self.random.choice(["user", "assistant"]), self.text()
        one = Said(memory.short_term.add(text, role), role, text)
        self.model.hear(self.scope, one)

    def delete_entry(self, memory: MemoryManager) -> None:
        """An entry of this conversation, or one that another has and this has not."""
        said = self.model.said.get(self.random.choice([self.scope, self.scope, self.random.choice(SCOPES)]), {})
        id_ = self.random.choice([*said, "unknown"])
        known = self.model.said.get(self.scope, {}).pop(id_, None)
        self.note(f"{id_}")
        self.same(memory.short_term.delete(id_), known is not None, f"entry {id_} deleted")
        if known is not None:
            self.model.gone.setdefault(self.scope, set()).add(id_)

    def clear_session(self, memory: MemoryManager) -> None:
        self.same(memory.clear_session(), self.model.clear(self.scope), "messages cleared")
        self.model.waiting.pop(self.scope, None)
        self.model.change(self.scope, self.clock(), "clear")

    def resume(self, memory: MemoryManager) -> None:
        scope, model = self.scope, self.model
        cleared = [change.at for change in model.changes.get(scope, []) if change.kind == "clear"]
        said = [
            (place[1], known)
            for place, known in model.memories.get(scope.owner, {}).items()
            if known.kind == "message" and place[0] == scope.session_id
            and not (cleared and known.created <= cleared[-1])
        ]  # fmt: skip
        resumed = memory.resume()
        if model.said.get(scope):
            self.same(resumed, [], "resumed of a conversation that goes on")
            return
        self.same([message.text for message in resumed], [known.text for _, known in said], "resumed")
        for message, (_, known) in zip(resumed, said, strict=True):
            assert message.id is not None
            if not model.knows(scope, message.id):
                model.hear(scope, Said(message.id, known.role, known.text))

    def get_context(self, memory: MemoryManager) -> None:
        asked = self.any_text_of(self.random.choice(self.scope.lineage))
        context = memory.get_context(asked and asked.text, max_tokens=None)
        facts = self.model.facts(self.scope)
        self.same(json.loads(context.features), facts, "facts of the context")
        self.same([message.id for message in context.messages], self.model.view(self.scope), "messages of the context")
        allowed = {
            token for owner in self.scope.lineage for known in self.model.of(owner) for token in tokens(known.text)
        }
        allowed |= set(tokens(json.dumps(facts)))
        allowed |= {token for one in self.model.said.get(self.scope, {}).values() for token in tokens(one.text)}
        self.same(set(tokens(context.combined)) - allowed, set(), "of others in the context")

    # Items of a store

    def namespace(self) -> tuple[str, ...] | None:
        """A namespace of this scope's user; None where its identifier is no label."""
        label = self.scope.user_id
        return None if label is None or "." in label or "\0" in label else ("users", label, "notes")

    def stores(self, memory: MemoryManager) -> list[MemoryStore]:
        """The user's own store and everybody's, which reach the same items of the user."""
        own = [MemoryStore(memory)] if self.scope.owner != GLOBAL else []
        return [*own, MemoryStore(self.memory.for_scope(GLOBAL))]

    def put_item(self, memory: MemoryManager) -> None:
        namespace, key, text = self.namespace(), self.random.choice(KEYS), self.text()
        self.note(f"{key!r:.40}: {text}")
        store = self.random.choice(self.stores(memory))
        if namespace is None:
            if self.scope.user_id is not None:
                with pytest.raises(InvalidNamespaceError):
                    store.put(("users", self.scope.user_id, "notes"), key, {"text": text})
            return
        store.put(namespace, key, {"text": text})
        items = self.model.items.setdefault(self.scope.owner, {})
        before = items.get((namespace, key))
        items[namespace, key] = Memory(
            text, "item", self.clock(), kind="item", hit_id=before.hit_id if before else None
        )  # fmt: skip

    def put_own_item(self, memory: MemoryManager) -> None:
        """What a user's store keeps for itself has the same namespace and key in every user's."""
        if self.scope.owner == GLOBAL:
            return
        key, text = self.random.choice(KEYS), self.text()
        MemoryStore(memory).put(("notes",), key, {"text": text})
        own = self.model.own_items.setdefault(self.scope.owner, {})
        own[("notes",), key] = Memory(text, "item", self.clock(), kind="item")

    def get_items(self, memory: MemoryManager) -> None:
        namespace, owner, key = self.namespace(), self.scope.owner, self.random.choice(KEYS)
        if namespace is not None:
            known = self.model.items.get(owner, {}).get((namespace, key))
            for store in self.stores(memory):
                found = store.get(namespace, key)
                self.same(found and found.value, known and {"text": known.text}, f"item {key!r:.40}")
        if owner == GLOBAL:
            return
        own = self.model.own_items.get(owner, {}).get((("notes",), key))
        found = MemoryStore(memory).get(("notes",), key)
        self.same(found and found.value, own and {"text": own.text}, f"own item {key!r:.40}")

    def search_items(self, memory: MemoryManager) -> None:
        owner, every = self.scope.owner, self.stores(memory)
        if owner != GLOBAL:
            known = [*self.model.items.get(owner, {}).values(), *self.model.own_items.get(owner, {}).values()]
            query = self.random.choice([None, self.text()])
            found = every[0].search((), query=query, limit=1000)
            self.same(
                sorted(item.value["text"] for item in found), sorted(item.text for item in known), "items of a store"
            )
            listed = {item for item, _ in [*self.model.items.get(owner, {}), *self.model.own_items.get(owner, {})]}
            self.same(set(every[0].list_namespaces(limit=1000)), listed, "namespaces of a store")
        everyones = [item.text for items in self.model.items.values() for item in items.values()]
        found = every[-1].search(("users",), limit=10_000)
        self.same(sorted(item.value["text"] for item in found), sorted(everyones), "items of all users")

    def delete_item(self, memory: MemoryManager) -> None:
        namespace, key = self.namespace(), self.random.choice(KEYS)
        if namespace is not None:
            self.note(f"{key!r:.40}")
            self.random.choice(self.stores(memory)).delete(namespace, key)
            self.model.items.get(self.scope.owner, {}).pop((namespace, key), None)

    def reach_for_what_is_another_s(self, memory: MemoryManager) -> None:
        other = self.random.choice(USERS)
        if self.scope.owner == GLOBAL or self.scope.user_id == other or "." in other or "\0" in other:
            return
        with pytest.raises(ScopeError):
            MemoryStore(memory).get(("users", other, "notes"), "k")
        with pytest.raises(ScopeError):
            MemoryStore(memory).put(("users", other, "notes"), "k", {"text": "mine"})

    # The whole

    def erase(self, memory: MemoryManager) -> None:
        """What others have is counted before and after: P22."""
        before = {scope: len(self.model.of(scope.owner)) for scope in SCOPES}
        receipt = memory.erase()
        self.same(receipt.scope, str(self.scope), "scope erased")
        found = receipt.facts, receipt.memories, receipt.messages
        self.same(found, self.model.erase(self.scope), "facts, memories and messages erased")
        for scope in self.random.sample(SCOPES, 8):
            if scope.owner != self.scope.owner:
                count = self.memory.for_scope(scope).long_term.count()
                self.same(count, before[scope], "memories of a bystander", scope)

    def reopen(self, memory: MemoryManager) -> None:
        for scope in list(self.model.waiting):
            self.model.store_waiting(scope, self.clock(), unanswered=True)
        self.model.reopen()
        memory.close()
        self.memory = MemoryManager(**self._options)

    def compare_everything(self, memory: MemoryManager) -> None:
        for scope in dict.fromkeys([*SCOPES, *self.model.everyone()]):
            one, owner = self.memory.for_scope(scope), scope.owner
            facts = self.model.facts(scope)
            self.same(one.features.all(), facts, "all facts", scope)
            self.same(len(one.features), len(facts), "number of facts", scope)
            for key in KEYS:
                fact = one.features.get_with_history(key)
                found = (
                    [] if fact is None else [(version.value, version.since, version.until) for version in fact.history]
                )
                self.same(found, self.model.history(scope, key), f"history of {key!r:.40}", scope)
            memories = self.model.memories.get(owner, {})
            self.same(
                [(message.session_id, message.role, message.text) for message in one.long_term.messages()],
                [(place[0], known.role, known.text) for place, known in memories.items()],
                "all long-term memories",
                scope,
            )
            self.same(one.long_term.count(), len(self.model.of(owner)), "number of memories", scope)
            self.same(
                [(entry.id, entry.role, entry.content) for entry in one.short_term.entries],
                [(said.id, said.role, said.text) for said in self.model.said.get(scope, {}).values()],
                "the conversation",
                scope,
            )
            if owner != GLOBAL:
                known = [*self.model.items.get(owner, {}).values(), *self.model.own_items.get(owner, {}).values()]
                items = MemoryStore(one).search((), limit=10_000)
                self.same(
                    sorted(item.value["text"] for item in items), sorted(item.text for item in known), "items", scope
                )


OPERATIONS = {
    "set_fact": 12, "get_fact": 5, "delete_fact": 4, "undo_fact": 4, "undo_what_is_another_s": 1, "history": 3,
    "as_of": 3, "keys": 2, "export": 1, "add_turn": 9, "add_messages": 5, "follow": 5, "flush": 1,
    "store_conversation": 3, "store_file_summary": 4, "search": 8, "search_for_what_is_another_s": 8, "count": 3,
    "delete_memories": 3, "hear": 4, "delete_entry": 4, "clear_session": 1, "resume": 1, "get_context": 4,
    "put_item": 4, "put_own_item": 2, "get_items": 3, "search_items": 1, "delete_item": 1,
    "reach_for_what_is_another_s": 1, "erase": 1, "reopen": 0.3, "compare_everything": 0.1,
}  # fmt: skip
"""How often each is done, as a share."""


def tokens(text: str) -> list[str]:
    return TOKEN.findall(text)


def test_p21_p22_nobody_sees_or_changes_what_is_anothers(
    journal_url: str | None, long_run: bool, tmp_path: Path, clock: Clock
) -> None:
    """With ``--long`` 20,000 operations on every journal."""
    world = World(seed=21, clock=clock, directory=tmp_path / "data", journal_url=journal_url)
    try:
        world.run(20_000 if long_run else 600 if journal_url else 1500)
    finally:
        world.memory.close()
