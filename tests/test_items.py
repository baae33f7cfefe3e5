"""Items without a framework: whose they are, what a filter means, and how they lie among memories."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import Clock, identifiers, json_values, nasty_text

from memory_integrations import FilterError, MemoryManager, MemoryScope, Message, MessageError, ScopeError
from memory_integrations.conditions import check_filter, meets, meets_all
from memory_integrations.items import ItemMemory, NewItem, as_object, item_id
from memory_integrations.namespaces import ItemScopes, check_namespace, namespace_matches

ANN, BOB, KIOSK = MemoryScope("ann"), MemoryScope("bob"), MemoryScope(session_id="kiosk")
USERS = ("users", "{user_id}")

Open = Callable[..., ItemMemory]


@pytest.fixture
def memory(tmp_path: Path, clock: Clock) -> Iterator[MemoryManager]:
    with MemoryManager(data_dir=tmp_path, clock=clock) as opened:
        yield opened


@pytest.fixture
def items(memory: MemoryManager, clock: Clock) -> ItemMemory:
    """The items of a global manager."""
    return ItemMemory(memory.long_term._collection, ItemScopes(USERS), clock)


# Whose an item is


@pytest.mark.parametrize(
    ("template", "scope", "namespace", "expected"),
    [
        (USERS, MemoryScope(), ("users", "ann"), ANN),
        (USERS, MemoryScope(), ("users", "ann", "notes", "deep"), ANN),
        (USERS, MemoryScope(), ("users",), None),
        (USERS, MemoryScope(), (), None),
        (USERS, MemoryScope(), ("memories", "ann"), None),
        (USERS, MemoryScope(), ("x", "users", "ann"), None),
        (USERS, MemoryScope(), ("users", "user:ann/session:1"), MemoryScope("user:ann/session:1")),
        (USERS, ANN, ("users", "ann"), ANN),
        (USERS, MemoryScope("ann", "s1"), ("users", "ann"), ANN),
        (USERS, ANN, ("other",), None),
        (("{user_id}",), MemoryScope(), ("ann", "x"), ANN),
        (("u", "{user_id}", "s", "{session_id}"), MemoryScope(), ("u", "ann", "s", "1", "x"), MemoryScope("ann", "1")),
        (("u", "{user_id}", "s", "{session_id}"), MemoryScope(), ("u", "ann", "s"), None),
        (("{user_id}", "{user_id}"), MemoryScope(), ("ann", "ann"), ANN),
        (("{user_id}", "{user_id}"), MemoryScope(), ("ann", "bob"), None),
        (("s", "{session_id}"), MemoryScope(), ("s", "kiosk"), KIOSK),
        (("s", "{session_id}"), KIOSK, ("s", "kiosk"), KIOSK),
        (("s", "{session_id}"), ANN, ("s", "1"), MemoryScope("ann", "1")),  # a session of the manager's user
        ((), ANN, ("anything",), ANN),
        (("mine",), ANN, ("mine", "x"), ANN),
        (("mine",), MemoryScope("ann", "s1"), ("mine",), ANN),
        (("mine",), KIOSK, ("mine",), KIOSK),
    ],
)
def test_a_namespace_says_whose_it_is(
    template: tuple[str, ...], scope: MemoryScope, namespace: tuple[str, ...], expected: MemoryScope | None
) -> None:
    scopes = ItemScopes(template, scope)
    assert scopes.of(namespace) == expected
    tag = scopes.tag(namespace)
    assert tag == (f"store:{scope.owner.tag}" if expected is None else expected.owner.tag)
    assert scopes.holds(namespace, tag)
    for depth in range(len(namespace) + 1):  # whatever is asked for above it looks where it is
        tags = scopes.tags(namespace[:depth])
        assert tags is None or tag in tags


@pytest.mark.parametrize(
    ("template", "scope", "namespace"),
    [
        (USERS, ANN, ("users", "bob")),
        (USERS, KIOSK, ("users", "ann")),
        (USERS, MemoryScope("ann", "s1"), ("users", "Ann", "x")),
        (("s", "{session_id}"), KIOSK, ("s", "other")),
    ],
)
def test_another_scopes_namespace_is_refused_by_both_names(
    template: tuple[str, ...], scope: MemoryScope, namespace: tuple[str, ...]
) -> None:
    scopes = ItemScopes(template, scope)
    for ask in (scopes.of, scopes.tag, scopes.tags):
        with pytest.raises(ScopeError, match=f"{namespace[1]}.*{scope.owner}"):
            ask(namespace)


@pytest.mark.parametrize(
    ("scope", "prefix", "expected"),
    [
        (MemoryScope(), (), None),
        (MemoryScope(), ("users",), None),
        (MemoryScope(), ("users", "ann", "x"), ("user:ann",)),
        (MemoryScope(), ("other",), ("store:global",)),
        (ANN, (), ("user:ann", "store:user:ann")),
        (ANN, ("users",), ("user:ann", "store:user:ann")),
        (ANN, ("users", "ann"), ("user:ann",)),
        (ANN, ("other",), ("store:user:ann",)),
    ],
)
def test_a_prefix_is_looked_for_under_few_tags(
    scope: MemoryScope, prefix: tuple[str, ...], expected: tuple[str, ...] | None
) -> None:
    assert ItemScopes(USERS, scope).tags(prefix) == expected


def test_a_user_that_a_short_prefix_names_is_the_only_one_looked_for() -> None:
    assert ItemScopes(("{user_id}", "x")).tags(("ann",)) == ("user:ann", "store:global")
    assert ItemScopes(("{session_id}", "{user_id}")).tags(("s1",)) is None


@given(user=identifiers)
def test_no_scope_prints_as_a_stores_own_tag(user: str) -> None:
    for scope in (MemoryScope(user), MemoryScope(session_id=user), MemoryScope(user, user)):
        assert not scope.tag.startswith("store:")


@pytest.mark.parametrize(
    "template",
    ["users", ("users", 1), ("",), ("a.b", "{user_id}"), ("{user_id}s",), ("{user}",), ("}",), (), ("users",)],
    ids=repr,
)
def test_a_template_that_cannot_be_meant_says_so(template: Any) -> None:
    with pytest.raises(ScopeError):
        ItemScopes(template)


def test_labels_that_cannot_be_told_apart_are_refused() -> None:
    for namespace in (("a.b",), ("",), ("\0",), ("\ud800",), (1,), "text"):
        with pytest.raises(ScopeError, match="expected"):
            check_namespace(namespace)  # type: ignore[arg-type]
    check_namespace(("ä", "a/b", "*", "{user_id}", " "))


# Ids and values

labels = st.lists(nasty_text, max_size=3).map(tuple)


@given(one=st.tuples(nasty_text, labels, nasty_text), other=st.tuples(nasty_text, labels, nasty_text))
def test_ids_are_one_for_each_item(one: Any, other: Any) -> None:
    assert (item_id(*one) == item_id(*other)) is (one == other)


def test_an_id_stays_what_it_is() -> None:
    """Items that are stored are found by it."""
    assert item_id("user:ann", ("users", "ann"), "k") == item_id("user:ann", ("users", "ann"), "k")
    assert item_id("user:ann", ("users", "ann"), "k") == "f66655c8-a040-47b5-944b-f0f5ebacd8d5"


@given(value=st.dictionaries(nasty_text, json_values, max_size=4))
def test_what_is_json_comes_back_equal(value: dict[str, Any]) -> None:
    assert as_object(value) == value
    assert json.dumps(as_object(value)) == json.dumps(value)
    assert as_object(nested(100)) == nested(100)


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"d": value}
    return value


@pytest.mark.parametrize(
    "value",
    [
        None,
        "a",
        [("a", 1)],
        {1: 2},
        {"a": {None: 1}},
        {"a": [{True: 1}]},
        {"a": object()},
        {"a": float("inf")},
        nested(101),
    ],
)
def test_what_is_not_json_is_refused(value: Any) -> None:
    with pytest.raises(MessageError, match="The thing is no object of JSON"):
        as_object(value, "The thing")


# Filters and paths


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        (1, 1, True),
        (1, "1", False),
        (None, None, True),
        (2, {"$gt": 1, "$lt": 3}, True),
        (2, {"$gt": 2}, False),
        (2, {"$gte": 2, "$lte": 2}, True),
        ("2", {"$gt": 1}, True),
        ("two", {"$gt": 1}, False),
        ("two", {"$lte": 1}, False),
        (None, {"$lt": 1}, False),
        ([2], {"$lt": 3}, False),
        (10**400, {"$gt": 1}, False),
        (None, {"$ne": 1}, True),
        ({"a": {"b": 1}}, {"a": {"b": 1}}, True),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, True),
        ({"a": {"b": 1, "c": 2}}, {"$eq": {"a": {"b": 1}}}, False),
        ("text", {"a": 1}, False),
        ([1, {"a": 2}], [1, {"a": {"$gte": 2}}], True),
        ([1, 2], [1], False),
    ],
)
def test_a_filter(found: Any, wanted: Any, expected: bool) -> None:
    assert meets(found, wanted) is expected
    assert meets_all({"field": found, "other": 0}, {"field": wanted}) is expected
    check_filter({"field": wanted})


@pytest.mark.parametrize("wanted", [{"$in": [1]}, {"$gt": 1, "a": 2}, {"a": [{"$or": 1}]}, [[{"b": {"$": 1}}]]])
def test_an_operator_that_there_is_not_says_which_there_are(wanted: Any) -> None:
    with pytest.raises(FilterError, match=r"\$gte"):
        check_filter({"field": wanted})


def test_a_path_is_a_beginning_or_an_end() -> None:
    assert namespace_matches(("a", "b", "c"), "prefix", ("a", "*"))
    assert not namespace_matches(("a", "b", "c"), "prefix", ("b",))
    assert namespace_matches(("a", "b", "c"), "suffix", ("*", "c"))
    assert not namespace_matches(("a",), "suffix", ("*", "a"))
    with pytest.raises(FilterError, match="middle"):
        namespace_matches(("a",), "middle", ("a",))


# Stored


def test_items_lie_in_the_one_collection_beside_messages(memory: MemoryManager, items: ItemMemory) -> None:
    ann = memory.for_scope("user:ann")
    [message] = ann.long_term.store_messages([Message("user", "I like red apples", id="k")])
    items.put_many([NewItem(("users", "ann", "notes"), "k", {"n": 1}, "green pears", 1.5), NewItem(("own",), "k", {})])
    client = memory.long_term.vectorstore.client
    points = {point.id: point.payload or {} for point in client.scroll("memory_integrations")[0]}
    assert len(points) == 3
    ours = points[item_id("user:ann", ("users", "ann", "notes"), "k")]
    order = ours["metadata"].pop("order")
    assert ours == {
        "page_content": "green pears",
        "metadata": {
            "scope": "user:ann",
            "kind": "item",
            "namespace": ["users", "ann", "notes"],
            "within": ["", "users", "users.ann", "users.ann.notes"],
            "key": "k",
            "value": '{"n": 1}',
            "created_at": "2024-05-01T12:00:00+00:00",
            "updated_at": "2024-05-01T12:00:00+00:00",
            "ttl": 1.5,
            "expires_at": "2024-05-01T12:01:30+00:00",
        },
    }
    own = points[item_id("store:global", ("own",), "k")]["metadata"]
    assert (own["scope"], own["store"]) == ("store:global", "store:global")
    assert points[message]["metadata"]["order"] < order < own["order"]


def test_a_store_of_many_users_reads_no_messages(memory: MemoryManager, items: ItemMemory) -> None:
    memory.for_scope("user:ann").add_turn("I like red apples", "Noted")
    memory.add_turn("Everybody likes red apples", "Quite so")
    items.put_many([NewItem(("users", "ann"), "k", {"n": 1}, "red apples")])
    assert [item.key for item in items.search((), "red apples")] == ["k"]
    assert [item.key for item in items.search(("users",))] == ["k"]
    assert items.namespaces() == [("users", "ann")]
    assert items.sweep() == 0


def test_deleting_says_how_many_there_were(items: ItemMemory) -> None:
    items.put_many(NewItem(("a",), str(number), {}) for number in range(5))
    assert items.delete_many([(("a",), "1"), (("a",), "4"), (("a",), "5"), (("b",), "1"), (("a",), "1")]) == 2
    assert items.delete_many([]) == 0
    assert [item.key for item in items.search(())] == ["0", "2", "3"]


def test_a_failed_batch_writes_nothing(items: ItemMemory) -> None:
    good = NewItem(("a",), "k", {})
    for bad in (NewItem(("a",), "b", {"x": {1}}), NewItem(("a",), "b", {}, ttl=1e30), NewItem(("a.b",), "b", {})):
        with pytest.raises((MessageError, ScopeError)):
            items.put_many([good, bad])
    assert items.get_many([(("a",), "k")]) == [None]


def test_refreshing_touches_only_what_was_read(items: ItemMemory, clock: Clock) -> None:
    """What was put anew without a time to live, or deleted, since it was read stays so."""
    names = [(("a",), key) for key in ("kept", "anew", "deleted")]
    items.put_many(NewItem(namespace, key, {}, ttl=1) for namespace, key in names)
    read = [item for item in items.get_many(names) if item]
    items.put_many([NewItem(("a",), "anew", {})])
    items.delete_many([(("a",), "deleted")])
    clock.advance(30)
    items.refresh(read)
    clock.advance(45)
    assert [item and item.key for item in items.get_many(names)] == ["kept", "anew", None]
    clock.advance(10**6)
    assert [item and item.key for item in items.get_many(names)] == [None, "anew", None]


def test_times_are_utc(memory: MemoryManager) -> None:
    """P30: whatever zone the clock tells."""
    from datetime import timezone

    there = timezone(timedelta(hours=9))
    items = ItemMemory(memory.long_term._collection, ItemScopes(USERS), lambda: datetime(2024, 5, 1, 8, tzinfo=there))
    items.put_many([NewItem(("a",), "k", {}, ttl=5)])
    [item] = items.search(())
    assert item.created_at == datetime(2024, 4, 30, 23, tzinfo=UTC)
    assert item.created_at.utcoffset() == timedelta(0)


def test_reembedding_keeps_items(tmp_path: Path) -> None:
    def opened(memory: MemoryManager) -> ItemMemory:
        return ItemMemory(memory.long_term._collection, ItemScopes(USERS))

    with MemoryManager(data_dir=tmp_path) as memory:
        opened(memory).put_many(
            [NewItem(("users", "ann"), "seen", {"n": 1}, "Häuser"), NewItem(("own",), "hidden", {"n": 2})]
        )
    with MemoryManager(data_dir=tmp_path, language="german") as memory:
        assert memory.long_term.reembed() == 2
        found = opened(memory).search((), "Haus")
        assert [(item.key, item.value, item.score is None) for item in found] == [
            ("seen", {"n": 1}, False),
            ("hidden", {"n": 2}, True),
        ]


def test_importing_items_loads_no_framework(run_python: Callable[..., Any]) -> None:
    done = run_python("import sys, memory_integrations.items\nprint(*{name.partition('.')[0] for name in sys.modules})")
    assert not {"langchain", "langchain_core", "langgraph", "llama_index", "qdrant_client", "numpy"} & set(
        done.stdout.split()
    )
