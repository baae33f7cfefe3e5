"""Scopes: what is printed is read back, and nothing in an identifier can pass for structure or leave a directory."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from strategies import NASTY, identifiers, long_identifiers

from memory_integrations import MemoryScope, ScopeError
from memory_integrations.scopes import GLOBAL

scopes = st.builds(MemoryScope, st.none() | identifiers, st.none() | identifiers)

TRICKY = [
    MemoryScope(),
    MemoryScope("a"),
    MemoryScope("A"),
    MemoryScope(session_id="a"),
    MemoryScope("a", "b"),
    MemoryScope("a/session:b"),
    MemoryScope(session_id="a/session:b"),
    MemoryScope("a", "session:b"),
    MemoryScope("a/session", "b"),
    MemoryScope("a/session:", "b"),
    MemoryScope("a", "b/session:c"),
    MemoryScope("a%2Fsession%3Ab"),
    MemoryScope("a=b/session=c"),
    MemoryScope("global"),
    MemoryScope("user:a"),
    MemoryScope("user=a"),
    MemoryScope("user=a/session=b"),
    MemoryScope("é"),
    MemoryScope("e\u0301"),
    MemoryScope("а"),  # Cyrillic
    MemoryScope("İ"),
    MemoryScope("i\u0307"),
    MemoryScope("ß"),
    MemoryScope("ss"),
    MemoryScope("a\0"),
    MemoryScope("a "),
    MemoryScope("../../etc/passwd"),
    MemoryScope("CON"),
    MemoryScope("%"),
    MemoryScope("%25"),
]


class TestPrintedForm:
    @given(scopes)
    def test_what_is_printed_is_read_back(self, scope: MemoryScope) -> None:
        assert MemoryScope.parse(str(scope)) == scope
        assert MemoryScope.parse(scope) is scope

    @pytest.mark.parametrize("scope", TRICKY, ids=repr)
    def test_tricky_identifiers_are_read_back(self, scope: MemoryScope) -> None:
        assert MemoryScope.parse(str(scope)) == scope

    @given(long_identifiers, st.none() | long_identifiers)
    def test_identifiers_of_ten_kilobytes_are_read_back(self, user: str, session: str | None) -> None:
        scope = MemoryScope(user, session)
        assert MemoryScope.parse(str(scope)) == scope
        assert len(scope.storage_key) <= 64

    @pytest.mark.parametrize(
        ("printed", "scope"),
        [
            ("global", MemoryScope()),
            ("user:123", MemoryScope("123")),
            ("session:abc", MemoryScope(session_id="abc")),
            ("user:123/session:abc", MemoryScope("123", "abc")),
            ("user:ann@example.org", MemoryScope("ann@example.org")),
            ("user:a/b", MemoryScope("a/b")),
            ("user:%2F", MemoryScope("%2F")),
            ("session:a/session:b", MemoryScope(session_id="a/session:b")),
        ],
    )
    def test_the_plain_forms(self, printed: str, scope: MemoryScope) -> None:
        assert MemoryScope.parse(printed) == scope
        assert str(scope) == printed

    def test_case_is_kept(self) -> None:
        assert MemoryScope.parse("user:Ann") != MemoryScope.parse("user:ann")

    def test_percent_signs_in_the_plain_form_are_not_decoded(self) -> None:
        assert MemoryScope.parse("user:%2F") != MemoryScope.parse("user:/")


class TestMalformed:
    @pytest.mark.parametrize(
        "given_scope",
        [
            "", "Global", "GLOBAL", "USER:1", "User:1", "user", "session", "user:", "session:", "user:/session:",
            "user:a/session:", "user:/session:b", " user:1", "users:1", "user =1", "user=", "user=a/session=",
            "user=a/session=b/session=c", "user=a/b", "session=a", "tenant:1",
            ":", "/", "123", "global:1", "global/session:1",
        ],
    )  # fmt: skip
    def test_a_malformed_scope_raises_and_says_what_was_given(self, given_scope: str) -> None:
        with pytest.raises(ScopeError) as raised:
            MemoryScope.parse(given_scope)
        assert isinstance(raised.value, ValueError)
        # Either the scope as it was given, or the part of it that is wrong.
        message = str(raised.value)
        assert repr(given_scope) in message or "_id=''" in message
        assert "expected" in message

    @pytest.mark.parametrize("given_scope", [None, 5, b"user:1", ["user:1"], ("user", "1"), object()])
    def test_what_is_no_text_raises(self, given_scope: object) -> None:
        with pytest.raises(ScopeError, match="expected"):
            MemoryScope.parse(given_scope)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "text", ["user:a/session:b/session:c", "user:/session:/session:", "user:a/session:/session:b"]
    )
    def test_a_text_that_can_be_read_in_two_ways_raises(self, text: str) -> None:
        with pytest.raises(ScopeError, match="two ways") as raised:
            MemoryScope.parse(text)
        assert repr(text) in str(raised.value)
        assert "MemoryScope(user_id=" in str(raised.value), "it says what to do"

    @pytest.mark.parametrize("identifier", ["", 5, b"a", [], False, "\ud800", "a\udfffb"])
    def test_identifiers_that_are_no_unicode_text_raise(self, identifier: object) -> None:
        for field in ("user_id", "session_id"):
            with pytest.raises(ScopeError, match=field):
                MemoryScope(**{field: identifier})  # type: ignore[arg-type]

    @pytest.mark.parametrize("text", ["user=%FF", "user=a%C3", "user=%ED%A0%80", "user=a/session=%80"])
    def test_percent_codes_that_are_no_text_raise_instead_of_becoming_another_user(self, text: str) -> None:
        with pytest.raises(ScopeError):
            MemoryScope.parse(text)

    @given(st.text(max_size=60))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        try:
            scope = MemoryScope.parse(text)
        except ScopeError:
            return
        assert MemoryScope.parse(str(scope)) == scope


class TestStorageKeys:
    @given(scopes, scopes)
    @example(MemoryScope("a"), MemoryScope("A"))
    @example(MemoryScope("a", "b"), MemoryScope("a/session:b"))
    def test_distinct_scopes_have_distinct_keys_and_tags(self, one: MemoryScope, other: MemoryScope) -> None:
        assume(one != other)
        assert one.storage_key.lower() != other.storage_key.lower(), "also where the file system ignores case"
        assert one.tag != other.tag

    def test_tricky_scopes_share_neither_key_nor_tag(self) -> None:
        made = {*TRICKY, *(MemoryScope(text) for text in NASTY), *(MemoryScope(session_id=text) for text in NASTY)}
        assert len({scope.storage_key.lower() for scope in made}) == len(made)
        assert len({scope.tag for scope in made}) == len(made)

    @given(scopes)
    def test_a_key_is_a_safe_file_name(self, scope: MemoryScope) -> None:
        key = scope.storage_key
        assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", key), "ASCII, lower case, no separator, nothing hidden"
        assert len(key) <= 64
        assert ".." not in key
        assert key == scope.storage_key

    def test_a_key_does_not_change_between_versions(self) -> None:
        """A key that changed would lose the facts of everybody on disk."""
        assert MemoryScope("123").storage_key == "user-123.2f67918399d2d3551998794c4b3601c7"
        assert GLOBAL.storage_key.startswith("global.")


class TestInheritance:
    @given(scopes)
    def test_the_lineage_goes_from_the_owner_to_global(self, scope: MemoryScope) -> None:
        assert scope.lineage[0] == scope.owner
        assert scope.lineage[-1] == GLOBAL
        assert len(set(scope.lineage)) == len(scope.lineage)

    @given(identifiers, identifiers)
    def test_the_sessions_of_a_user_share_an_owner(self, user: str, session: str) -> None:
        scope = MemoryScope(user, session)
        assert scope.owner == MemoryScope(user)
        assert scope.with_session(None) == scope.owner
        assert scope.owner.with_session(session) == scope

    @given(identifiers)
    def test_a_session_without_a_user_owns_its_memories(self, session: str) -> None:
        assert MemoryScope(session_id=session).owner == MemoryScope(session_id=session)

    def test_the_global_scope_has_itself_alone(self) -> None:
        assert GLOBAL.lineage == (GLOBAL,)

    @given(scopes)
    def test_a_scope_can_be_a_key(self, scope: MemoryScope) -> None:
        assert {scope: 1}[MemoryScope(scope.user_id, scope.session_id)] == 1
