"""Long-term memory on the real embedded engine."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings

from memory_integrations import (
    BudgetError,
    EmbeddingMismatchError,
    FilterError,
    LongTermMemory,
    MemoryFilter,
    MemoryManager,
    Message,
    MessageError,
    ScopeError,
    StoreLockedError,
    StoreUnavailableError,
    TokenCounter,
)
from memory_integrations.collection import MemoryCollection
from memory_integrations.delimiters import delimit
from memory_integrations.layout import metadata_of, pieces, point_id
from memory_integrations.qdrant_edge import QdrantEdgeClient

NOON = datetime(2025, 5, 8, 12, tzinfo=UTC)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[MemoryManager]:
    with MemoryManager("user:ann", data_dir=tmp_path, clock=lambda: NOON) as memory:
        yield memory


def texts(memory: MemoryManager, query: str, limit: int = 5) -> list[str]:
    return [hit.text for hit in memory.search_long_term(query, limit)]


def test_an_exchange_is_found_again_as_the_model_will_see_it(manager: MemoryManager) -> None:
    ids = manager.long_term.store_conversation("I adopted a beagle called Toto.", "Congratulations!", "s1")
    hit = manager.search_long_term("what is the dog called? the beagle")[0]
    assert hit.text == "8 May 2025 user: I adopted a beagle called Toto."
    assert hit.id == ids[0]
    assert hit.metadata["session_id"] == "s1"
    assert 0 < hit.score <= 1


def test_hits_come_best_first_and_no_more_than_asked_for(manager: MemoryManager) -> None:
    for i in range(20):
        manager.long_term.store_conversation(f"Apples and pears, basket {i}", "Noted", f"s{i}")
    hits = manager.search_long_term("apples and pears", limit=7)
    assert len(hits) == 7
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_an_answer_is_found_through_its_question(manager: MemoryManager) -> None:
    memory = manager.long_term
    for i in range(30):
        memory.store_conversation(f"Topic {i} of the day is weather", "Sunny, mostly", f"noise{i}")
    memory.store_messages(
        [
            Message("user", "Which instrument did you pick up this year?", name="Tom", session_id="s"),
            Message("user", "The cello! Every evening.", name="Ann", session_id="s"),
        ]
    )
    assert "The cello! Every evening." in " ".join(texts(manager, "What instrument did Ann pick up?", 2))


def test_p7_the_same_message_stored_twice_is_one_memory_that_keeps_its_time_and_place(manager: MemoryManager) -> None:
    first = Message("user", "My bike is red", id="m1", session_id="s", created_at=NOON)
    again = Message("user", "My bike is red", id="m1", session_id="s", created_at=NOON + timedelta(days=9))
    manager.long_term.store_messages([first])
    order = manager.search_long_term("bike")[0].metadata["order"]
    manager.long_term.store_messages([again])
    assert manager.long_term.count() == 1
    hit = manager.search_long_term("bike")[0]
    assert (hit.metadata["order"], hit.metadata["created_at"]) == (order, NOON.isoformat())


def test_p7_one_id_in_two_sessions_is_two_memories(manager: MemoryManager) -> None:
    """Programs number their messages: what another session says must not take the place of this one's."""
    for session in ("monday", "tuesday", None):
        manager.long_term.store_messages([Message("user", f"It is {session}, I swim", id="1", session_id=session)])
    assert manager.long_term.count() == 3
    assert len({hit.id for hit in manager.search_long_term("swim", 5)}) == 3


def test_p7_a_long_text_stored_twice_keeps_its_place(manager: MemoryManager) -> None:
    for _ in range(2):
        manager.long_term.store_messages([Message("user", LONG, id="long", session_id="s")])
        manager.long_term.store_messages([Message("user", "And then?", id="after", session_id="s")])
    assert [message.id for message in manager.long_term.messages()] == ["long", "after"]
    assert next(iter(manager.long_term.messages())).content == LONG


def test_telling_a_conversation_again_writes_nothing(manager: MemoryManager, monkeypatch: pytest.MonkeyPatch) -> None:
    said = [Message("user", f"Sentence {i}", id=f"m{i}", session_id="s") for i in range(300)]
    said.append(Message("user", LONG, id="long", session_id="s"))
    first = manager.long_term.store_messages(said)
    client = manager.long_term.vectorstore.client
    monkeypatch.setattr(
        client, "upsert", lambda name, points, wait: pytest.fail(f"wrote {len(points)}") if points else 0
    )
    assert manager.long_term.store_messages(said) == first


def test_a_message_that_is_changed_says_when_and_one_that_is_told_again_does_not(tmp_path: Path) -> None:
    moments = iter(NOON + timedelta(hours=hours) for hours in range(20))
    with MemoryManager("user:ann", data_dir=tmp_path, clock=lambda: next(moments)) as memory:

        def told(text: str) -> str | None:
            [id_] = memory.long_term.store_messages([Message("user", text, id="m", created_at=NOON)])
            [point] = memory._open.memories.retrieve([id_])
            fields = metadata_of(point)
            assert fields["created_at"] == NOON.isoformat()
            return fields.get("updated_at")

        assert told("Half an answer") is None
        assert told("Half an answer") is None
        changed = told("Half an answer is none")
        assert changed is not None and changed > NOON.isoformat()
        assert told("Half an answer is none") == changed
        assert (told("Another one") or "") > changed


def test_p11_storing_again_keeps_metadata_that_others_added(manager: MemoryManager) -> None:
    memory = manager.long_term
    [stored] = memory.store_messages([Message("user", "The code word is heron", id="m1")])
    memory.vectorstore.client.set_payload("memory_integrations", {"reviewed": True}, points=[stored], key="metadata")
    memory.store_messages([Message("user", "The code word is heron", id="m1")])
    assert memory.search("code word")[0].metadata["reviewed"] is True


def test_scopes_are_apart_and_global_is_inherited(manager: MemoryManager) -> None:
    bob, everybody = manager.for_scope("user:bob"), manager.for_scope("global")
    manager.long_term.store_conversation("My locker code is 1234", "ok then")
    bob.long_term.store_conversation("My locker code is 9876", "ok then")
    everybody.long_term.store_file_summary("handbook.pdf", "Locker codes are changed every March.")
    mine = texts(manager, "locker code", 10)
    assert any("1234" in text for text in mine)
    assert any("handbook.pdf" in text for text in mine)
    assert not any("9876" in text for text in mine)
    assert [text for text in texts(everybody, "locker code", 10) if "1234" in text or "9876" in text] == []
    assert bob.long_term.count() == 2


