"""LangGraph's store on the package's own collection: what agents and LangMem's tools keep persists, and is recalled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import Any, Literal

import langgraph.store.base as langgraph_store
from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    get_text_at_path,
)

from memory_integrations.errors import ScopeError
from memory_integrations.items import Item as StoredItem
from memory_integrations.items import ItemKey, ItemMemory, NewItem, as_object
from memory_integrations.langchain.identity import expect_memory
from memory_integrations.manager import MemoryManager
from memory_integrations.namespaces import ItemScopes, Namespace, check_namespace, namespace_matches

# The first releases of LangGraph 1 have no such function. check_namespace asks for the same; a later one may ask more.
_validate_op: Callable[[Op], None] | None = getattr(langgraph_store, "validate_op_namespace", None)


class MemoryStore(BaseStore):
    """A LangGraph ``BaseStore`` on a manager's memories, for ``create_agent(store=...)`` and LangMem's tools.

    **Whose an item is** its namespace says. One that begins like the template belongs to the scope that the template's
    placeholders name: with ``("users", "{user_id}")``, what is under ``("users", "123", "notes")`` is a memory of
    ``MemoryScope(user_id="123")``, found by that user's ``search_long_term`` and gone after that user's ``erase()``.
    Every other namespace is the store's own: no recall finds it. LangMem's usual ``("memories", "123")`` becomes the
    user's memory with ``namespace=("memories", "{user_id}")``.

    **Who reaches what**: a global manager's store reaches every user by their namespaces. The store of one user's
    manager reaches that user alone: another user's namespace raises a ``ScopeError``, and what lies above the
    placeholder (``search(())``) shows that user's items and the store's own. What another manager's store keeps for
    itself is never shown.

    **Searching** by a query is hybrid (BM25 and vectors), with scores in [0, 1]. Where it differs from
    ``InMemoryStore``: an item's indexed texts are one text, not a vector each; ``put`` again keeps ``created_at``;
    without a query items come in their order of arrival over all namespaces; a filter that compares what is no number
    is not met instead of raising; namespaces without items are not listed; and pages of a search never repeat items
    without text.

    **Expiring**: expired items are invisible at once, and deleted by :meth:`sweep_ttl`, which is yours to call.

    Args:
        memory: The manager; its clock decides what has expired.
        namespace: The template. ``{user_id}`` and ``{session_id}`` are whole labels.
        fields: The paths whose text a search sees, where a ``put`` gives no ``index``. None means ``["$"]``: the whole
            value as JSON, or, where its only field is a text, that text, which reads better in a prompt.
        default_ttl: Minutes after which an item expires, where a ``put`` gives no ``ttl``; None means never.
        refresh_on_read: Whether reading lets the time begin anew, where the call does not say.

    Raises:
        ScopeError: The template is malformed, or names no user while the manager is global.
    """

    supports_ttl = True

    def __init__(
        self,
        memory: MemoryManager,
        *,
        namespace: tuple[str, ...] = ("users", "{user_id}"),
        fields: list[str] | None = None,
        default_ttl: float | None = None,
        refresh_on_read: bool = True,
    ) -> None:
        expect_memory(memory)
        scopes = ItemScopes(namespace, memory.scope)
        self.ttl_config = TTLConfig(refresh_on_read=refresh_on_read, omit_expired=True, default_ttl=default_ttl)
        self._fields = ["$"] if fields is None else list(fields)
        self._items = ItemMemory(memory._open.memories, scopes, memory._open.clock)

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Carry operations out: first all that read, then the writes; of several writes of one key the last.

        Returns:
            A result for each, in order.

        Raises:
            InvalidNamespaceError: A namespace is malformed. Nothing was written.
            MessageError: A value is not JSON, or a time to live no time. Nothing was written.
            ScopeError: A namespace is another user's. Nothing was written.
            StoreError: The store cannot be read or written.
        """
        ops = list(ops)
        writes: dict[ItemKey, NewItem | None] = {}
        for op in ops:
            self._check(op)
            if isinstance(op, PutOp):
                writes[tuple(op.namespace), op.key] = None if op.value is None else self._new(op)
        results, read = self._read(ops)
        self._items.put_many(item for item in writes.values() if item is not None)
        self._items.delete_many(name for name, item in writes.items() if item is None)
        self._items.refresh(read)  # a write too: not before it is sure that all may be done
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Async twin of :meth:`batch`, in a thread."""
        return await asyncio.to_thread(self.batch, list(ops))

    def sweep_ttl(self) -> int:
        """Delete expired items, physically; returns how many there were.

        Raises:
            StoreError: They could not be deleted.
        """
        return self._items.sweep()

    async def asweep_ttl(self) -> int:
        """Async twin of :meth:`sweep_ttl`."""
        return await asyncio.to_thread(self.sweep_ttl)

    # Inside

    def _check(self, op: Op) -> None:
        """See that an operation may be carried out, before any is.

        Raises:
            InvalidNamespaceError: Its namespace is malformed.
            ScopeError: It is for one item, in another user's namespace.
        """
        if not isinstance(op, GetOp | PutOp | SearchOp | ListNamespacesOp):
            raise ValueError(f"{op!r:.80}: expected a GetOp, PutOp, SearchOp or ListNamespacesOp.")
        if _validate_op is not None:
            _validate_op(op)
        for namespace in _namespaces_of(op):
            try:
                check_namespace(namespace)
            except ScopeError as error:
                raise InvalidNamespaceError(str(error)) from error
        if isinstance(op, PutOp) and op.value is not None and not op.namespace:
            raise InvalidNamespaceError(f"namespace=() for the key {op.key!r}: expected one label or more.")
        if isinstance(op, GetOp | PutOp):
            self._items.scopes.of(op.namespace)

    def _new(self, op: PutOp) -> NewItem:
        """What a put asks to be stored."""
        value = as_object(op.value, f"The value of {op.key!r} in {op.namespace!r}")
        return NewItem(tuple(op.namespace), op.key, value, self._text(value, op.index), op.ttl)

    def _text(self, value: dict[str, Any], index: Literal[False] | list[str] | None) -> str:
        """What a search sees of a value: the texts at its indexed paths, a line each; nothing when there are none."""
        if index is False:
            return ""
        paths = self._fields if index is None else index
        return "\n".join(text for path in paths for text in _texts_at(value, path))

    def _read(self, ops: Sequence[Op]) -> tuple[list[Result], list[StoredItem]]:
        """The results of operations (a write has none), and the items that were read so that they shall live longer."""
        results: list[Result] = []
        touched: list[StoredItem] = []
        got = iter(self._items.get_many([(op.namespace, op.key) for op in ops if isinstance(op, GetOp)]))
        for op in ops:
            if isinstance(op, GetOp):
                item = next(got)
                results.append(None if item is None else _item(item))
                touched += [item] if item is not None and op.refresh_ttl else []
            elif isinstance(op, SearchOp):
                found = self._items.search(op.namespace_prefix, op.query, op.filter, op.limit, op.offset)
                results.append([_search_item(item) for item in found])
                touched += found if op.refresh_ttl else []
            elif isinstance(op, ListNamespacesOp):
                results.append(self._listed(op))
            else:
                results.append(None)
        return results, touched

    def _listed(self, op: ListNamespacesOp) -> list[Namespace]:
        """The namespaces that meet an operation's conditions, sorted."""
        conditions = op.match_conditions or ()
        prefixes = [_literal(condition.path) for condition in conditions if condition.match_type == "prefix"]
        found = {
            namespace[: op.max_depth]
            for namespace in self._items.namespaces(max(prefixes, key=len, default=()))
            if all(namespace_matches(namespace, condition.match_type, condition.path) for condition in conditions)
        }
        return sorted(found)[op.offset : op.offset + op.limit]


def _namespaces_of(op: Op) -> list[Namespace]:
    """The namespaces that an operation carries, those of conditions with their wildcards."""
    if isinstance(op, GetOp | PutOp):
        return [op.namespace]
    if isinstance(op, SearchOp):
        return [op.namespace_prefix]
    return [condition.path for condition in op.match_conditions or ()]


def _literal(path: Namespace) -> Namespace:
    """The labels of a path before its first wildcard."""
    return tuple(takewhile(lambda label: label != "*", path))


def _texts_at(value: dict[str, Any], path: str) -> list[str]:
    """The texts at a path; the whole of a value that is one text is that text."""
    if path == "$" and len(value) == 1:
        [only] = value.values()
        if isinstance(only, str):
            return [only]
    return get_text_at_path(value, path)


def _item(item: StoredItem) -> Item:
    return Item(
        value=item.value,
        key=item.key,
        namespace=item.namespace,
        created_at=item.created_at,
        updated_at=item.updated_at,
    )


def _search_item(item: StoredItem) -> SearchItem:
    return SearchItem(item.namespace, item.key, item.value, item.created_at, item.updated_at, item.score)
