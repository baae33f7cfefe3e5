"""Who a memory belongs to: everybody, a user, a session, or a user's session.

A scope reads what its lineage holds, nearest first (session, user, global), and writes durable memories
(facts, long-term) to its :attr:`~MemoryScope.owner`, so that what was learnt in one session is known in the
user's next one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b
from urllib.parse import quote, unquote

from memory_integrations.errors import ScopeError

_SESSION = "/session:"
_EXPECTED = "'global', 'user:ID', 'session:ID' or 'user:ID/session:ID'"


@dataclass(frozen=True, slots=True)
class MemoryScope:
    """A user, a session, both, or (with neither) everybody.

    Identifiers are case-sensitive and any non-empty Unicode text. They never reach a path or a filter
    unencoded: see :attr:`storage_key` and :attr:`tag`.

    Args:
        user_id: The user, or None.
        session_id: The session (also called thread or conversation), or None.

    Raises:
        ScopeError: An identifier is empty, not a string, or not encodable Unicode.
    """

    user_id: str | None = None
    session_id: str | None = None

    def __post_init__(self) -> None:
        for name, value in (("user_id", self.user_id), ("session_id", self.session_id)):
            if value is None:
                continue
            if not isinstance(value, str) or not value:
                raise ScopeError(
                    f"{name}={value!r}: expected a non-empty string. Pass the id as text, or leave it out."
                )
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ScopeError(f"{name}={value!r} holds a lone surrogate, which is no Unicode text.") from None

    @classmethod
    def parse(cls, scope: str | MemoryScope) -> MemoryScope:
        """Read a scope's printed form; a :class:`MemoryScope` passes through.

        Nothing is decoded in the plain form, so ``user:%2F`` and ``user:/`` stay two users. For identifiers
        that come from outside prefer ``MemoryScope(user_id=..., session_id=...)``: there no text inside an
        identifier can be read as structure.

        Args:
            scope: ``global``, ``user:ID``, ``session:ID`` or ``user:ID/session:ID``; or, where a user's
                identifier itself holds ``/session:``, the percent-encoded ``user=ID/session=ID``.

        Raises:
            ScopeError: The text is none of these, or could be read in two ways.
        """
        if isinstance(scope, MemoryScope):
            return scope
        if not isinstance(scope, str):
            raise ScopeError(f"scope={scope!r}: expected {_EXPECTED}, or a MemoryScope.")
        if scope == "global":
            return GLOBAL
        kind, colon, rest = scope.partition(":")
        if colon and kind == "session":
            return cls(session_id=rest)
        if colon and kind == "user":
            user, *sessions = rest.split(_SESSION)
            if len(sessions) > 1:
                raise ScopeError(
                    f"scope={scope!r} can be read in two ways. Use MemoryScope(user_id=..., session_id=...)."
                )
            return cls(user, sessions[0] if sessions else None)
        if encoded := re.fullmatch(r"user=([^/]+)(?:/session=([^/]+))?", scope):
            try:
                user, session = (part and unquote(part, errors="strict") for part in encoded.groups())
            except UnicodeDecodeError:
                raise ScopeError(f"scope={scope!r}: its percent codes are no UTF-8 text.") from None
            return cls(user, session)
        raise ScopeError(f"scope={scope!r}: expected {_EXPECTED}.")

    def __str__(self) -> str:
        """The form that :meth:`parse` reads back to an equal scope."""
        user, session = self.user_id, self.session_id
        if user is None:
            return "global" if session is None else f"session:{session}"
        if _SESSION in user or (session is not None and _SESSION in f"/{session}"):
            return f"user={quote(user, safe='')}" + (f"/session={quote(session, safe='')}" if session else "")
        return f"user:{user}" + (f"{_SESSION}{session}" if session else "")

    @property
    def tag(self) -> str:
        """The value that a Qdrant payload carries for this scope; distinct scopes have distinct tags."""
        return str(self)

    @property
    def storage_key(self) -> str:
        """A file name for this scope: at most 64 ASCII characters, no separator, distinct for distinct scopes.

        A readable beginning and 128 bits of BLAKE2b over the tag, so that case-insensitive file systems,
        reserved names and very long identifiers all work.
        """
        tag = str(self)
        readable = re.sub(r"[^a-z0-9]+", "-", tag.lower())[:30].strip("-")
        return f"{readable}.{blake2b(tag.encode(), digest_size=16).hexdigest()}"

    @property
    def storage_prefix(self) -> str:
        """What the :attr:`storage_key` of every session of this user begins with; others' may as well."""
        # As far as a readable beginning is the same in both printed forms.
        user = re.match("[A-Za-z0-9]*", self.user_id or "")
        return ("session" if self.user_id is None else f"user-{user[0] if user else ''}".lower())[:30].rstrip("-")

    @property
    def owner(self) -> MemoryScope:
        """Where durable memories are written: the user when there is one, else the scope itself."""
        return MemoryScope(self.user_id) if self.user_id is not None else self

    @property
    def lineage(self) -> tuple[MemoryScope, ...]:
        """The scopes whose durable memories are read, nearest first; global is always last."""
        return (GLOBAL,) if self.owner == GLOBAL else (self.owner, GLOBAL)

    def with_session(self, session_id: str | None) -> MemoryScope:
        """The same user in another session."""
        return MemoryScope(self.user_id, session_id)


GLOBAL = MemoryScope()
"""The scope that every other one inherits from."""