def test_a_users_sessions_share_memories_and_a_lone_session_keeps_its_own(manager: MemoryManager) -> None:
    manager.for_scope("user:ann/session:1").add_turn("I play the oboe", "Lovely")
    assert texts(manager.for_scope("user:ann/session:2"), "oboe")
    alone = manager.for_scope("session:kiosk")
    alone.add_turn("I want a ticket to Faro", "Here you are")
    assert texts(alone, "ticket")
    assert not texts(manager.for_scope("session:other"), "ticket")


def test_p22_deleting_touches_only_the_scope_and_says_the_true_number(manager: MemoryManager) -> None:
    bob = manager.for_scope("user:bob")
    mine = manager.long_term.store_conversation("red kite", "blue kite")
    theirs = bob.long_term.store_conversation("red kite", "blue kite")
    assert manager.long_term.delete([*mine[:1], *theirs, point_id("user:ann", None, "unknown")]) == 1
    assert (manager.long_term.count(), bob.long_term.count()) == (1, 2)
    assert not any("red kite" in text for text in texts(manager, "red kite"))


def test_p22_an_id_that_is_given_twice_is_one_memory(manager: MemoryManager) -> None:
    mine = manager.long_term.store_conversation("red kite", "blue kite")
    assert manager.long_term.delete([mine[0], mine[0], mine[0].upper()]) == 1
    assert manager.long_term.delete([*mine, *mine]) == 1
    assert manager.long_term.count() == 0


def test_p29_every_page_is_read(manager: MemoryManager) -> None:
    said = [Message("user", f"Sentence number {i}", id=f"m{i}", session_id="s") for i in range(600)]
    manager.long_term.store_messages(said)
    assert [message.id for message in manager.long_term.messages()] == [message.id for message in said]
    assert manager.long_term.count() == 600


def test_messages_come_back_as_they_were_said(manager: MemoryManager) -> None:
    said = Message("user", "Hej! {x} 漢字 🎻", "Maya", "m1", "s", NOON, {"lang": "sv", "n": [1, {"a": None}]})
    manager.long_term.store_messages([said])
    assert list(manager.long_term.messages()) == [said]


def test_p10_injected_blocks_are_not_stored_and_other_roles_are_no_memories(manager: MemoryManager) -> None:
    echo = delimit("recalled", "8 May 2025 user: the old secret")
    stored = manager.long_term.store_messages(
        [
            Message("system", "You are a helpful assistant"),
            Message("tool", '{"rows": 3}', tool_call_id="c1"),
            Message("user", f"{echo}\nWhat did I say?"),
            Message("assistant", echo),
        ]
    )
    assert len(stored) == 1
    assert [message.text for message in manager.long_term.messages()] == ["What did I say?"]


def test_memories_survive_a_restart_p37(tmp_path: Path, journal_url: str | None) -> None:
    with MemoryManager("user:ann", data_dir=tmp_path, journal_url=journal_url) as memory:
        memory.add_turn("My favourite bird is the heron", "A fine bird")
        memory.set_fact("bird", "heron")
    with MemoryManager("user:ann/session:new", data_dir=tmp_path, journal_url=journal_url) as memory:
        assert memory.get_fact("bird") == "heron"
        assert "heron" in memory.get_context("Which bird do I like?").combined


def test_p25_a_directory_held_by_another_process_says_so_and_facts_still_work(
    tmp_path: Path, journal_url: str | None
) -> None:
    import subprocess
    import sys

    script = (
        "import sys; from memory_integrations import MemoryManager\n"
        "m = MemoryManager('user:a', data_dir=sys.argv[1]); m.add_turn('hello there', 'hi')\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()"
    )
    arguments = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "ready"
        memory = MemoryManager("user:a", data_dir=tmp_path, journal_url=journal_url)
        memory.set_fact("works", True)
        with pytest.raises(StoreLockedError, match=rf"{tmp_path}.*http"):
            memory.search_long_term("hello")
        holder.communicate("\n")
    assert memory.search_long_term("hello there")
    memory.close()


class Other(Embeddings):
    model = "other/three"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [float(len(text)), 1.0, float(text.count("e"))]


def test_any_langchain_embedding_plugs_in(tmp_path: Path) -> None:
    with MemoryManager("user:a", data_dir=tmp_path, embeddings=Other()) as memory:
        memory.add_turn("The lighthouse is in Porto", "I see")
        assert "lighthouse" in texts(memory, "Where is the lighthouse?")[0]


def test_an_embedding_that_fails_at_the_first_opening_is_an_error_of_ours(tmp_path: Path) -> None:
    class Down(Other):
        def embed_query(self, text: str) -> list[float]:
            raise ConnectionError("down")

    with MemoryManager("user:a", data_dir=tmp_path, embeddings=Down()) as memory:
        with pytest.raises(StoreUnavailableError, match="down"):
            memory.add_turn("hello there", "general")
        assert memory.short_term.entries == []


def test_p28_another_embedding_is_refused_by_name_and_size(tmp_path: Path, journal_url: str | None) -> None:
    with MemoryManager("user:a", data_dir=tmp_path, journal_url=journal_url) as memory:
        memory.add_turn("hello there", "general")
    refused = pytest.raises(EmbeddingMismatchError, match=r"wordllama.* 256 .*other/three.* 3")
    with MemoryManager("user:a", data_dir=tmp_path, embeddings=Other(), journal_url=journal_url) as memory:
        with refused:
            memory.search_long_term("hello")
        memory.set_fact("works", True)
    with MemoryManager("user:a", data_dir=tmp_path) as memory:
        assert memory.long_term.count() == 2


def test_the_ecosystems_own_class_reads_ours_and_ours_reads_its(manager: MemoryManager) -> None:
    manager.add_turn("The violin is in the attic", "Thanks for telling me")
    store = manager.long_term.vectorstore
    assert any("violin" in document.page_content for document in store.similarity_search("violin in the attic", k=2))
    store.add_texts(["The trumpet is in the cellar"], metadatas=[{"scope": "user:ann"}])
    assert texts(manager, "trumpet cellar")[0] == "note: The trumpet is in the cellar"
    store.add_texts(["Nobody's tuba"])
    assert not any("tuba" in text for text in texts(manager, "tuba", 50))


