"""The manager: three memories behind one door, on real stores."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import AsyncQdrantClient

from memory_integrations import (
    BudgetError,
    Compress,
    Delete,
    ManagementError,
    ManagementPlan,
    ManagementReceipt,
    MemoryManager,
    MemoryScope,
    Message,
    MessageError,
    PolicyError,
    Promote,
    ScopeError,
    ShortTermPolicy,
    StoreCorruptedError,
    StoreError,
    StoreUnavailableError,
    TokenCounter,
)
from memory_integrations.journal_files import JsonlJournal
from memory_integrations.views import BudgetWarning

SESSION = "user:ann/session:1"
count = TokenCounter().count


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[MemoryManager]:
    with MemoryManager(SESSION, data_dir=tmp_path) as memory:
        yield memory


def receipt_of(result: ManagementReceipt | ManagementPlan) -> ManagementReceipt:
    assert isinstance(result, ManagementReceipt)
    return result


def plan_of(result: ManagementReceipt | ManagementPlan) -> ManagementPlan:
    assert isinstance(result, ManagementPlan)
    return result


def test_a_turn_is_in_short_term_and_in_long_term_memory(manager: MemoryManager) -> None:
    manager.add_turn("What's my name?", "Your name is John")
    assert [entry.content for entry in manager.short_term.entries] == ["What's my name?", "Your name is John"]
    assert manager.search_long_term("John")[0].message_ids[0] in {entry.id for entry in manager.short_term.entries}


def test_siblings_share_what_is_open(manager: MemoryManager) -> None:
    same = manager.for_scope(SESSION)
    manager.add_turn("Hello there", "Good to see you")
    assert same.short_term is manager.short_term
    other = manager.for_scope(MemoryScope("ann", "2"))
    other.set_fact("city", "Lisbon")
    assert manager.get_fact("city") == "Lisbon"
    assert len(other.short_term) == 0
    assert repr(other) == "MemoryManager(scope='user:ann/session:2')"


def test_context_holds_facts_conversation_and_recalled_memories(manager: MemoryManager) -> None:
    manager.for_scope("user:ann/session:0").add_turn("I keep bees on the roof", "How many hives?")
    manager.set_fact("name", "Ann")
    manager.add_turn("Good morning to you", "Good morning, Ann")
    context = manager.get_context("What animals do I keep?", max_tokens=500)
    assert '"name": "Ann"' in context.features
    assert "Good morning to you" in context.short_term
    assert "bees on the roof" in context.long_term
    assert [message.text for message in context.messages] == ["Good morning to you", "Good morning, Ann"]
    positions = [context.combined.index(part) for part in ('"name"', "Good morning to you", "bees")]
    assert positions == sorted(positions)
    assert context.token_usage["total"] == count(context.combined) <= 500
    assert str(context) == context.combined


def test_p34_an_unchanged_memory_gives_the_same_bytes(manager: MemoryManager) -> None:
    manager.for_scope("user:ann/session:0").add_turn("I keep bees on the roof", "How many hives?")
    manager.set_fact("name", "Ann")
    manager.add_turn("Hello to you", "Hello, Ann")
    contexts = {manager.get_context("bees?", max_tokens=400).combined.encode() for _ in range(5)}
    assert len(contexts) == 1


def test_p10_what_was_injected_is_never_stored_again(manager: MemoryManager) -> None:
    manager.set_fact("name", "Ann")
    manager.for_scope("user:ann/session:0").add_turn("I keep bees on the roof", "How many hives?")
    for i in range(5):
        context = manager.get_context("bees?", max_tokens=1000)
        manager.add_turn(f"{context.combined}\nQuestion {i}: what do I keep?", f"{context.combined}\nAnswer {i}: bees.")
    said = [message.text for message in manager.long_term.messages()]
    assert len(said) == 12
    assert said[2:4] == ["Question 0: what do I keep?", "Answer 0: bees."]
    assert not any("<memory:" in entry.content for entry in manager.short_term.entries)


def test_a_memory_shown_in_the_conversation_is_not_recalled_besides(manager: MemoryManager) -> None:
    manager.add_turn("I keep bees on the roof", "How many hives?")
    context = manager.get_context("bees", max_tokens=1000)
    assert context.combined.count("I keep bees") == 1
    assert {drop.reason for drop in context.dropped} == {"already in the conversation"}


@pytest.mark.parametrize("budget", [0, 1, 10, 25, 60, 150, 400, 3000])
def test_p3_one_budget_is_kept_whatever_it_is(manager: MemoryManager, budget: int) -> None:
    for i in range(30):
        manager.set_fact(f"fact {i}", f"value number {i}")
        manager.for_scope("user:ann/session:0").add_turn(f"Story {i} about bees and hives", "I see, go on")
    for i in range(30):
        manager.add_turn(f"Short message {i}", f"Short answer {i}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BudgetWarning)
        context = manager.get_context("bees", max_tokens=budget)
    assert "Short message 29" in context.short_term
    assert context.token_usage["total"] <= max(
        budget, count("<memory:conversation>\nuser: Short message 29\n</memory:conversation>")
    )
    shown = context.combined
    assert all(drop.id for drop in context.dropped)
    assert budget > 2000 or context.dropped
    assert len([drop for drop in context.dropped if drop.kind == "fact"]) + shown.count('"fact ') == 30


def test_p2_the_latest_user_message_is_there_even_over_the_budget(manager: MemoryManager) -> None:
    manager.add_turn("word " * 500, "Quite long")
    with pytest.warns(BudgetWarning):
        context = manager.get_context(max_tokens=100)
    assert context.short_term.startswith("user: word")


def test_reserved_tokens_are_left_free_p3(tmp_path: Path) -> None:
    policy = ShortTermPolicy(reserved_tokens=900)
    with MemoryManager(SESSION, data_dir=tmp_path, short_term_policy=policy) as memory:
        for i in range(50):
            memory.add_turn(f"Message {i} of some length or other", "An answer of some length")
        assert memory.get_context(max_tokens=1000).token_usage["total"] <= 100


def test_managing_by_rules_promotes_deletes_and_compresses(tmp_path: Path) -> None:
    policy = ShortTermPolicy(compression_threshold=60, min_entries=1)
    long = "The roof needs work. " + " ".join(f"Beam {i} of the roof is {i} metres long." for i in range(30))
    with MemoryManager(SESSION, data_dir=tmp_path, short_term_policy=policy) as memory:
        memory.add_turn("My name is Ann. I live in Lisbon.", "Hello!")
        memory.add_turn(long, "Thanks!")
        memory.add_turn("Which beam is the longest one?", "Beam 29, it seems")
        before = memory.short_term.entries
        plan = plan_of(memory.manage_short_term(dry_run=True))
        assert memory.short_term.entries == before
        assert not memory.features.keys()
        receipt = receipt_of(memory.apply(plan))
        assert (memory.get_fact("name"), memory.get_fact("city")) == ("Ann", "Lisbon")
        assert receipt.tokens_after < receipt.tokens_before
        assert {type(decision) for decision in receipt.decisions} == {Promote, Delete, Compress}
        fact = memory.features.get_with_history("name")
        assert fact is not None
        assert (fact.history[0].source, fact.history[0].message_id) == ("rule", before[0].id)
        memory.undo(receipt)
        assert memory.short_term.entries == before
        assert not memory.features.keys()


def test_a_plan_made_before_more_was_said_still_applies_safely(manager: MemoryManager) -> None:
    manager.add_turn("Thanks!", "My pleasure")
    manager.add_turn("I work as a baker at Boulange", "How nice")
    plan = plan_of(manager.manage_short_term(dry_run=True))
    manager.short_term.delete(manager.short_term.entries[0].id)
    manager.add_turn("One more thing to say", "Go on then")
    receipt = manager.apply(plan)
    assert [skip.why for skip in receipt.skipped] == ["there is no such entry"]
    assert manager.get_fact("employer") == "Boulange"
    assert "One more thing to say" in [entry.content for entry in manager.short_term.entries]


def test_nothing_to_do_is_not_a_failure(manager: MemoryManager) -> None:
    receipt = receipt_of(manager.manage_short_term())
    assert (receipt.decisions, receipt.failed, receipt.calls) == ((), None, 0)
    failed = manager.apply(ManagementPlan(failed="no answer in time"))
    assert failed.failed == "no answer in time"


def test_a_promotion_that_is_no_fact_is_skipped_and_the_rest_is_done(manager: MemoryManager) -> None:
    manager.add_turn("Something to say", "Something to answer")
    entry = manager.short_term.entries[0].id
    receipt = manager.apply(ManagementPlan((Promote(entry, "k", object()), Promote(entry, "fine", 1))))
    assert manager.features.keys() == ["fine"]
    assert len(receipt.skipped) == 1


def test_it_manages_every_n_turns(tmp_path: Path) -> None:
    policy = ShortTermPolicy(manage_every_n_turns=3, min_entries=0)
    with MemoryManager(SESSION, data_dir=tmp_path, short_term_policy=policy) as memory:
        memory.add_turn("My name is Ann.", "Hello Ann, what a day")
        memory.add_turn("Thanks!", "What else is there?")
        assert memory.get_fact("name") is None
        memory.add_turn("Nothing else today", "Until tomorrow then")
        assert memory.get_fact("name") == "Ann"
        assert "Thanks!" not in [entry.content for entry in memory.short_term.entries]


def test_decayed_entries_are_managed_away_and_use_keeps_them_p30(tmp_path: Path) -> None:
    now = [datetime(2025, 1, 1, tzinfo=UTC)]
    policy = ShortTermPolicy(decay_half_life=timedelta(hours=1), min_retention=0.1, access_boost=5.0, min_entries=0)
    with MemoryManager(SESSION, data_dir=tmp_path, short_term_policy=policy, clock=lambda: now[0]) as memory:
        memory.add_turn("The harbour opens at nine", "I will note that")
        memory.add_turn("Zebras have stripes", "They certainly do")
        memory.get_context("When does the harbour open? nine", max_tokens=40)
        for entry in memory.short_term.entries[2:]:
            memory.short_term.delete(entry.id)
        now[0] += timedelta(hours=4)
        memory.manage_short_term()
        assert "The harbour opens at nine" in [entry.content for entry in memory.short_term.entries]


def test_clear_session_keeps_what_is_durable(manager: MemoryManager) -> None:
    manager.add_turn("I keep bees on the roof", "How many hives?")
    manager.set_fact("name", "Ann")
    assert manager.clear_session() == 2
    assert manager.get_stats() == {
        "scope": SESSION,
        "short_term": {"entries": 0, "tokens": 0},
        "features": {"facts": 1},
        "long_term": {"memories": 2},
    }


def test_erasing_a_session_leaves_the_users_other_sessions(manager: MemoryManager) -> None:
    other = manager.for_scope("user:ann/session:2")
    manager.add_turn("First session speaking", "Yes indeed")
    other.add_turn("Second session speaking", "Yes indeed")
    receipt = manager.erase()
    assert (receipt.scope, receipt.memories, receipt.messages) == (SESSION, 2, 2)
    assert len(other.short_term) == 2
    assert next(other.long_term.messages()).text == "Second session speaking"


def test_erasing_a_user_clears_every_session_of_theirs(manager: MemoryManager) -> None:
    manager.add_turn("First session speaking", "Yes indeed")
    manager.for_scope("user:ann/session:2").add_turn("Second session speaking", "Yes indeed")
    receipt = manager.for_scope("user:ann").erase()
    assert (receipt.memories, receipt.messages) == (4, 4)
    assert len(manager.short_term) == 0


def test_a_failed_write_raises_and_changes_nothing(tmp_path: Path) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("in the way")
    with pytest.raises(StoreError, match="a file"):
        MemoryManager(SESSION, data_dir=blocked).set_fact("name", "Ann")
    with pytest.raises(StoreUnavailableError, match=r"'~nosuchuser/x'.*no such user"):
        MemoryManager(SESSION, data_dir="~nosuchuser/x")
    with MemoryManager(SESSION, data_dir=tmp_path / "fine") as memory:
        (tmp_path / "fine").mkdir()
        (tmp_path / "fine" / "vectors").write_text("in the way")
        with pytest.raises(StoreError, match="vectors"):
            memory.add_turn("Is anybody there?", "It seems not")
        assert len(memory.short_term) == 0


def test_p7_ids_and_tool_calls_survive(manager: MemoryManager) -> None:
    said = [Message("user", "What is the weather in Porto?", id="u1"), Message("assistant", "Sunny.", id="a1")]
    assert manager.add_messages(said) == ["u1", "a1"]
    assert manager.add_messages(said) == ["u1", "a1"]
    assert len(manager.short_term) == manager.long_term.count() == 2


def test_p9_what_the_user_said_is_kept_alone(manager: MemoryManager) -> None:
    manager.add_messages([Message("user", "Then the stream broke off")])
    assert manager.short_term.entries[-1].content == "Then the stream broke off"
    assert manager.search_long_term("stream")[0].text.endswith("Then the stream broke off")


@pytest.mark.parametrize("deleting", ["global", "session:A"])
def test_p22_what_has_no_user_deletes_nothing_of_a_session_that_it_names(manager: MemoryManager, deleting: str) -> None:
    """``session:B`` is a scope of its own, and no session of the global scope or of ``session:A``."""
    theirs, ours = manager.for_scope("session:B"), manager.for_scope(deleting)
    said = Message("user", "a note on bees", id="1", session_id="B")
    theirs.follow([said, Message("assistant", "Noted.", id="2")])
    (stored,) = ours.long_term.store_messages([said])
    assert ours.long_term.delete([stored]) == 1
    assert [entry.id for entry in theirs.short_term.entries] == ["1", "2"]
    assert len(list(theirs.long_term.messages())) == 2


@pytest.mark.parametrize("scope", ["", "user:", "ann", "user", "session:", "user:a/session:", None, 7])
def test_malformed_scopes_are_refused(tmp_path: Path, scope: object) -> None:
    with pytest.raises(ScopeError, match="expected"):
        MemoryManager(scope, data_dir=tmp_path)  # type: ignore[arg-type]


def test_bad_arguments(manager: MemoryManager) -> None:
    with pytest.raises(BudgetError, match="-1"):
        manager.get_context("x", max_tokens=-1)
    for user, assistant in (("", "x"), ("x", "  ")):
        with pytest.raises(MessageError, match="empty"):
            manager.add_turn(user, assistant)
    assert len(manager.short_term) == manager.long_term.count() == 0


def test_after_close_everything_opens_again(tmp_path: Path) -> None:
    memory = MemoryManager(SESSION, data_dir=tmp_path)
    memory.add_turn("Remember the heron", "I will")
    memory.set_fact("bird", "heron")
    memory.close()
    memory.close()
    assert memory.search_long_term("heron")
    memory.set_fact("bird", "stork")
    assert memory.get_fact("bird") == "stork"
    memory.close()


def test_only_facts_leave_the_engine_alone(tmp_path: Path) -> None:
    memory = MemoryManager(SESSION, data_dir=tmp_path)
    memory.set_fact("city", "Faro")
    assert "Faro" in memory.get_context().combined
    assert not (tmp_path / "vectors").exists()
    memory.close()


def test_many_users_do_not_keep_many_files_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with MemoryManager("global", data_dir=tmp_path) as memory:
        for i in range(400):
            memory.for_scope(f"user:{i}").set_fact("number", i)
        assert len(os.listdir("/proc/self/fd")) - before < 150
        assert [memory.for_scope(f"user:{i}").get_fact("number") for i in range(400)] == list(range(400))


def test_p21_interleaved_users_in_threads_see_only_their_own(manager: MemoryManager) -> None:
    problems: list[str] = []

    def work(user: int) -> None:
        memory = manager.for_scope(f"user:{user}/session:s")
        memory.set_fact("number", user)
        for i in range(10):
            memory.add_turn(f"secret-{user}-{i} is what I say", f"I heard secret-{user}-{i}")
            shown = memory.get_context(f"secret {i}", max_tokens=600).combined
            if any(f"secret-{other}-" in shown for other in range(8) if other != user):
                problems.append(f"user {user} was shown another's memory")

    threads = [threading.Thread(target=work, args=(user,)) for user in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


@pytest.mark.parametrize("stands_still", ["opening", "embedding anew", "reading a user's messages"])
def test_p35_a_scope_is_at_hand_while_the_store_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stands_still: str
) -> None:
    """P35: ``for_scope`` is called on event loops, and has no async form."""
    with MemoryManager(SESSION, data_dir=tmp_path, language="english") as memory:
        memory.add_turn("I keep bees on the roof", "How many hives?")
    reached, may_go_on = threading.Event(), threading.Event()

    def slow(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            reached.set()
            assert may_go_on.wait(30)
            return real(*args, **kwargs)

        return call

    language = "german" if stands_still == "embedding anew" else "english"
    with MemoryManager(SESSION, data_dir=tmp_path, language=language) as memory, ThreadPoolExecutor(2) as pool:
        collection = memory._open.memories
        name = {"opening": "_make_client", "embedding anew": "_encode"}.get(stands_still, "scroll")
        monkeypatch.setattr(collection, name, slow(getattr(collection, name)))
        work = memory.long_term.reembed if language == "german" else lambda: memory.search_long_term("bees")
        working = pool.submit(work)
        try:
            assert reached.wait(30)
            assert (
                pool.submit(memory.for_scope, "user:somebody else").result(timeout=5).scope.user_id == "somebody else"
            )
        finally:
            may_go_on.set()
        working.result()


async def test_p35_async_twins_do_the_same_and_leave_the_loop_free(manager: MemoryManager) -> None:
    pauses: list[float] = []

    async def tick() -> None:
        while True:
            started = time.perf_counter()
            await asyncio.sleep(0.001)
            pauses.append(time.perf_counter() - started)

    await manager.aadd_turn("warm up the model and the engine", "done")
    ticker = asyncio.create_task(tick())
    await asyncio.gather(*(manager.aadd_turn(f"My name is Ann {i}", "Hello") for i in range(30)))
    await manager.aset_fact("bird", "heron")
    await manager.astore_file_summary("a.txt", "About herons")
    assert await manager.asearch_long_term("heron")
    assert "heron" in (await manager.aget_context("heron")).combined
    assert receipt_of(await manager.amanage_short_term()).failed is None
    assert (await manager.aget_stats())["long_term"]["memories"] == 63
    await manager.aadd_messages([Message("user", "last words")])
    ticker.cancel()
    assert len(pauses) >= 3  # it went on ticking
    assert (await manager.aerase()).memories == 63
    await manager.aclose()


def test_every_blocking_method_has_an_async_twin() -> None:
    blocking = {"add_turn", "add_messages", "get_context", "set_fact", "search_long_term", "store_file_summary"}
    blocking |= {"manage_short_term", "apply", "undo", "get_stats", "erase", "close"}
    assert {name for name in blocking if not hasattr(MemoryManager, f"a{name}")} == set()


# What a newcomer ran into


def test_p21_threads_of_one_manager_add_and_search_at_once(manager: MemoryManager) -> None:
    failed: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for turn in range(30):
                manager.add_turn(f"thread {thread} turn {turn}", f"ok {thread} {turn}")
                manager.get_context("turn", max_tokens=80)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert manager.long_term.count() == 240


def test_turns_of_several_threads_stay_whole_in_the_conversation(tmp_path: Path) -> None:
    with MemoryManager(SESSION, data_dir=tmp_path, short_term_policy=ShortTermPolicy(max_tokens=10**6)) as memory:

        def talk(thread: int) -> None:
            for turn in range(30):
                memory.add_turn(f"question {thread} {turn}", f"answer {thread} {turn}")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(talk, range(8)))
        said = [entry.content for entry in memory.short_term.entries]
        assert len(said) == 8 * 30 * 2
        assert [text.replace("question", "answer") for text in said[::2]] == said[1::2]
        assert [message.content for message in memory.long_term.messages()] == said


def test_a_turn_of_another_session_goes_to_that_sessions_conversation(manager: MemoryManager) -> None:
    manager.add_turn("Said in the first", "Yes")
    manager.add_turn("Said in the second", "Yes", session_id="2")
    second = manager.for_scope("user:ann/session:2")
    assert "second" not in manager.get_context().combined
    assert "Said in the second" in second.get_context().combined
    assert second.erase().messages == 2


@pytest.mark.parametrize("scope", ["global", "session:1"])
def test_p21_without_a_user_a_turn_of_another_session_is_that_sessions_alone(
    scope: str, manager: MemoryManager
) -> None:
    memory = manager.for_scope(scope)
    memory.add_turn("My bank is in Zurich", "Noted", session_id="2")
    other = manager.for_scope("session:2")
    assert "Zurich" not in memory.get_context("Where is my bank?").combined
    assert memory.search_long_term("bank in Zurich") == []
    assert [hit.metadata["role"] for hit in other.search_long_term("bank in Zurich")][:1] == ["user"]
    assert memory.erase().memories == 0
    assert "Zurich" in other.get_context().combined
    receipt = other.erase()
    assert (receipt.memories, receipt.messages) == (2, 2)
    assert "Zurich" not in other.get_context("Where is my bank?").combined


def test_turns_are_counted_in_the_session_they_belong_to(tmp_path: Path) -> None:
    policy = ShortTermPolicy(manage_every_n_turns=2)
    with MemoryManager("user:ann/session:1", data_dir=tmp_path, short_term_policy=policy) as memory:
        memory.add_turn("Good morning", "Hello")
        memory.add_turn("I live in Oslo.", "Nice.", session_id="2")
        assert memory.get_fact("city") is None, "one turn in each"
        memory.add_turn("Good morning", "Hello", session_id="2")
        assert memory.get_fact("city") == "Oslo"


def test_a_fact_set_later_is_not_overwritten_by_what_was_said_before(manager: MemoryManager) -> None:
    manager.add_turn("I live in Rome.", "Nice.")
    manager.set_fact("city", "Paris")
    receipt = receipt_of(manager.manage_short_term())
    assert manager.get_fact("city") == "Paris"
    assert [skip.why for skip in receipt.skipped] == ["the fact was changed after this was said"]
    manager.add_turn("I live in Turin now.", "Oh, lovely.")
    manager.manage_short_term()
    assert manager.get_fact("city") == "Turin"


def test_another_scopes_plan_or_receipt_is_refused(manager: MemoryManager) -> None:
    other = manager.for_scope("user:bob")
    other.add_turn("I live in Rome.", "Nice.")
    plan = plan_of(other.manage_short_term(dry_run=True))
    with pytest.raises(ManagementError, match="user:bob"):
        manager.apply(plan)
    receipt = receipt_of(other.apply(plan))
    with pytest.raises(ManagementError, match="user:bob"):
        manager.undo(receipt)
    again = receipt_of(other.apply(plan))
    assert [skip.why for skip in again.skipped] == ["the fact is known already"]


def test_no_budget_is_no_limit(manager: MemoryManager) -> None:
    manager.add_turn("word " * 3000, "Quite long")
    assert manager.get_context(max_tokens=None).short_term.count("word") == 3000


def test_a_message_of_another_kind_is_refused(manager: MemoryManager) -> None:
    with pytest.raises(MessageError, match=r"expected a memory_integrations\.Message"):
        manager.add_messages([{"role": "user", "content": "x"}])  # type: ignore[list-item]


def test_a_policy_that_is_none_says_so_at_once(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="expected a ShortTermPolicy"):
        MemoryManager("global", data_dir=tmp_path, short_term_policy={"max_tokens": 100})  # type: ignore[arg-type]


def test_who_searches_while_a_memory_is_closed_is_handed_no_closed_client_for_good(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.add_turn("Hello", "Hello to you")
    closing, searched = threading.Event(), threading.Event()
    close = manager._open.memories.close

    def close_slowly() -> None:
        close()
        closing.set()
        searched.wait(0.3)  # nobody can search in between, so that nobody ends this

    def search() -> None:
        closing.wait()
        manager.search_long_term("hello")
        searched.set()

    monkeypatch.setattr(manager._open.memories, "close", close_slowly)
    searcher = threading.Thread(target=search)
    searcher.start()
    manager.close()
    searcher.join()
    assert len(manager.search_long_term("hello")) == 2


def test_a_call_whose_engine_is_closed_under_it_says_so_in_a_type_of_this_package(
    manager: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.add_turn("Hello", "Hello to you")
    table = manager._open.memories.table

    def closed_meanwhile(tag: str) -> Any:
        found = table(tag)
        monkeypatch.undo()
        manager._open._own_client.close()  # type: ignore[union-attr]
        return found

    monkeypatch.setattr(manager._open.memories, "table", closed_meanwhile)
    with pytest.raises(StoreUnavailableError, match="closed"):
        manager.search_long_term("hello")
    manager.close()
    assert len(manager.search_long_term("hello")) == 2


def test_a_damaged_journal_is_met_where_facts_are_used(tmp_path: Path) -> None:
    with MemoryManager("user:ann", data_dir=tmp_path) as memory:
        memory.add_turn("I play the oboe.", "Do you?")
        memory.set_fact("instrument", "oboe")
    [journal] = (tmp_path / "journal").glob("user-ann*.jsonl")
    journal.write_bytes(journal.read_bytes() + b"broken\n")
    with MemoryManager("user:ann", data_dir=tmp_path) as memory:
        assert memory.search_long_term("What do I play?")
        for use in (memory.get_stats, memory.get_context, memory.erase):
            with pytest.raises(StoreCorruptedError):
                use()
        assert memory.long_term.count() == 2, "an erasure that is refused removes nothing"


async def test_a_manager_closes_itself_in_async_code_too(tmp_path: Path) -> None:
    async with MemoryManager("user:ann", data_dir=tmp_path) as memory:
        await memory.aadd_turn("Hello", "Hello")
    assert MemoryManager("user:ann", data_dir=tmp_path).long_term.count() == 2


def test_a_session_whose_journal_is_held_keeps_nobody_else_waiting(tmp_path: Path) -> None:
    with MemoryManager(data_dir=tmp_path) as memory:
        ann = memory.for_scope("user:ann/session:1")
        ann.add_turn("I live in Lisbon.", "Nice.")
        ann.manage_short_term()
        ann.short_term.compress_entry(ann.short_term.entries[0].id, "Lisbon")
        ann.manage_short_term()
    with MemoryManager(data_dir=tmp_path) as memory:
        path = next((tmp_path / "journal").glob("user-ann-session-1.*"))
        waiting = threading.Thread(target=lambda: memory.for_scope("user:ann/session:1").short_term)
        with open(path, "rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            waiting.start()
            waiting.join(0.2)
            assert waiting.is_alive()
            assert len(memory.for_scope("user:bob/session:1").short_term) == 0
        waiting.join()


def test_a_context_says_whether_the_budget_or_the_number_left_a_memory_out(manager: MemoryManager) -> None:
    for number in range(5):
        manager.for_scope("user:ann/session:old").add_turn(f"My oboe number {number} is red", f"Number {number}, I see")
    reasons = {dropped.reason for dropped in manager.get_context("oboe", 100_000, recall=1).dropped}
    assert "recall" in reasons and "budget" not in reasons
    assert {dropped.reason for dropped in manager.get_context("oboe", 60, recall=50).dropped} == {"budget"}


@pytest.mark.parametrize("qdrant", [5, ["http://localhost:6333"], object(), AsyncQdrantClient(":memory:")])
def test_what_is_no_store_of_memories_is_said_so_at_once(tmp_path: Path, qdrant: Any) -> None:
    with pytest.raises(StoreUnavailableError, match=r"qdrant=.*: expected a server's URL, a QdrantServer, a QdrantCl"):
        MemoryManager(data_dir=tmp_path, qdrant=qdrant)


def test_what_is_no_plan_or_receipt_changes_nothing(manager: MemoryManager) -> None:
    plan: Any = manager.manage_short_term(dry_run=True)
    receipt: Any = manager.manage_short_term()
    for change, wrong, name in ((manager.apply, receipt, "Plan"), (manager.undo, plan, "Receipt")):
        for given in ("x", None, wrong):
            with pytest.raises(ManagementError, match=f"expected a Management{name}. Nothing was changed"):
                change(given)


def test_nobody_waits_for_the_facts_of_another(manager: MemoryManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ann's journal is long, or her database far away: Bob's facts are there at once."""
    manager.for_scope("user:bob").set_fact("city", "Rome")
    manager.close()
    is_read, go_on = threading.Event(), threading.Event()
    real = JsonlJournal.open

    def slow(self: JsonlJournal, scope: MemoryScope, *listeners: Any) -> Any:
        if scope.user_id == "ann":
            is_read.set()
            assert go_on.wait(10)
        return real(self, scope, *listeners)

    monkeypatch.setattr(JsonlJournal, "open", slow)
    with ThreadPoolExecutor(2) as pool:
        reading = pool.submit(manager.for_scope("user:ann").get_fact, "city")
        assert is_read.wait(10)
        assert pool.submit(manager.for_scope("user:bob").get_fact, "city").result(5) == "Rome"
        go_on.set()
        assert reading.result(10) is None
