"""Namespaces of items, and whose an item is: pure functions and values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from uuid import UUID

from memory_integrations.errors import FilterError, ScopeError
from memory_integrations.messages import as_unicode
from memory_integrations.scopes import GLOBAL, MemoryScope

Namespace = tuple[str, ...]
"""Labels from the outermost to the innermost."""

KIND = "item"
"""What ``metadata.kind`` says of an item."""
USER, SESSION = "{user_id}", "{session_id}"
"""The labels of a template that stand for any user's and any session's identifier."""


_STORE = "store:"


def own_tag(owner: MemoryScope) -> str:
    """The tag of what the stores of an owner keep for themselves; no scope prints as it."""
    return f"{_STORE}{owner.tag}"


def owners_tag(tag: str) -> str:
    """The tag of the owner of what has a tag: of what stores keep for themselves, and of a scope's own memories."""
    return tag.removeprefix(_STORE)


class ItemScopes:
    """Which scope an item belongs to, by its namespace. Pure.

    A namespace that begins like the template belongs to the scope that its labels name; the user, where the template
    names none, is the manager's. Every other namespace is the store's own: its tag is ``store:`` and the tag of the
    manager's owner, which no scope prints as.

    A user's or a lone session's manager reaches only its own scope; the global manager reaches every one.

    Args:
        template: Labels that must be equal; ``{user_id}`` and ``{session_id}`` stand for any.
        scope: The manager's scope.

    Raises:
        ScopeError: The template is no sequence of labels, or a global manager's names neither a user nor a session: its
            items would be everybody's.
    """

    def __init__(self, template: Sequence[str], scope: MemoryScope = GLOBAL) -> None:
        if isinstance(template, str):
            raise ScopeError(f"namespace={template!r}: expected a tuple of labels, such as ('users', '{USER}').")
        self.template = tuple(template)
        self.owner = scope.owner
        self.own_tag = own_tag(self.owner)
        check_namespace(self.template)
        for label in self.template:
            if label not in (USER, SESSION) and ("{" in label or "}" in label):
                raise ScopeError(f"namespace label {label!r}: expected {USER}, {SESSION}, or text without braces.")
        if self.owner == GLOBAL and not {USER, SESSION} & set(self.template):
            raise ScopeError(
                f"namespace={self.template!r} names no user and the manager is global, so that everybody's search "
                f"would find what is put there. Expected a label {USER} or {SESSION}, or a manager of one user."
            )

    def of(self, namespace: Namespace) -> MemoryScope | None:
        """The scope that a namespace belongs to; None when it is the store's own.

        Raises:
            ScopeError: It belongs to a scope that this manager does not reach, or a label is not allowed.
        """
        check_namespace(namespace)
        scope = self._named(namespace)
        if scope is not None and self.owner not in (GLOBAL, scope.owner):
            raise ScopeError(
                f"The namespace {namespace!r} belongs to {scope.owner}, and this store to {self.owner}. Use a store of "
                f"{scope.owner}'s manager, or of a global one."
            )
        return scope

    def tag(self, namespace: Namespace) -> str:
        """The tag of a namespace's items; raises as :meth:`of` does."""
        return self._tag(self.of(namespace))

    def tags(self, prefix: Namespace) -> tuple[str, ...] | None:
        """The tags that items under a prefix may have; None when those of any scope. Raises as :meth:`of` does."""
        check_namespace(prefix)
        labels = _labels_like(self.template, prefix)
        if labels is None or len(prefix) >= len(self.template):
            return (self.tag(prefix),)
        if self.owner != GLOBAL:
            return self.owner.tag, self.own_tag
        if (USER if USER in self.template else SESSION) not in labels:
            return None
        return MemoryScope(labels.get(USER), labels.get(SESSION)).owner.tag, self.own_tag

    def holds(self, namespace: Namespace, tag: str) -> bool:
        """Whether a stored item is where this store would put it, and so where its own reading would find it.

        A store with another template may have put the same namespace elsewhere.
        """
        return self._tag(self._named(namespace)) == tag

    def _tag(self, scope: MemoryScope | None) -> str:
        return self.own_tag if scope is None else scope.owner.tag

    def _named(self, namespace: Namespace) -> MemoryScope | None:
        labels = _labels_like(self.template, namespace)
        if labels is None or len(namespace) < len(self.template):
            return None
        return MemoryScope(labels.get(USER, self.owner.user_id), labels.get(SESSION)) if labels else self.owner


def check_namespace(namespace: Sequence[str]) -> None:
    """See that labels can be stored and told apart.

    Raises:
        ScopeError: A label is empty, no text, or holds a period, a NUL or a lone surrogate.
    """
    if isinstance(namespace, str):
        raise ScopeError(f"namespace={namespace!r}: expected a tuple of labels, such as ('users', '123').")
    for label in namespace:
        if not isinstance(label, str) or not label or "." in label or "\0" in label or label != as_unicode(label):
            raise ScopeError(
                f"namespace={namespace!r}, label {label!r}: expected Unicode text that is not empty and holds neither "
                "a period nor a NUL."
            )


def namespace_matches(namespace: Namespace, end: str, path: Sequence[str]) -> bool:
    """Whether a namespace begins or ends with a path, in which ``*`` stands for any one label.

    Args:
        namespace: The namespace.
        end: "prefix" or "suffix".
        path: The path.

    Raises:
        FilterError: ``end`` is neither.
    """
    if end not in ("prefix", "suffix"):
        raise FilterError(f"match_type={end!r}: expected 'prefix' or 'suffix'.")
    if len(namespace) < len(path):
        return False
    labels = namespace[: len(path)] if end == "prefix" else namespace[len(namespace) - len(path) :]
    return all(expected in ("*", label) for expected, label in zip(path, labels, strict=True))


def _labels_like(template: Namespace, namespace: Namespace) -> dict[str, str] | None:
    """The labels that stand in the placeholders, as far as both go; None where other labels differ."""
    found: dict[str, str] = {}
    for expected, label in zip(template, namespace, strict=False):
        if (found.setdefault(expected, label) if expected in (USER, SESSION) else expected) != label:
            return None
    return found


def joined(namespace: Namespace) -> str:
    """A namespace as one text; labels hold no period."""
    return ".".join(namespace)


def item_id(tag: str, namespace: Namespace, key: str) -> str:
    """The id of an item's point: the same for the same item in the same scope, and for no other, nor any message."""
    identity = json.dumps([tag, namespace, key]).encode()
    return str(UUID(bytes=blake2b(identity, digest_size=16, person=b"item").digest(), version=4))