def test_a_ready_client_is_used_and_not_closed(tmp_path: Path) -> None:
    client = QdrantEdgeClient(tmp_path / "mine")
    with MemoryManager("user:a", data_dir=tmp_path, qdrant=client) as memory:
        memory.add_turn("kept by a client of mine", "yes")
    assert client.count("memory_integrations").count == 2
    client.close()


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
def test_a_server_that_does_not_answer_is_an_error_of_ours(tmp_path: Path) -> None:
    from qdrant_client import QdrantClient

    away = QdrantClient(url="http://127.0.0.1:9", check_compatibility=False)
    memory = MemoryManager("user:ann", data_dir=tmp_path, qdrant=away)
    with pytest.raises(StoreUnavailableError, match="Qdrant server"):
        memory.search_long_term("tea")
    with pytest.raises(StoreUnavailableError, match="Qdrant server"):
        memory.long_term.store_conversation("tea", "yes")
    assert memory.get_fact("nothing") is None


def test_qdrant_clients_own_local_mode_serves_as_well(tmp_path: Path) -> None:
    from qdrant_client import QdrantClient

    client = QdrantClient(":memory:")
    with MemoryManager("user:a", data_dir=tmp_path, qdrant=client) as memory:
        memory.add_turn("The key is under the mat", "Understood")
        assert "mat" in texts(memory, "where is the key?")[0]


def test_file_summaries_are_replaced_not_doubled(manager: MemoryManager) -> None:
    manager.store_file_summary("lease.pdf", "Pets need written consent.")
    manager.store_file_summary("lease.pdf", "Pets are forbidden.")
    assert manager.long_term.count() == 1
    assert texts(manager, "pets lease.pdf") == ["8 May 2025 lease.pdf: Pets are forbidden."]


def test_relevant_context_stays_within_its_budget(manager: MemoryManager) -> None:
    for i in range(30):
        manager.long_term.store_conversation(f"Recipe {i}: bread with olives and thyme", "Delicious", f"s{i}")
    count = TokenCounter().count
    for budget in (0, 10, 50, 200):
        assert count(manager.long_term.get_relevant_context("bread recipe", max_tokens=budget)) <= budget
    with pytest.raises(BudgetError):
        manager.long_term.get_relevant_context("bread", max_tokens=-1)


@pytest.mark.parametrize(
    "text",
    [
        "null \0 byte",
        "{braces} {{x}}",
        "\ud83d lone surrogate",
        "x" * 1_000_000,
        "？全角",
        "\u202eevil",
        "a\r\nb",
        "🎻" * 2000,
    ],
    ids=["null", "braces", "surrogate", "1 MB", "wide", "bidi", "crlf", "emoji"],
)
def test_any_text_is_stored_and_found(manager: MemoryManager, text: str) -> None:
    manager.add_turn(text, "noted, thank you")
    assert manager.long_term.count() == 2
    manager.search_long_term(text[:2000])


@pytest.mark.parametrize(("user", "assistant"), [("", ""), ("  ", "\n")])
def test_an_empty_exchange_is_refused(manager: MemoryManager, user: str, assistant: str) -> None:
    with pytest.raises(MessageError, match="empty"):
        manager.long_term.store_conversation(user, assistant)
    assert manager.long_term.count() == 0


def test_metadata_that_is_not_json_is_refused_before_anything_is_stored(manager: MemoryManager) -> None:
    with pytest.raises(MessageError, match="metadata"):
        manager.long_term.store_messages([Message("user", "hello there", metadata={"f": object()})])
    assert manager.long_term.count() == 0


def test_metadata_that_could_not_be_read_back_is_refused(manager: MemoryManager) -> None:
    """Else nobody could delete anything any more: all scopes share a collection."""
    deep: Any = 1
    for _ in range(150):
        deep = [deep]
    with pytest.raises(MessageError, match="100 deep"):
        manager.long_term.store_messages([Message("user", "hello there", metadata={"f": deep})])
    assert manager.long_term.count() == 0


def test_bad_arguments_say_what_was_expected(manager: MemoryManager) -> None:
    with pytest.raises(ValueError, match="limit=0"):
        manager.search_long_term("x", limit=0)
    with pytest.raises(MessageError, match="filename"):
        manager.store_file_summary("", "text")
    assert manager.search_long_term("   ") == []
    assert manager.search_long_term("nothing was stored yet") == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=st.text(max_size=200))
def test_any_query_is_answered(manager: MemoryManager, query: str) -> None:
    if not manager.long_term.count():
        manager.add_turn("Ann and Bob met in May 2023?", "In 2023, yes.")
    assert all(hit.text for hit in manager.search_long_term(query, 3))


def test_p26_eight_threads_and_tasks_lose_nothing(manager: MemoryManager) -> None:
    def work(user: int) -> None:
        memory = manager.for_scope(f"user:{user}")
        for i in range(25):
            memory.long_term.store_conversation(f"user {user} says number {i}", "noted", f"s{i}")
            found = memory.search_long_term(f"number {i}", 50)
            assert all(hit.metadata["scope"] == f"user:{user}" for hit in found)

    threads = [threading.Thread(target=work, args=(user,)) for user in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [manager.for_scope(f"user:{user}").long_term.count() for user in range(8)] == [50] * 8

    async def together() -> None:
        shared = manager.for_scope("user:tasks")
        await asyncio.gather(*(shared.aadd_turn(f"task {i} reports", "good") for i in range(50)))

    asyncio.run(together())
    assert manager.for_scope("user:tasks").long_term.count() == 100


def test_p24_nothing_erased_is_left_in_any_file(tmp_path: Path) -> None:
    with MemoryManager("user:ann", data_dir=tmp_path) as memory:
        for i in range(500):
            memory.add_turn(f"planted-{i:04d}-xyzzy is my word", f"answer-{i:04d}-plugh")
        memory.set_fact("secret", "planted-fact-xyzzy")
        bob = memory.for_scope("user:bob")
        bob.add_turn("bob-stays-here", "of course")
        kept = len(memory.short_term)
        receipt = memory.erase()
        assert (receipt.facts, receipt.memories, receipt.messages) == (1, 1000, kept)
        assert memory.search_long_term("planted word") == []
        assert bob.long_term.count() == 2
        assert found_in_files(tmp_path, b"xyzzy") == found_in_files(tmp_path, b"plugh") == []
    assert found_in_files(tmp_path, b"xyzzy") == found_in_files(tmp_path, b"plugh") == []
    assert found_in_files(tmp_path, b"bob-stays-here")


def found_in_files(directory: Path, needle: bytes) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file() and needle in path.read_bytes()]


