"""What every LangGraph store promises, as tests that a store inherits.

A store passes with a few lines::

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def store(self) -> Iterator[BaseStore]:
            yield MyStore(...)

The promises are those of LangGraph's documentation. Where its ``InMemoryStore`` does otherwise, a flag of the class
says so; a store of ours keeps the flags as they are here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchItem,
    SearchOp,
)
from strategies import Clock

DOCS = ("docs",)
FRUIT = {
    "apple": {"text": "red apples from the orchard", "price": 3, "tags": {"kind": "fruit", "ripe": True}},
    "pear": {"text": "green pears in a basket", "price": 5.5, "tags": {"kind": "fruit", "ripe": False}},
    "lamp": {"text": "a reading lamp for the desk", "price": 40, "tags": {"kind": "furniture"}},
    "note": {"text": "a note without a price", "tags": None},
}
PATHS = [
    ("a", "b", "c"),
    ("a", "b", "d", "e"),
    ("a", "b", "d", "i"),
    ("a", "b", "f"),
    ("a", "c", "f"),
    ("b", "a", "f"),
    ("users", "123", "v1"),
    ("users", "456", "v1"),
    ("users", "456", "v2"),
]
BAD_NAMESPACES: list[Any] = [("a.b",), ("",), ("a", ""), ("a", 1), ("a", "b", "c.d")]


def keys(found: list[SearchItem]) -> list[str]:
    return [item.key for item in found]


class StoreConformance:
    """Inherit, and give the store."""

    keeps_created_at = True
    """A value that is put again was created when it was first put (``Item.created_at``: "of item creation")."""
    forgets_empty_namespaces = True
    """A namespace in which nothing is left is not listed."""
    compares_anything = True
    """A filter that compares what is no number is not met; it raises nothing."""
    checks_batches = True
    """What is given straight to ``batch`` is checked as the methods check it."""

    checks_reading = True
    """Reading, deleting and listing refuse a malformed namespace as putting does."""
    keeps_its_values = True
    """What a caller does to a mapping after it was put changes nothing."""

    @pytest.fixture
    def store(self) -> Iterator[BaseStore]:
        """An empty store, with an index on whole values."""
        raise NotImplementedError

    @pytest.fixture
    def fruit(self, store: BaseStore) -> BaseStore:
        """The store with four documents."""
        for key, value in FRUIT.items():
            store.put(DOCS, key, value)
        return store

    @pytest.fixture
    def paths(self, store: BaseStore) -> BaseStore:
        """The store with an item in each of nine namespaces."""
        store.batch([PutOp(path, "k", {"n": number}) for number, path in enumerate(PATHS)])
        return store

    # Getting, putting, deleting

    def test_what_was_put_is_got(self, store: BaseStore) -> None:
        assert store.get(DOCS, "a") is None
        assert store.put(DOCS, "a", {"n": 1}) is None
        item = store.get(DOCS, "a")
        assert isinstance(item, Item)
        assert (item.namespace, item.key, item.value) == (DOCS, "a", {"n": 1})
        assert item.created_at <= item.updated_at
        assert item.created_at.tzinfo is not None

    @pytest.mark.parametrize(
        "value",
        [
            {},
            {"text": "漢字 🎻 \0 \n {x} \" ' </memory:recalled>", "": "", "a.b": {"$gt": 1}},
            {"none": None, "true": True, "zero": 0, "float": 0.1 + 0.2, "tiny": 5e-324, "minus": -0.0},
            {"big": 2**80, "negative": -(2**70), "exact": 9007199254740993},
            {"nested": {"list": [1, [2, {"three": [None, False]}], {}], "deep": {"deeper": {"deepest": 1}}}},
            {"long": "x" * 100_000},
            {"z": 1, "a": 2, "m": 3},
        ],
        ids=["empty", "text", "scalars", "integers", "nested", "long", "order"],
    )
    def test_values_come_back_equal(self, store: BaseStore, value: dict[str, Any]) -> None:
        store.put(DOCS, "a", value)
        [found] = store.search(DOCS)
        got = store.get(DOCS, "a")
        assert got is not None
        assert got.value == found.value == value
        assert repr(got.value) == repr(value)

    def test_putting_again_replaces(self, store: BaseStore) -> None:
        store.put(DOCS, "a", {"n": 1, "gone": True})
        first = store.get(DOCS, "a")
        store.put(DOCS, "a", {"n": 2})
        second = store.get(DOCS, "a")
        assert first is not None
        assert second is not None
        assert second.value == {"n": 2}
        assert second.updated_at >= first.updated_at
        if self.keeps_created_at:
            assert second.created_at == first.created_at
        assert len(store.search(DOCS)) == 1

    def test_what_is_deleted_is_gone(self, fruit: BaseStore) -> None:
        fruit.delete(DOCS, "apple")
        fruit.delete(DOCS, "apple")
        fruit.delete(("nowhere",), "apple")
        assert fruit.get(DOCS, "apple") is None
        assert keys(fruit.search(DOCS)) == ["pear", "lamp", "note"]
        assert "apple" not in keys(fruit.search(DOCS, query="red apples"))

    def test_keys_and_namespaces_are_told_apart(self, store: BaseStore) -> None:
        names = [(("a",), "b"), (("a", "b"), "b"), (("a", "b"), ""), (("A",), "b"), (("a",), "B"), (("a b",), "b c")]
        names += [(("a:b",), "c"), (("a",), ":bc"), (("*",), "b"), (("a", "*"), "b"), (("ä/ö",), "../x\0y")]
        for number, (namespace, key) in enumerate(names):
            store.put(namespace, key, {"n": number})
        values = [item and item.value for item in (store.get(namespace, key) for namespace, key in names)]
        assert values == [{"n": number} for number in range(len(names))]

    def test_a_caller_changes_only_its_own_copy(self, store: BaseStore) -> None:
        if not self.keeps_its_values:
            pytest.skip("it stores the caller's own mapping")
        given = {"n": 1}
        store.put(DOCS, "a", given)
        given["n"] = 2
        item = store.get(DOCS, "a")
        assert item is not None
        assert item.value == {"n": 1}

    @pytest.mark.parametrize("namespace", BAD_NAMESPACES, ids=repr)
    def test_a_malformed_namespace_is_refused(self, store: BaseStore, namespace: Any) -> None:
        with pytest.raises(InvalidNamespaceError):
            store.put(namespace, "k", {})
        if not self.checks_reading:
            pytest.skip("reading takes any namespace")
        for call in (
            lambda: store.get(namespace, "k"),
            lambda: store.delete(namespace, "k"),
            lambda: store.search(namespace),
            lambda: store.list_namespaces(prefix=namespace),
            lambda: store.list_namespaces(suffix=namespace),
        ):
            with pytest.raises(InvalidNamespaceError):
                call()

    def test_putting_needs_a_namespace_that_is_not_reserved(self, store: BaseStore) -> None:
        for namespace in ((), ("langgraph", "a")):
            with pytest.raises(InvalidNamespaceError):
                store.put(namespace, "k", {})

    @pytest.mark.parametrize("namespace", BAD_NAMESPACES, ids=repr)
    def test_a_malformed_namespace_in_a_batch_is_refused_and_nothing_is_written(
        self, store: BaseStore, namespace: Any
    ) -> None:
        if not self.checks_batches:
            pytest.skip("batch takes any namespace")
        for op in (
            GetOp(namespace, "k"),
            PutOp(namespace, "k", {}),
            PutOp(namespace, "k", None),
            SearchOp(namespace),
            ListNamespacesOp((MatchCondition("prefix", namespace),)),
            ListNamespacesOp((MatchCondition("suffix", namespace),)),
        ):
            with pytest.raises(InvalidNamespaceError):
                store.batch([PutOp(DOCS, "good", {}), op])
        assert store.search(()) == []

    def test_an_operation_of_another_kind_is_refused(self, store: BaseStore) -> None:
        with pytest.raises(ValueError):
            store.batch(["get"])  # type: ignore[list-item]

    # Searching without a query

    def test_a_prefix_finds_what_is_in_it_and_below(self, store: BaseStore) -> None:
        for number, namespace in enumerate([("a",), ("a", "b"), ("a", "b", "c"), ("ab",), ("b", "a")]):
            store.put(namespace, "k", {"n": number})
        found = {prefix: [i.value["n"] for i in store.search(prefix)] for prefix in [(), ("a",), ("a", "b"), ("c",)]}
        assert found == {(): [0, 1, 2, 3, 4], ("a",): [0, 1, 2], ("a", "b"): [1, 2], ("c",): []}

    def test_a_search_says_whole_items(self, fruit: BaseStore) -> None:
        found = fruit.search(DOCS)[0]
        item = fruit.get(DOCS, "apple")
        assert isinstance(found, SearchItem)
        assert item is not None
        assert {**found.dict(), "score": ...} == {**item.dict(), "score": ...}
        assert found.score is None

    def test_pages_are_stable_and_complete(self, store: BaseStore) -> None:
        store.batch([PutOp(DOCS, f"k{number}", {"n": number}) for number in range(25)])
        pages = [store.search(DOCS, limit=7, offset=offset) for offset in range(0, 35, 7)]
        assert [len(page) for page in pages] == [7, 7, 7, 4, 0]
        assert [item.value["n"] for page in pages for item in page] == list(range(25))
        assert len(store.search(DOCS)) == 10
        assert store.search(DOCS, limit=0) == []

    def test_an_update_keeps_its_place_and_what_is_put_back_comes_last(self, fruit: BaseStore) -> None:
        fruit.put(DOCS, "apple", {"text": "none left"})
        assert keys(fruit.search(DOCS)) == ["apple", "pear", "lamp", "note"]
        fruit.delete(DOCS, "apple")
        fruit.put(DOCS, "apple", {"text": "some again"})
        assert keys(fruit.search(DOCS)) == ["pear", "lamp", "note", "apple"]

    @pytest.mark.parametrize(
        ("where", "expected"),
        [
            ({}, "apple pear lamp note"),
            ({"price": 3}, "apple"),
            ({"price": 3.0}, "apple"),
            ({"price": "3"}, ""),
            ({"price": {"$eq": 5.5}}, "pear"),
            ({"price": {"$ne": 5.5}}, "apple lamp note"),
            ({"price": None}, "note"),
            ({"unknown": None}, "apple pear lamp note"),
            ({"text": "a reading lamp for the desk"}, "lamp"),
            ({"tags": {"kind": "fruit"}}, "apple pear"),
            ({"tags": {"kind": "fruit", "ripe": True}}, "apple"),
            ({"tags": {"kind": {"$ne": "fruit"}}}, "lamp"),
            ({"tags": {"kind": "fruit", "ripe": {"$eq": False}}}, "pear"),
            ({"tags": {"$eq": {"kind": "furniture"}}}, "lamp"),
            ({"tags": {}}, "apple pear lamp"),
            ({"price": 3, "tags": {"kind": "furniture"}}, ""),
        ],
        ids=str,
    )
    def test_filters(self, fruit: BaseStore, where: dict[str, Any], expected: str) -> None:
        assert keys(fruit.search(DOCS, filter=where)) == expected.split()

    @pytest.mark.parametrize(
        ("where", "expected"),
        [
            ({"price": {"$gt": 5.5}}, "lamp"),
            ({"price": {"$gte": 5.5}}, "pear lamp"),
            ({"price": {"$lt": 5.5}}, "apple"),
            ({"price": {"$lte": 5.5}}, "apple pear"),
            ({"price": {"$gt": 3, "$lt": 40}}, "pear"),
            ({"price": {"$gt": "3"}}, "pear lamp"),
        ],
        ids=str,
    )
    def test_filters_that_compare(self, fruit: BaseStore, where: dict[str, Any], expected: str) -> None:
        if not self.compares_anything:
            fruit.delete(DOCS, "note")
        assert keys(fruit.search(DOCS, filter=where)) == expected.split()

    def test_what_is_no_number_is_neither_more_nor_less(self, fruit: BaseStore) -> None:
        if not self.compares_anything:
            pytest.skip("a filter raises on what is no number")
        for operator in ("$gt", "$gte", "$lt", "$lte"):
            assert fruit.search(DOCS, filter={"text": {operator: 1}}) == []
            assert fruit.search(DOCS, filter={"tags": {operator: 1}}) == []
            assert fruit.search(DOCS, filter={"price": {operator: "a lot"}}) == []
            assert fruit.search(DOCS, filter={"price": {operator: None}}) == []

    def test_lists_must_meet_one_by_one(self, store: BaseStore) -> None:
        store.put(DOCS, "a", {"list": [1, "two", {"three": 3, "more": 4}]})
        assert keys(store.search(DOCS, filter={"list": [1, "two", {"three": {"$gt": 2}}]})) == ["a"]
        assert store.search(DOCS, filter={"list": [1, "two"]}) == []
        assert store.search(DOCS, filter={"list": [2, "two", {"three": 3}]}) == []

    def test_an_operator_that_there_is_not_raises(self, fruit: BaseStore) -> None:
        with pytest.raises(ValueError, match=r"\$in"):
            fruit.search(DOCS, filter={"price": {"$in": [3]}})

    def test_a_filter_comes_before_the_page(self, store: BaseStore) -> None:
        store.batch([PutOp(DOCS, f"k{number}", {"n": number, "even": number % 2 == 0}) for number in range(60)])
        found = store.search(DOCS, filter={"even": True}, limit=5, offset=10)
        assert [item.value["n"] for item in found] == [20, 22, 24, 26, 28]

    # Searching with a query

    def test_a_query_finds_the_best_first(self, fruit: BaseStore) -> None:
        found = fruit.search(DOCS, query="red apples from the orchard")
        assert found[0].key == "apple"
        scores = [item.score for item in found]
        assert all(score is not None for score in scores)
        assert scores == sorted(scores, key=lambda score: -(score or 0))
        assert sorted(keys(found)) == sorted(FRUIT)

    def test_pages_of_a_query_are_its_result(self, store: BaseStore) -> None:
        store.batch([PutOp(DOCS, f"k{number}", {"text": f"apples of kind {number}"}) for number in range(30)])
        whole = keys(store.search(DOCS, query="kinds of apples", limit=100))
        pages = [store.search(DOCS, query="kinds of apples", limit=8, offset=offset) for offset in range(0, 32, 8)]
        assert [key for page in pages for key in keys(page)] == whole
        assert sorted(whole) == sorted(f"k{number}" for number in range(30))

    def test_a_query_stays_under_its_prefix(self, fruit: BaseStore) -> None:
        fruit.put(("docs", "more"), "cider", {"text": "cider from red apples"})
        fruit.put(("other",), "juice", {"text": "juice of red apples"})
        assert {"apple", "cider"} <= set(keys(fruit.search(DOCS, query="red apples")))
        assert "juice" not in keys(fruit.search(DOCS, query="red apples"))
        assert keys(fruit.search(("docs", "more"), query="red apples")) == ["cider"]

    def test_a_filter_meets_what_only_a_far_hit_meets(self, store: BaseStore) -> None:
        """What a query likes best and the filter leaves out takes no place: 400 such items hide nothing."""
        store.batch(
            [PutOp(DOCS, f"k{number}", {"text": f"red apples {number}", "good": False}) for number in range(400)]
        )
        store.put(DOCS, "far", {"text": "a reading lamp", "good": True})
        assert keys(store.search(DOCS, query="red apples", filter={"good": True}, limit=3)) == ["far"]

    def test_what_is_not_indexed_comes_last_without_a_score(self, fruit: BaseStore) -> None:
        fruit.put(DOCS, "hidden", {"text": "red apples from the orchard"}, index=False)
        found = fruit.search(DOCS, query="red apples from the orchard", limit=10)
        assert (found[0].key, found[-1].key, found[-1].score) == ("apple", "hidden", None)
        assert "hidden" not in keys(fruit.search(DOCS, query="red apples from the orchard", limit=4))

    def test_an_index_says_which_fields_are_seen(self, store: BaseStore) -> None:
        store.put(
            DOCS, "a", {"title": "violins", "body": {"parts": [{"text": "drums"}, {"text": "trumpets"}]}}, ["title"]
        )
        store.put(DOCS, "b", {"title": "drums", "body": {"parts": [{"text": "violins"}]}}, ["body.parts[*].text"])
        store.put(DOCS, "c", {"title": "violins"}, ["unknown"])
        assert keys(store.search(DOCS, query="violins", limit=2)) in (["a", "b"], ["b", "a"])
        found = {item.key: item.score for item in store.search(DOCS, query="drums")}
        assert found["c"] is None
        assert found["a"] == pytest.approx(found["b"], abs=0.2)

    def test_a_query_of_nothing_is_none(self, fruit: BaseStore) -> None:
        assert keys(fruit.search(DOCS, query="")) == list(FRUIT)
        assert fruit.search(("nowhere",), query="apples") == []

    # Batches

    def test_results_come_in_the_order_of_the_operations(self, fruit: BaseStore) -> None:
        results = fruit.batch(
            [
                GetOp(DOCS, "lamp"),
                PutOp(DOCS, "new", {}),
                SearchOp(DOCS, limit=1),
                GetOp(DOCS, "nothing"),
                ListNamespacesOp(),
                GetOp(DOCS, "apple"),
                SearchOp(DOCS, query="green pears", limit=1),
            ]
        )
        lamp, put, first, nothing, namespaces, apple, pears = results
        assert isinstance(lamp, Item)
        assert isinstance(apple, Item)
        assert (lamp.key, put, nothing, namespaces, apple.key) == ("lamp", None, None, [DOCS], "apple")
        assert [keys(found) for found in (first, pears)] == [["apple"], ["pear"]]  # type: ignore[arg-type]
        assert fruit.batch([]) == []

    def test_reading_sees_what_was_there_before_the_batch(self, fruit: BaseStore) -> None:
        writes = [PutOp(DOCS, "new", {"n": 1}), PutOp(DOCS, "apple", {"n": 2}), PutOp(DOCS, "lamp", None)]
        reads = [SearchOp(DOCS), GetOp(DOCS, "apple"), GetOp(DOCS, "new"), GetOp(DOCS, "lamp")]
        found, apple, new, lamp = fruit.batch([*writes, *reads])[3:]
        assert keys(found) == list(FRUIT)  # type: ignore[arg-type]
        assert isinstance(apple, Item)
        assert isinstance(lamp, Item)
        assert (apple.value, new) == (FRUIT["apple"], None)
        assert keys(fruit.search(DOCS)) == ["apple", "pear", "note", "new"]

    def test_the_last_write_of_a_key_wins(self, store: BaseStore) -> None:
        store.put(DOCS, "deleted", {"n": 0})
        store.batch(
            [
                PutOp(DOCS, "a", {"n": 1}),
                PutOp(DOCS, "b", {"n": 1}),
                PutOp(DOCS, "a", {"n": 2}),
                PutOp(DOCS, "b", None),
                PutOp(DOCS, "c", None),
                PutOp(DOCS, "c", {"n": 3}),
                PutOp(DOCS, "deleted", {"n": 4}),
                PutOp(DOCS, "deleted", None),
            ]
        )
        assert {item.key: item.value["n"] for item in store.search(DOCS)} == {"a": 2, "c": 3}

    def test_many_at_once(self, store: BaseStore) -> None:
        store.batch([PutOp((f"n{number % 7}",), f"k{number}", {"n": number}) for number in range(600)])
        assert len(store.search((), limit=1000)) == 600
        got = store.batch([GetOp((f"n{number % 7}",), f"k{number}") for number in range(600)])
        assert [item.value["n"] for item in got] == list(range(600))  # type: ignore[union-attr]

    # Namespaces

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({}, PATHS),
            ({"prefix": ("a", "b")}, PATHS[:4]),
            ({"prefix": ("a", "b"), "max_depth": 3}, [("a", "b", "c"), ("a", "b", "d"), ("a", "b", "f")]),
            ({"max_depth": 1}, [("a",), ("b",), ("users",)]),
            ({"suffix": ("f",)}, [("a", "b", "f"), ("a", "c", "f"), ("b", "a", "f")]),
            ({"prefix": ("a",), "suffix": ("f",)}, [("a", "b", "f"), ("a", "c", "f")]),
            ({"prefix": ("users", "*", "v1")}, [("users", "123", "v1"), ("users", "456", "v1")]),
            ({"prefix": ("*", "b")}, PATHS[:4]),
            ({"suffix": ("456", "*")}, [("users", "456", "v1"), ("users", "456", "v2")]),
            ({"suffix": ("*", "*", "*", "*")}, PATHS[1:3]),
            ({"prefix": ("a", "b", "c", "d")}, []),
            ({"prefix": ("nowhere",)}, []),
            ({"limit": 2}, PATHS[:2]),
            ({"limit": 2, "offset": 8}, PATHS[8:]),
            ({"max_depth": 2, "limit": 2, "offset": 1}, [("a", "c"), ("b", "a")]),
        ],
        ids=str,
    )
    def test_namespaces_are_listed(
        self, paths: BaseStore, options: dict[str, Any], expected: list[tuple[str, ...]]
    ) -> None:
        assert paths.list_namespaces(**options) == expected

    def test_every_page_of_namespaces_is_read(self, store: BaseStore) -> None:
        """P29: none of 350 namespaces is lost at a page's end."""
        store.batch([PutOp(("many", f"n{number:03}", "x"), "k", {"n": number}) for number in range(350)])
        assert len(store.list_namespaces(limit=1000)) == 350
        pages = [store.list_namespaces(prefix=("many",), max_depth=2, offset=offset) for offset in range(0, 400, 100)]
        assert [namespace for page in pages for namespace in page] == [
            ("many", f"n{number:03}") for number in range(350)
        ]

    def test_a_namespace_in_which_nothing_is_left_is_not_listed(self, paths: BaseStore) -> None:
        if not self.forgets_empty_namespaces:
            pytest.skip("namespaces stay, and reading makes some")
        assert paths.get(("looked", "at"), "k") is None
        paths.delete(("a", "c", "f"), "k")
        assert paths.list_namespaces() == [path for path in PATHS if path != ("a", "c", "f")]

    # Async

    async def test_the_async_twins_do_the_same(self, store: BaseStore) -> None:
        for key, value in FRUIT.items():
            await store.aput(DOCS, key, value)
        await store.adelete(DOCS, "lamp")
        item = await store.aget(DOCS, "apple")
        assert item is not None
        assert item.value == FRUIT["apple"]
        assert keys(await store.asearch(DOCS)) == ["apple", "pear", "note"]
        assert keys(await store.asearch(DOCS, query="green pears", limit=1)) == ["pear"]
        assert keys(await store.asearch(DOCS, filter={"price": 3})) == ["apple"]
        assert await store.alist_namespaces(prefix=("docs",)) == [DOCS]
        apple, put, found = await store.abatch([GetOp(DOCS, "apple"), PutOp(DOCS, "new", {}), SearchOp(DOCS)])
        assert isinstance(apple, Item)
        assert (apple.key, put, len(found)) == ("apple", None, 3)  # type: ignore[arg-type]
        with pytest.raises(InvalidNamespaceError):
            await store.aput((), "k", {})

    # Expiring

    def test_a_time_to_live_is_refused_where_nothing_expires(self, store: BaseStore) -> None:
        if store.supports_ttl:
            pytest.skip("what a time to live does is tested below")
        with pytest.raises(NotImplementedError):
            store.put(DOCS, "a", {}, ttl=1)

    @pytest.fixture
    def expiring(self, store: BaseStore) -> BaseStore:
        """The store with an item that expires after ten minutes, and one that does not."""
        if not store.supports_ttl:
            pytest.skip("nothing expires")
        store.put(("brief",), "a", {"text": "red apples"}, ttl=10)
        store.put(DOCS, "b", {"text": "green pears"}, ttl=None)
        return store

    def test_what_has_expired_is_invisible_at_once(self, expiring: BaseStore, clock: Clock) -> None:
        clock.advance(10 * 60 - 1)
        assert expiring.get(("brief",), "a", refresh_ttl=False) is not None
        assert keys(expiring.search((), query="red apples", refresh_ttl=False)) == ["a", "b"]
        clock.advance(1)
        assert expiring.get(("brief",), "a") is None
        assert keys(expiring.search(())) == ["b"]
        assert keys(expiring.search((), query="red apples")) == ["b"]
        assert expiring.list_namespaces() == [DOCS]

    def test_reading_lets_the_time_begin_anew_unless_it_says_otherwise(self, expiring: BaseStore, clock: Clock) -> None:
        for read in (
            lambda: expiring.get(("brief",), "a"),
            lambda: expiring.search(("brief",)),
            lambda: expiring.search((), query="apples"),
        ):
            clock.advance(9 * 60)
            assert read()
        clock.advance(9 * 60)
        assert expiring.search((), refresh_ttl=False)
        assert expiring.list_namespaces(prefix=("brief",))
        clock.advance(60)
        assert expiring.get(("brief",), "a") is None

    def test_only_what_a_search_gives_lives_longer(self, expiring: BaseStore, clock: Clock) -> None:
        expiring.put(("brief",), "second", {"text": "blue plums"}, ttl=10)
        clock.advance(5 * 60)
        assert keys(expiring.search(("brief",), query="blue plums", limit=1)) == ["second"]
        clock.advance(6 * 60)
        assert keys(expiring.search(("brief",))) == ["second"]

    def test_putting_again_begins_anew_or_ends_it(self, expiring: BaseStore, clock: Clock) -> None:
        clock.advance(9 * 60)
        expiring.put(("brief",), "a", {"n": 2}, ttl=10)
        clock.advance(9 * 60)
        assert expiring.get(("brief",), "a", refresh_ttl=False) is not None
        expiring.put(("brief",), "a", {"n": 3}, ttl=None)
        clock.advance(10**7)
        assert expiring.get(("brief",), "a") is not None

    def test_what_is_put_after_it_expired_is_new(self, expiring: BaseStore, clock: Clock) -> None:
        expiring.put(("brief",), "second", {"n": 1})
        clock.advance(11 * 60)
        expiring.put(("brief",), "a", {"n": 2}, ttl=10)
        item = expiring.get(("brief",), "a")
        assert item is not None
        assert item.created_at == item.updated_at
        assert keys(expiring.search(("brief",))) == ["second", "a"]
