"""Everybody at once on one memory: threads, tasks and processes, under small limits, with bounded memory."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from load_work import set_facts, work_with_little_memory
from soak import held
from strategies import latest_user_id

from memory_integrations import (
    Compress,
    Delete,
    MemoryManager,
    MemoryScope,
    Message,
    Promote,
    ShortTermMemory,
    ShortTermPolicy,
    ToolCall,
    View,
)
from memory_integrations.policies import Entry

OpenManager = Callable[..., MemoryManager]
THREADS = 8


def at_once(*jobs: Callable[[], object]) -> list[object]:
    """Do jobs in threads that begin together; raise what any of them raised."""
    barrier = threading.Barrier(len(jobs))

    def start(job: Callable[[], object]) -> object:
        barrier.wait()
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [done.result() for done in [pool.submit(start, job) for job in jobs]]


def test_p26_a_conversation_that_is_managed_by_many_at_once_is_managed_once(tmp_path: Path, long_run: bool) -> None:
    """Each is deleted, compressed or learnt from once, whoever came first; and what is said meanwhile stays."""
    policy = ShortTermPolicy(max_tokens=1_000_000, compression_threshold=30, min_entries=1)
    each = 100 if long_run else 12
    with MemoryManager("user:ann/session:s", data_dir=tmp_path, short_term_policy=policy) as memory:

        def say(thread: int) -> None:
            for turn in range(each):
                what = (
                    f"I live in City{thread * 1000 + turn}." if turn % 2 else f"{thread} {turn} tells of boats. " * 20
                )
                memory.add_turn(what, "Hello there")

        def manage() -> None:
            for _ in range(each):
                memory.manage_short_term()

        at_once(*[partial(say, n) for n in range(3)], manage, manage, manage)
        memory.manage_short_term()
        made = [decision for receipt in memory.receipts() for decision in receipt.decisions]
        for kind in (Compress, Delete):
            ids = [decision.entry_id for decision in made if isinstance(decision, kind)]
            assert len(ids) == len(set(ids)) > 0
        cities = [decision.value for decision in made if isinstance(decision, Promote) and decision.key == "city"]
        assert len(cities) == len(set(cities)) > 0
        assert memory.get_fact("city") in cities
        assert len(list(memory.long_term.messages())) == 6 * each, "long-term memory keeps all of it"
        before = [(entry.id, entry.content) for entry in memory.short_term.entries]
    with MemoryManager("user:ann/session:s", data_dir=tmp_path, short_term_policy=policy) as memory:
        memory.resume()
        assert [(entry.id, entry.content) for entry in memory.short_term.entries] == before


async def test_p26_threads_tasks_and_processes_on_one_scope_lose_nothing(
    tmp_path: Path, workers: ForkServerContext, long_run: bool
) -> None:
    """P26, P27: other processes set facts while threads and tasks of this one do everything."""
    each = 200 if long_run else 12
    processes = [workers.Process(target=set_facts, args=(str(tmp_path), f"process {n}", each)) for n in range(3)]
    for process in processes:
        process.start()
    async with MemoryManager("user:ann/session:s", data_dir=tmp_path) as memory:

        def thread(number: int) -> None:
            mine = memory.for_scope(f"user:ann/session:thread {number}")
            for turn in range(each):
                mine.add_turn(f"Thread {number}, turn {turn}.", "Noted.")
                mine.set_fact(f"thread {number} {turn}", turn)
                if turn % 5 == 0:
                    assert mine.get_context(f"turn {turn}", max_tokens=300).messages
                    mine.manage_short_term()

        async def task(number: int) -> None:
            for turn in range(each):
                await memory.aadd_turn(f"Task {number}, turn {turn}.", "Noted.")
                await memory.aset_fact(f"task {number} {turn}", turn)

        threads = asyncio.to_thread(at_once, *[partial(thread, n) for n in range(4)])
        await asyncio.gather(threads, *[task(number) for number in range(4)])
        for process in processes:
            await asyncio.to_thread(process.join, 120)
            assert process.exitcode == 0
        memory.features.refresh()
        names = [f"{kind} {n}" for kind, count in (("process", 3), ("thread", 4), ("task", 4)) for n in range(count)]
        assert memory.features.all() == {f"{name} {turn}": turn for name in names for turn in range(each)}
        said = {message.content for message in memory.long_term.messages()} - {"Noted."}
        assert said == {f"{kind} {n}, turn {t}." for kind in ("Thread", "Task") for n in range(4) for t in range(each)}
        assert memory.long_term.count() == 2 * 8 * each


def test_p21_p22_users_come_and_go_and_nobody_sees_another(manager: OpenManager, long_run: bool) -> None:
    """Some are erased while others write and search; what stays is whole."""
    root, turns = manager("global"), 60 if long_run else 12

    def stay(user: int) -> None:
        memory = root.for_scope(MemoryScope(f"stays {user}", "s"))
        for turn in range(turns):
            memory.add_turn(f"Secret {user} of turn {turn}.", f"Kept {user}.")
            memory.set_fact("me", user)
            for hit in memory.search_long_term(f"Secret of turn {turn}", 20):
                assert f"Secret {user} " in hit.text or f"Kept {user}." in hit.text, hit.text
            assert memory.long_term.count() == 2 * (turn + 1)
            context = memory.get_context("Secret", max_tokens=2000)
            assert context.features == f'{{\n"me": {user}\n}}'

    def go(user: int) -> None:
        for turn in range(turns // 3):
            memory = root.for_scope(MemoryScope(f"goes {user}", f"s{turn}"))
            memory.add_turn(f"Goes {user}, turn {turn}.", "Gone soon.")
            memory.set_fact("turn", turn)
            receipt = root.for_scope(MemoryScope(f"goes {user}")).erase()
            assert (receipt.facts, receipt.memories, receipt.messages) == (1, 2, 2)
            assert memory.long_term.count() == 0 and memory.get_fact("turn") is None

    at_once(*[partial(stay, n) for n in range(5)], *[partial(go, n) for n in range(3)])
    for user in range(5):
        assert root.for_scope(MemoryScope(f"stays {user}")).long_term.count() == 2 * turns


def test_p26_an_erasure_while_others_read_is_done(manager: OpenManager, long_run: bool) -> None:
    """It writes the files anew and closes the old ones: whoever is reading them reads to the end first."""
    root, erased = manager("global"), 60 if long_run else 6
    ann = root.for_scope("user:ann")
    ann.long_term.store_messages([Message("user", f"Message {n} tells of boat {n * 7}.") for n in range(200)])
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            assert len(ann.search_long_term("Which boat?", 20)) == 20

    def erase() -> None:
        try:
            for number in range(erased):
                memory = root.for_scope(MemoryScope(f"user {number}"))
                memory.set_fact("k", 1)
                memory.add_turn("Once.", "Yes.")
                receipt = memory.erase()
                assert (receipt.facts, receipt.memories, memory.long_term.count()) == (1, 2, 0)
        finally:
            stop.set()

    at_once(erase, *[read] * 4)


# Pruning


def check_view(view: View, entries: Sequence[Entry], budget: int) -> None:
    """What holds of every view, whatever was said and pruned meanwhile (P1, P2)."""
    messages = view.messages
    said = [message for message in messages if message.role != "system"]
    assert not said or said[0].role == "user"
    latest = latest_user_id(entries)
    assert latest is None or latest in [message.id for message in messages]
    for before, message in itertools.pairwise([None, *messages]):
        if message is not None and message.role == "tool":
            assert before is not None and (before.tool_calls or before.role == "tool"), "a result without its call"
    answered = {message.tool_call_id for message in messages if message.role == "tool"}
    last = next((message for message in reversed(messages) if message.role != "tool"), None)
    waiting = {call.id for call in last.tool_calls} if last is not None else set()
    assert {call.id for message in messages for call in message.tool_calls} - waiting <= answered
    assert view.tokens <= budget or len(said) <= 3, "only what must be shown is over the budget"


POLICIES = {
    "tokens": ShortTermPolicy(max_tokens=120, min_entries=1),
    "a target": ShortTermPolicy(max_tokens=200, target_tokens=50, min_entries=2),
    "entries": ShortTermPolicy(max_entries=5, min_entries=1),
    "decay": ShortTermPolicy(max_tokens=150, decay_half_life=timedelta(milliseconds=5), min_entries=1),
    "age": ShortTermPolicy(max_tokens=300, max_age=timedelta(milliseconds=20)),
}


@pytest.mark.filterwarnings("ignore::memory_integrations.views.BudgetWarning")
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
def test_p1_p2_views_hold_while_eight_threads_write_and_little_is_kept(policy: ShortTermPolicy, long_run: bool) -> None:
    memory, rounds = ShortTermMemory(policy), 300 if long_run else 60

    def write(thread: int) -> None:
        choice = random.Random(thread)
        for turn in range(rounds):
            memory.add(f"Thread {thread} asks in turn {turn}: {'tea ' * choice.randrange(20)}")
            call = f"{thread}-{turn}"
            with memory.held():
                memory.add_message(Message("assistant", "", tool_calls=(ToolCall(call, "look", {}),)))
                memory.add_message(Message("tool", "found", tool_call_id=call))
            memory.add("Here.", "assistant")
            if turn % 7 == 0:
                memory.touch(choice.choice(memory.entries).id)
            if turn % 11 == 0:
                memory.delete(choice.choice(memory.entries).id)
            with memory.held():  # a view of now, and now
                budget = choice.choice([10, 60, 10_000])
                check_view(memory.get_context(budget), memory.entries, budget)

    at_once(*[partial(write, n) for n in range(THREADS)])
    entries = memory.entries
    assert memory.total_tokens == sum(entry.tokens for entry in entries)
    assert len({entry.id for entry in entries}) == len(entries)
    if policy.max_entries:
        assert len(entries) <= policy.max_entries
    assert memory.total_tokens <= policy.max_tokens or len(entries) <= policy.min_entries + 1


# Memory


def grown(work: Callable[[int], None], rounds: int) -> float:
    """MB that the process holds more after as much work again."""
    for number in range(rounds):
        work(number)
    gc.collect()
    before = held()["anonymous memory"]
    for number in range(rounds, 2 * rounds):
        work(number)
    gc.collect()
    return held()["anonymous memory"] - before


def test_an_endless_conversation_holds_no_more_memory(manager: OpenManager, long_run: bool) -> None:
    memory = manager(short_term_policy=ShortTermPolicy(max_tokens=500))

    def work(number: int) -> None:
        memory.short_term.add(f"Message {number}: {'harbour ' * 100}")
        memory.short_term.add(f"Answer {number}", "assistant")
        if number % 10 == 0:
            memory.get_context(max_tokens=300)

    assert grown(work, 60_000 if long_run else 3_000) < 12


def test_facts_of_many_users_are_not_all_held(tmp_path: Path, long_run: bool) -> None:
    from memory_integrations import FeatureMemory
    from memory_integrations.features import open_shelves
    from memory_integrations.journal_files import JsonlJournal

    journal = JsonlJournal(tmp_path)
    shelves = open_shelves(journal)

    def work(number: int) -> None:
        FeatureMemory(shelves, MemoryScope(f"user {number}")).set("text", "x" * 20_000)

    assert grown(work, 5_000 if long_run else 2_000) < 20, "of 40 MB that were written, or more"
    journal.close()


def test_where_memory_ends_the_call_fails_and_the_rest_goes_on(workers: ForkServerContext, tmp_path: Path) -> None:
    process = workers.Process(target=work_with_little_memory, args=(str(tmp_path),))
    process.start()
    process.join(100)
    assert process.exitcode == 0
    with MemoryManager("user:ann", data_dir=tmp_path) as memory:
        assert memory.get_fact("small") == 1
        assert memory.long_term.count() == 2