# Long texts


ROOMS = ["cellar", "attic", "kitchen", "garden", "library", "stable", "orchard", "tower"]
LONG = "\n\n".join(f"The {room}. " + f"The {room} of the house is described here at length. " * 14 for room in ROOMS)


def test_a_long_text_is_one_hit_that_shows_the_piece_that_was_found(manager: MemoryManager) -> None:
    [memory] = manager.long_term.store_messages([Message("assistant", LONG, id="long", session_id="s")])
    manager.add_turn("Something else entirely", "Quite so")
    assert manager.long_term.count() == 3
    hits = manager.search_long_term("Tell me about the orchard of the house", 5)
    assert [hit.id for hit in hits].count(memory) == 1
    hit = next(hit for hit in hits if hit.id == memory)
    assert "orchard" in hit.text
    assert "…" in hit.text
    assert hit.message_ids == ("long",)
    assert hit.metadata["session_id"] == "s"
    assert len(hit.text) < len(LONG)


def test_a_long_text_comes_back_whole_and_goes_whole(manager: MemoryManager, tmp_path: Path) -> None:
    [memory] = manager.long_term.store_messages([Message("assistant", LONG, id="long")])
    assert [message.text for message in manager.long_term.messages()] == [LONG]
    assert manager.long_term.delete([memory]) == 1
    assert manager.long_term.count() == 0
    assert found_in_files(tmp_path, b"orchard") == []


@pytest.mark.parametrize("step", ["_bury", "delete"])
def test_p24_a_deletion_that_was_interrupted_can_be_run_again(
    manager: MemoryManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    [memory] = manager.long_term.store_messages([Message("user", LONG, id="long")])

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LongTermMemory if step == "_bury" else MemoryCollection, step, die)
        with pytest.raises(KeyboardInterrupt):
            manager.long_term.delete([memory])
    assert manager.long_term.delete([memory]) == 1
    assert manager.long_term.search("orchard", 20) == []
    assert found_in_files(tmp_path, b"orchard") == []


def test_one_id_is_no_list_of_ids(manager: MemoryManager) -> None:
    """Its characters would be looked for, and nothing be deleted."""
    [id_] = manager.long_term.store_messages([Message("user", "My code is xyzzy")])
    with pytest.raises(TypeError, match=r"expected a list of ids, such as \[hit.id\]. Nothing was deleted"):
        manager.long_term.delete(id_)
    assert manager.long_term.delete([id_]) == 1


@pytest.mark.parametrize("query", [None, 5, b"tea", ["tea"]])
def test_a_query_that_is_no_text_is_said_so(manager: MemoryManager, query: Any) -> None:
    with pytest.raises(MessageError, match=r"query=.*: expected text"):
        manager.long_term.search(query)
    with pytest.raises(MessageError, match=r"query=.*: expected text"):
        manager.long_term.get_relevant_context(query)
    if query is not None:
        with pytest.raises(MessageError, match=r"query=.*: expected text"):
            manager.get_context(query)


@pytest.mark.parametrize("limit", [0, -1, 2.5, "3", None, True])
def test_a_limit_that_is_none_is_said_so(manager: MemoryManager, limit: Any) -> None:
    with pytest.raises(ValueError, match=r"limit=.*: expected a whole number, 1 or more"):
        manager.long_term.search("tea", limit)


def test_what_is_no_message_summary_or_session_is_said_so(manager: MemoryManager) -> None:
    memory: Any = manager.long_term
    for messages in ("abc", [5]):
        with pytest.raises(MessageError, match=r"expected a memory_integrations.Message"):
            memory.store_messages(messages)
    with pytest.raises(MessageError, match="summary=2: expected text"):
        memory.store_file_summary("a.txt", 2)
    for ask in (memory.count, memory.erase, lambda session: list(memory.messages(session))):
        with pytest.raises(ScopeError, match="session_id=5: expected the session's id as text"):
            ask(5)


def test_a_longer_text_replaced_by_a_shorter_leaves_no_pieces(manager: MemoryManager) -> None:
    manager.store_file_summary("house.txt", LONG)
    manager.store_file_summary("house.txt", "Only a cellar.")
    assert [message.text for message in manager.long_term.messages()] == ["Only a cellar."]
    assert not any("orchard" in text for text in texts(manager, "orchard", 20))


@given(text=st.text(max_size=5000), size=st.integers(10, 400))
def test_pieces_joined_are_the_text(text: str, size: int) -> None:
    parts = pieces(text, size)
    assert "".join(parts) == text
    assert all(len(part) <= size for part in parts)


# Search


def test_what_says_nearly_the_same_is_one_hit(manager: MemoryManager) -> None:
    for i in range(10):
        manager.long_term.store_conversation("My bike is red and fast", f"Answer {i} to that: fine", f"s{i}")
    manager.long_term.store_conversation("My bike is stored in the shed", "Understood", "s99")
    found = texts(manager, "bike", 10)
    assert len([text for text in found if "red and fast" in text]) == 1
    assert any("shed" in text for text in found)


def test_of_an_echo_and_what_the_user_said_the_latter_is_shown(manager: MemoryManager) -> None:
    """An assistant that repeats what it is told must not take the place of who said it."""
    manager.add_turn("I live in the old town of Lisbon", "Noted: I live in the old town of Lisbon.")
    found = texts(manager, "Noted Lisbon old town")
    assert found == ["8 May 2025 user: I live in the old town of Lisbon"]
    both = manager.long_term.search("Noted Lisbon old town", distinct=False)
    assert [hit.metadata["role"] for hit in both] == ["assistant", "user"]


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("The package for Alma arrived at the office today.", "The package for Bert arrived at the office today."),
        ("The landlord allows dogs in this flat of ours.", "The landlord never allows dogs in this flat of ours."),
        ("My meeting with them is on Tuesday at the office.", "Your meeting with them is on Thursday at the office."),
        ("On this tour of the island Alma lent Bert 30 euros.", "On this tour of the island Bert lent Alma 30 euros."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("answered", [True, False])
def test_what_differs_in_one_word_is_another_memory(
    manager: MemoryManager, said: str, answer: str, answered: bool
) -> None:
    manager.add_turn(said, answer if answered else "I see.")
    if not answered:
        manager.add_turn(answer, "I see.")
    found = " ".join(texts(manager, said))
    assert said in found and answer in found


@pytest.mark.parametrize(
    ("said", "later"),
    [
        ("Call me after nine on Monday", "Never call me after nine on Monday"),
        ("My budget for it is 500", "My budget for it is 500 000"),
        ("You may share my address with Bob", "You may share my address with Bob only"),
    ],
)
def test_what_somebody_says_with_a_word_more_is_another_memory(manager: MemoryManager, said: str, later: str) -> None:
    manager.add_turn(said, "I see.")
    manager.add_turn(later, "All right.")
    assert {f"8 May 2025 user: {text}" for text in (said, later)} <= set(texts(manager, said))


@pytest.mark.parametrize(
    "echo",
    [
        "You live in the old town of Lisbon.",
        "Noted, you live in the old town of Lisbon.",
        "I live in the old town of Lisbon!",
    ],
)
def test_an_echo_is_known_in_other_persons_too(manager: MemoryManager, echo: str) -> None:
    said = "I live in the old town of Lisbon."
    manager.add_turn(said, echo)
    assert texts(manager, "Who lives in the old town of Lisbon?") == [
        "8 May 2025 user: I live in the old town of Lisbon."
    ]


def test_a_span_of_time_holds_and_a_time_in_the_question_helps(manager: MemoryManager) -> None:
    for month in range(1, 16):
        said = datetime(2024 + (month - 1) // 12, (month - 1) % 12 + 1, 10, tzinfo=UTC)
        message = Message("user", f"I went hiking on route {month}", session_id=f"s{month}", created_at=said)
        manager.long_term.store_messages([message])
    since, until = datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 6, 10, tzinfo=UTC)
    hits = manager.long_term.search("hiking", 20, since=since, until=until)
    assert sorted(hit.metadata["created_at"][:7] for hit in hits) == ["2024-03", "2024-04", "2024-05"]
    assert "August" in manager.search_long_term("Where did I go hiking in August?")[0].text
    assert "10 March 2025" in manager.search_long_term("What about hiking two months ago?")[0].text
    with pytest.raises(MessageError, match="zone"):
        manager.long_term.search("hiking", since=datetime(2024, 1, 1))


SAID = [
    Message(
        ("user", "assistant")[i % 2],
        f"Apples of kind {word}",
        ("Ann", "Bob", None)[i % 3],
        session_id=f"s{i % 4}",
        metadata={
            "topic.x y": ("fruit", "food")[i % 2],
            "basket": i,
            "ripe": i % 2 == 0,
            "tags": ["t1", "t2"][: 1 + i % 2],
        },
    )
    for i, word in enumerate("zero one two three four five six seven eight nine ten eleven".split())
]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (MemoryFilter(session_id="s1"), {1, 5, 9}),
        (MemoryFilter(session_id=["s1", "s2"], role="user"), {2, 6, 10}),
        (MemoryFilter(name="Ann"), {0, 3, 6, 9}),
        (MemoryFilter(kind="file"), set()),
        (MemoryFilter(metadata={"topic.x y": "food"}), {1, 3, 5, 7, 9, 11}),
        (MemoryFilter(metadata={"basket": [3, 4, "4"]}), {3, 4}),
        (MemoryFilter(metadata={"ripe": True, "tags": "t1"}), {0, 2, 4, 6, 8, 10}),
        (MemoryFilter(metadata={"basket": True}), set()),  # which is no number
        (MemoryFilter(metadata={"unknown": "t1"}), set()),
        (MemoryFilter(), set(range(12))),
    ],
    ids=str,
)
def test_p23_a_filter_holds_and_never_widens_the_scope(
    manager: MemoryManager, where: MemoryFilter, expected: set[int]
) -> None:
    """P23: the filter is the package's own; neighbours that do not meet it are left out, others' never seen."""
    manager.for_scope("user:bob").long_term.store_messages(SAID)
    manager.long_term.store_messages(SAID)
    hits = manager.long_term.search("apples", 50, where=where)
    assert {hit.metadata["extra"]["basket"] for hit in hits} == expected
    assert {hit.metadata["scope"] for hit in hits} <= {"user:ann"}


@pytest.mark.parametrize(
    "where",
    [
        MemoryFilter(session_id="s\ud83d"),
        MemoryFilter(session_id=["s1", "s\ud83d"]),
        MemoryFilter(name="Ann\ud83d"),
        MemoryFilter(metadata={"topic\ud83d": "fruit\ud83d"}),
    ],
    ids=ascii,
)
def test_a_filter_reads_text_as_it_is_stored(manager: MemoryManager, where: MemoryFilter) -> None:
    said = Message("user", "Apples", "Ann\ud83d", session_id="s\ud83d", metadata={"topic\ud83d": "fruit\ud83d"})
    manager.long_term.store_messages([said, *SAID[2:4]])
    assert [hit.metadata["session_id"] for hit in manager.long_term.search("apples", 1, where=where)] == ["s\ufffd"]


def test_a_filter_meets_what_only_a_far_hit_meets(manager: MemoryManager) -> None:
    """Hits that the filter leaves out take no place: the limit counts those that meet it."""
    for i in range(60):
        manager.long_term.store_conversation(f"Apples, number {i}", f"apples apples apples {i}, good", f"s{i}")
    hits = manager.long_term.search("apples", 20, where=MemoryFilter(role="user"))
    assert [hit.metadata["role"] for hit in hits] == ["user"] * 20


@pytest.mark.parametrize(
    "conditions",
    [
        {"role": []},
        {"role": 3},
        {"session_id": ["a", None]},
        {"metadata": {"a": 0.5}},
        {"metadata": {"a": None}},
        {"metadata": {"a": [1, 2**63]}},
        {"metadata": {"a": -(10**30)}},
        {"metadata": {"a": {"b": 1}}},
        {"metadata": {'a"b': "c"}},
        {"metadata": {1: "c"}},
        {"metadata": "a"},
    ],
    ids=str,
)
def test_p23_a_filter_that_nothing_could_meet_says_so(conditions: Any) -> None:
    with pytest.raises(FilterError, match="expected"):
        MemoryFilter(**conditions)
    with pytest.raises(TypeError):
        MemoryFilter(user_id="bob")  # type: ignore[call-arg]


def test_p23_a_dictionary_is_no_filter(manager: MemoryManager) -> None:
    with pytest.raises(FilterError, match="expected a MemoryFilter"):
        manager.long_term.search("tea", where={"session_id": "a"})  # type: ignore[arg-type]


def test_an_explanation_adds_up_to_the_score(manager: MemoryManager) -> None:
    manager.long_term.store_conversation("Where do you sail?", "On the lake, in summer", "s")
    for hit in manager.long_term.search("Where is sailing done? lake", explain=True):
        assert hit.explanation is not None
        assert sum(hit.explanation.values()) == pytest.approx(hit.score, abs=1e-5)
    assert manager.search_long_term("lake")[0].explanation is None


@pytest.mark.parametrize(
    ("language", "said", "asked"),
    [
        ("english", "She was running through the gardens", "garden runs"),
        ("german", "Wir haben gestern die Häuser besichtigt", "welches Haus"),
        ("french", "Nous avons mangé des gâteaux au chocolat", "gâteau"),
        ("english", "我昨天去了北京的故宫", "北京"),
        ("english", "東京へ行きました", "東京"),
        (None, "Ratkaisimme ongelman eilen illalla", "ongelman"),
    ],
)
def test_languages(tmp_path: Path, language: str | None, said: str, asked: str) -> None:
    with MemoryManager("user:a", data_dir=tmp_path, language=language, embeddings=Other()) as memory:
        memory.add_turn("Nothing of note: the weather", "ok then")
        memory.long_term.store_messages([Message("user", said, id="m", session_id="z")])
        hit = memory.long_term.search(asked, explain=True)[0]
        assert hit.message_ids == ("m",)
        assert hit.explanation is not None
        assert hit.explanation["bm25"] > 0


def test_another_language_is_refused_and_reembedding_changes_it(tmp_path: Path) -> None:
    with MemoryManager("user:a", data_dir=tmp_path) as memory:
        memory.add_turn("Wir haben Häuser gesehen", "Schön")
    with MemoryManager("user:a", data_dir=tmp_path, language="german") as memory:
        with pytest.raises(EmbeddingMismatchError, match="german"):
            memory.search_long_term("Haus")
        memory.long_term.reembed()
        assert "Häuser" in texts(memory, "Haus")[0]


# Another embedding


def fill(directory: Path, turns: int = 300) -> None:
    with MemoryManager("user:a", data_dir=directory) as memory:
        memory.long_term.store_messages(
            Message("user", f"Sentence number {i} about bridges", id=f"m{i}", session_id=f"s{i % 9}")
            for i in range(turns)
        )
        memory.for_scope("user:b").add_turn("Mine stays mine", "Of course")


@pytest.mark.parametrize("other", [{"language": "german"}, {"embeddings": DeterministicFakeEmbedding(size=32)}])
def test_p28_a_memory_notices_that_another_one_of_its_process_embedded_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, Any]
) -> None:
    with MemoryManager("user:ann/session:s", data_dir=tmp_path) as one:
        one.add_turn("Hello", "Hello to you")
        with MemoryManager("user:ann/session:s", data_dir=tmp_path, **other) as two:
            two.long_term.reembed()
            now = one._open.memories._look_again_at
            assert now < time.monotonic() + 1.5
            monkeypatch.setattr("memory_integrations.collection.time.monotonic", lambda: now + 1)
            with pytest.raises(EmbeddingMismatchError):
                one.search_long_term("hello")
            with pytest.raises(EmbeddingMismatchError):
                one.add_turn("And more", "Noted")
            assert len(two.search_long_term("hello")) == 2


def test_p28_reembedding_moves_every_memory(tmp_path: Path) -> None:
    fill(tmp_path)
    with MemoryManager("user:a", data_dir=tmp_path, embeddings=Other()) as memory:
        told: list[tuple[int, int]] = []
        assert memory.long_term.reembed(lambda done, total: told.append((done, total))) == 302
        assert told[-1] == (302, 302)
        assert memory.long_term.count() == 300
        assert memory.for_scope("user:b").long_term.count() == 2
        assert [m.id for m in memory.long_term.messages()] == [f"m{i}" for i in range(300)]
        assert "number 7 " in texts(memory, "Sentence number 7 about bridges")[0]
    with MemoryManager("user:a", data_dir=tmp_path) as memory, pytest.raises(EmbeddingMismatchError):
        memory.long_term.count()


class Interrupted(BaseException):
    """As the end of the process: nothing handles it."""


@pytest.mark.parametrize("at", ["created", "copying", "complete", "deleted", "in its place"])
def test_an_interrupted_reembedding_loses_nothing_and_goes_on(
    tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any other of its calls: tests/qdrant_server/test_reembedding.py."""
    fill(tmp_path, turns=600)
    method, number = {
        "created": ("create_collection", 1),
        "copying": ("upsert", 2),
        "complete": ("update_collection_aliases", 2),
        "deleted": ("delete_collection", 1),
        "in its place": ("update_collection_aliases", 3),
    }[at]
    real, called = getattr(QdrantEdgeClient, method), 0

    def interrupted(self: QdrantEdgeClient, *args: object, **kwargs: object) -> object:
        nonlocal called
        called += 1
        result = real(self, *args, **kwargs)
        if called == number:
            raise Interrupted
        return result

    monkeypatch.setattr(QdrantEdgeClient, method, interrupted)
    with MemoryManager("user:a", data_dir=tmp_path, embeddings=Other()) as memory, pytest.raises(Interrupted):
        memory.long_term.reembed()
    monkeypatch.undo()
    with MemoryManager("user:a", data_dir=tmp_path, embeddings=Other()) as memory:
        memory.long_term.reembed()
        assert [m.id for m in memory.long_term.messages()] == [f"m{i}" for i in range(600)]
        assert memory.for_scope("user:b").long_term.count() == 2
        assert len(memory.long_term.vectorstore.client.get_collections().collections) == 1


def test_p24_a_deleted_hit_is_in_no_file(manager: MemoryManager, tmp_path: Path) -> None:
    manager.add_turn("The password is xyzzy-plugh", "I will not tell")
    manager.add_turn("Something that stays", "Here it is")
    hit = manager.search_long_term("password")[0]
    assert manager.long_term.delete([hit.id]) == 1
    assert found_in_files(tmp_path, b"xyzzy-plugh") == []
    assert found_in_files(tmp_path, b"Something that stays")


def test_a_span_of_time_shows_no_neighbour_from_outside(manager: MemoryManager) -> None:
    said = [datetime(2025, 5, 3, tzinfo=UTC), datetime(2026, 5, 3, tzinfo=UTC)]
    manager.long_term.store_messages(
        [
            Message("user", "I bought a red bicycle", session_id="s", created_at=said[0]),
            Message("assistant", "Enjoy the ride", session_id="s", created_at=said[1]),
        ]
    )
    before = manager.long_term.search("bicycle", until=datetime(2025, 6, 1, tzinfo=UTC))
    assert [hit.text for hit in before] == ["3 May 2025 user: I bought a red bicycle"]
    assert manager.long_term.search("bicycle", since=datetime(2027, 1, 1, tzinfo=UTC)) == []


LONG_SECRET = "First part about cooking. " * 60 + "My secret password is hunter2."


def _delete_everything(manager: MemoryManager) -> None:
    """Delete what a search for the beginning of a text finds."""
    manager.long_term.delete([hit.id for hit in manager.long_term.search("cooking", 20, distinct=False)])
    assert manager.long_term.search("secret password hunter2") == []
    assert manager.long_term.count() == 0


def test_p24_one_id_twice_in_one_call_is_the_one_message_that_it_would_be_in_two(
    manager: MemoryManager, tmp_path: Path
) -> None:
    both = [Message("user", LONG_SECRET, id="x", created_at=NOON), Message("user", "Cooking only.", id="x")]
    assert len(set(manager.long_term.store_messages(both))) == 1
    assert [(m.text, m.created_at) for m in manager.long_term.messages()] == [("Cooking only.", NOON)]
    assert manager.long_term.store_messages(reversed(both)) != []
    assert [m.text for m in manager.long_term.messages()] == [LONG_SECRET]
    _delete_everything(manager)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]


def test_p24_an_update_that_was_interrupted_leaves_nothing_that_a_deletion_does_not_find(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.long_term.store_messages([Message("user", LONG_SECRET, id="x")])
    cut = Message("user", pieces(LONG_SECRET)[0], id="x")  # of which the first piece does not change

    def fail(self: Any, *args: Any) -> None:
        raise StoreUnavailableError("no answer")

    with monkeypatch.context() as away:
        away.setattr(MemoryCollection, "upsert", fail)
        with pytest.raises(StoreUnavailableError):
            manager.long_term.store_messages([cut])
    manager.long_term.store_messages([cut])
    assert [m.text for m in manager.long_term.messages()] == [cut.text]
    _delete_everything(manager)


def test_p24_what_is_taken_out_of_a_message_is_in_no_file(manager: MemoryManager, tmp_path: Path) -> None:
    for text in ("My password is hunter2", "My password is hunter2, really.", "My password is [removed]."):
        manager.long_term.store_messages([Message("user", text, id="x")])
    assert texts(manager, "password") == ["8 May 2025 user: My password is [removed]."]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]


@pytest.mark.parametrize("text", ["My PIN is 4711.", "My PIN is 4711, and that is a long story. " * 100])
@pytest.mark.parametrize("left", ["", delimit("recalled", "What was said.")], ids=["nothing", "an injected block"])
def test_p24_a_message_that_is_told_again_with_nothing_left_in_it_is_in_no_file(
    manager: MemoryManager, tmp_path: Path, text: str, left: str
) -> None:
    """P24: nobody deleted it, so that it may be told again."""
    memory = manager.long_term

    def tell(text: str) -> list[str]:
        others = [Message("user", "The kettle is red.", id="k"), Message("assistant", "", id="never said")]
        return memory.store_messages([*others, Message("user", text, id="m", session_id="s")])

    kettle, secret = tell(text)
    [last] = memory._stored([secret])[secret][-1:]
    assert tell(left) == [kettle]
    assert memory.count() == 1
    assert [message.text for message in memory.messages()] == ["The kettle is red."]
    assert found_in_files(tmp_path, b"4711") == []
    assert memory._collection.retrieve([secret, last.id]) == []
    assert tell(left) == [kettle]
    assert tell(text) == [kettle, secret]
    assert sorted(message.text for message in memory.messages()) == sorted(["The kettle is red.", text])


def test_a_message_told_twice_in_one_call_is_as_it_was_told_last_also_with_nothing_in_it(
    manager: MemoryManager,
) -> None:
    memory = manager.long_term
    memory.store_messages([Message("user", "Something.", id="m"), Message("user", "", id="m")])
    assert memory.count() == 0
    memory.store_messages([Message("user", "", id="m"), Message("user", "Something.", id="m")])
    assert [message.text for message in memory.messages()] == ["Something."]


def test_messages_with_nothing_in_them_make_no_collection(manager: MemoryManager, tmp_path: Path) -> None:
    assert manager.long_term.store_messages([Message("user", "", id="m"), Message("assistant", "")]) == []
    assert not (tmp_path / "vectors").exists()
    assert not manager._open.memories.is_open


def test_p24_pieces_that_nothing_tells_of_go_with_their_message(manager: MemoryManager) -> None:
    """Such as an earlier version left when it was interrupted."""
    manager.long_term.store_messages([Message("user", LONG_SECRET, id="x", session_id="s")])
    collection = manager._open.memories
    first = point_id("user:ann", "s", "x")
    (point,) = collection.retrieve([first])
    fields = {key: value for key, value in point.payload["metadata"].items() if key not in ("piece", "pieces")}
    collection.put(collection.encode([first], [{"page_content": "About cooking.", "metadata": fields}]))
    _delete_everything(manager)


@pytest.mark.parametrize("session", ["s", None])
def test_p24_a_message_is_deleted_by_any_of_its_pieces(manager: MemoryManager, session: str | None) -> None:
    others = [
        Message("user", "Cooking eggs.", id="y", session_id=session),
        Message("user", "Rain.", id="x", session_id="t"),
    ]
    manager.long_term.store_messages([Message("user", LONG_SECRET, id="x", session_id=session), *others])
    further = [str(p.id) for p in manager._open.memories.scroll(None) if p.payload["metadata"].get("piece")]
    assert manager.long_term.delete(further[:1]) == 1
    assert sorted(m.text for m in manager.long_term.messages()) == ["Cooking eggs.", "Rain."]
    again = Message("user", LONG_SECRET, id="x", session_id=session)
    assert manager.long_term.recorded([again]) == {"x": None}, "told again, it does not come back"


def test_p24_what_another_process_deleted_is_no_hit(tmp_path: Path) -> None:
    """Its ranking knows the conversation as it was before."""
    engine = QdrantEdgeClient(tmp_path / "engine")  # as a server is: two memories on one client
    with (
        MemoryManager("user:ann/session:s", data_dir=tmp_path, qdrant=engine) as one,
        MemoryManager("user:ann/session:s", data_dir=tmp_path, qdrant=engine) as two,
    ):
        one.add_turn("What do you think of Lisbon?", "Lisbon has trams.")
        one.add_turn("My password is hunter2.", "Noted.")
        one.add_turn("The tram in Lisbon was late.", "I see.")
        assert len(two.search_long_term("Lisbon tram", 10)) == 6
        (secret,) = one.search_long_term("password hunter2", 1)
        one.long_term.delete([secret.id])
        hits = two.search_long_term("Lisbon tram", 10)
        assert len(hits) == 5 and all(hit.metadata["scope"] == "user:ann" for hit in hits)
        assert "note:" not in two.get_context("Lisbon tram", 1000).combined


STRANGE: list[dict[str, Any]] = [
    {"created_at": 1699999999},
    {"created_at": "yesterday"},
    {"created_at": "2024-05-05T00:00:00", "expires_at": "2030-01-01T00:00:00"},
    {"expires_at": ["never"]},
    {"pieces": "3"},
    {"pieces": 3, "piece": 7},
    {"order": "x"},
    {"name": ["a"], "session_id": 5, "role": None, "message_id": 8},
    {"kind": "message", "extra": "x", "role": ""},
    {"kind": "message", "message_id": "m", "created_at": "2024-05-05"},
]


@pytest.mark.parametrize("fields", STRANGE, ids=str)
def test_what_another_program_says_of_its_memory_breaks_nobodys_search(
    manager: MemoryManager, fields: dict[str, Any]
) -> None:
    manager.long_term.store_conversation("Hello there.", "Hi!")
    manager.long_term.vectorstore.add_texts(["Hello from a document."], metadatas=[{"scope": "global", **fields}])
    assert any("Hello from a document." in text for text in texts(manager, "hello"))
    assert "Hello there." in manager.get_context("hello", 1000).combined
    manager.long_term.search("hello", since=NOON - timedelta(days=9999), until=NOON)
    everybody = manager.for_scope("global")
    assert [m.role for m in everybody.long_term.messages()] == ["note"]
    everybody.long_term.erase()
    assert list(everybody.long_term.messages()) == []


MAIL = [f"Part {number} of the mail about the harbour." for number in range(3)]


def add_mail(manager: MemoryManager, **fields: Any) -> list[str]:
    """Three chunks of one mail, as splitters make them: each has a copy of all that is said of the mail."""
    metadatas = [{"scope": manager.scope.tag, "message_id": "<mail@example>", **fields} for _ in MAIL]
    return [str(UUID(id_)) for id_ in manager.long_term.vectorstore.add_texts(MAIL, metadatas=metadatas)]


@pytest.mark.parametrize(
    "fields",
    [{}, {"session_id": "s"}, {"piece": 1, "pieces": 3}, {"kind": "mail"}, {"kind": ["message"], "pieces": 10**9}],
    ids=str,
)
def test_p22_what_another_program_says_of_its_documents_makes_no_two_of_them_one(
    manager: MemoryManager, fields: dict[str, Any]
) -> None:
    """P22: what is a name in our messages is anything in its own."""
    manager.long_term.store_messages([Message("user", "I like the harbour.", id="m", session_id="s")])
    ids = add_mail(manager, **fields)
    assert manager.long_term.count() == 4
    assert sorted(message.text for message in manager.long_term.messages()) == ["I like the harbour.", *MAIL]
    hits = manager.search_long_term("the harbour", 10)
    assert {hit.id for hit in hits} > set(ids)
    assert len(hits) == 4
    assert manager.long_term.delete(ids[:1]) == 1
    assert sorted(message.text for message in manager.long_term.messages()) == ["I like the harbour.", *MAIL[1:]]
    assert manager.long_term.count() == 3
    assert manager.long_term.delete(ids) == 2
    assert [message.id for message in manager.long_term.messages()] == ["m"]


@pytest.mark.parametrize("text", ["I like the harbour.", "I like the harbour. " * 200], ids=["short", "in pieces"])
def test_p22_a_document_with_the_name_of_a_message_is_another_memory(manager: MemoryManager, text: str) -> None:
    """P22: neither hides the other, nor goes with it."""
    said = [Message("user", text, id="<mail@example>", session_id="s")]
    [message] = manager.long_term.store_messages(said)
    first, second, third = add_mail(manager, session_id="s")
    assert sorted(one.text for one in manager.long_term.messages()) == sorted([text, *MAIL])
    assert manager.long_term.delete([first]) == 1
    assert sorted(one.text for one in manager.long_term.messages()) == sorted([text, *MAIL[1:]])
    assert manager.long_term.delete([message]) == 1
    assert sorted(one.text for one in manager.long_term.messages()) == MAIL[1:]
    assert manager.long_term.recorded(said) == {"<mail@example>": None}, "its mark stands where it stood"
    assert manager.long_term.delete([second, third]) == 2
