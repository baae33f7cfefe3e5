"""What managing did outlives the process: a conversation that goes on is as it was left, and can be taken back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from strategies import Clock

from memory_integrations import (
    Compress,
    Delete,
    Forget,
    ManagementError,
    ManagementPlan,
    ManagementReceipt,
    MemoryManager,
    Message,
    Promote,
    ShortTermPolicy,
    manager,
)
from memory_integrations.errors import StoreUnavailableError
from memory_integrations.managing import Managing

Open = Callable[..., MemoryManager]
LONG = "The flight to Lisbon leaves on the fourth of May at nine in the morning from gate seven of the old terminal."
SHORT = "The flight to Lisbon leaves on the fourth of May."
SAID = [
    Message("user", "When is my flight?", id="m0"),
    Message("user", "Good evening to all of you.", id="m1"),
    Message("assistant", LONG, id="m2"),
    Message("user", "I live in Lisbon.", id="m3"),
    Message("assistant", "Noted.", id="m4"),
    Message("user", "When does it leave?", id="m5"),
    Message("assistant", "At nine.", id="m6"),
]
PLAN = ManagementPlan(
    decisions=(Delete("m1", "a greeting"), Compress("m2", SHORT), Promote("m3", "city", "Lisbon", confidence=0.9)),
    source="llm",
)


@pytest.fixture
def opened(tmp_path: Path, clock: Clock) -> Iterator[Open]:
    """Opens managers as further processes would: each closes the one before."""
    last: list[MemoryManager] = []

    def opened(scope: str = "user:ann/session:s1", **options: Any) -> MemoryManager:
        for one in last:
            one.close()
        last[:] = [MemoryManager(scope, data_dir=tmp_path / "data", clock=clock, **options)]
        return last[0]

    yield opened
    for one in last:
        one.close()


def shown(memory: MemoryManager) -> dict[str, str]:
    return {entry.id: entry.content for entry in memory.short_term.entries}


def managed(opened: Open) -> ManagementReceipt:
    memory = opened()
    memory.follow(SAID)
    return memory.apply(PLAN)


def test_a_thread_that_goes_on_after_a_restart_is_as_it_was_managed(opened: Open) -> None:
    receipt = managed(opened)
    assert len(receipt.decisions) == 3
    again = opened()
    again.follow([*SAID, Message("user", "Which gate is it?", id="m7")])
    assert shown(again) == {
        **{message.id or "": message.text for message in SAID if message.id != "m1"},
        "m2": SHORT,
        "m7": "Which gate is it?",
    }
    assert again.short_term.get("m2").original.text == LONG  # type: ignore[union-attr]
    view = again.get_context_of(SAID)
    assert SHORT in view.short_term
    assert SAID[1].text not in view.short_term


def test_a_message_that_was_edited_since_is_shown_as_it_is(opened: Open) -> None:
    managed(opened)
    again = opened()
    again.follow([Message("assistant", f"{LONG} Correction: gate nine.", id="m2")])
    assert "gate nine" in shown(again)["m2"]


def test_a_session_resumes_from_long_term_memory(opened: Open) -> None:
    managed(opened)
    again = opened()
    assert [message.id for message in again.resume()] == [message.id for message in SAID]
    assert list(shown(again)) == ["m0", "m2", "m3", "m4", "m5", "m6"]
    assert shown(again)["m2"] == SHORT
    assert again.resume() == []  # it has begun
    other = again.for_scope("user:ann/session:s2")
    assert other.resume() == []
    assert again.for_scope("user:ann").resume() == []


def test_what_is_said_while_a_session_resumes_is_not_put_before_it(opened: Open) -> None:
    """The conversation has begun by then, as with what is said before."""
    opened().follow(SAID)
    again = opened()
    resumed: list[list[Message]] = []
    resuming = threading.Thread(target=lambda: resumed.append(again.resume()))
    with again.long_term.held():
        resuming.start()
        resuming.join(0.2)
        again.short_term.add("And something else.", id="n1")
    resuming.join()
    assert (resumed, list(shown(again))) == ([[]], ["n1"])


def test_a_session_resumes_as_far_as_the_policy_holds_it(opened: Open) -> None:
    memory = opened()
    for number in range(30):
        memory.add_turn(f"Question {number}: how high is this hill?", f"Answer {number}: some hundred metres.")
    again = opened(short_term_policy=ShortTermPolicy(max_tokens=100))
    assert len(again.resume()) == 60
    assert 0 < len(again.short_term) < 12
    assert again.short_term.entries[-1].content == "Answer 29: some hundred metres."
    assert again.short_term.total_tokens <= 100


def test_sessions_that_number_their_messages_alike_stay_apart(opened: Open) -> None:
    """Two sessions end and begin with the same id: they are two messages."""
    memory = opened("user:ann")
    for session in ("a", "b"):
        memory.for_scope(f"user:ann/session:{session}").follow(
            [Message("user", f"I am in session {session}.", id="1")], unanswered=True
        )
    assert [message.text for message in memory.long_term.messages()] == [
        "I am in session a.",
        "I am in session b.",
    ]
    assert [message.text for message in memory.long_term.messages("b")] == ["I am in session b."]


def test_a_conversation_that_was_cleared_stays_cleared(opened: Open, clock: Clock) -> None:
    memory = opened()
    memory.follow(SAID)
    clock.advance(seconds=1)
    assert memory.clear_session() == 7
    clock.advance(seconds=1)
    memory.follow([Message("user", "And now to something else.", id="n1")], unanswered=True)
    again = opened()
    assert [message.id for message in again.resume()] == ["n1"]
    assert again.long_term.count() == 8


def test_a_run_is_taken_back_in_another_process(opened: Open) -> None:
    done = managed(opened)
    again = opened()
    (receipt,) = again.receipts()
    assert (receipt.number, receipt.decisions, receipt.at) == (done.number, done.decisions, done.at)
    assert (receipt.tokens_before, receipt.tokens_after) == (done.tokens_before, done.tokens_after)
    again.follow(SAID)
    again.undo(receipt)
    assert again.get_fact("city") is None
    assert shown(again)["m2"] == LONG
    again.follow(SAID)
    assert set(shown(again)) == {message.id for message in SAID}
    assert again.receipts() == []
    last = opened()
    last.resume()
    assert set(shown(last)) == {message.id for message in SAID}


def test_what_was_undone_in_its_own_process_is_undone_after_a_restart(opened: Open) -> None:
    receipt = managed(opened)
    memory = opened()
    memory.follow(SAID)
    again = memory.apply(ManagementPlan(decisions=(Compress("m2", "The flight to Lisbon."), Delete("m4"))))
    memory.undo(again)
    assert shown(memory)["m2"] == SHORT  # as the first run left it
    assert [one.number for one in memory.receipts()] == [receipt.number]
    later = opened()
    later.resume()
    assert shown(later)["m2"] == SHORT
    assert "m4" in shown(later)


def test_an_expanded_entry_stays_expanded(opened: Open) -> None:
    managed(opened)
    memory = opened()
    memory.resume()
    memory.expand("m2")
    later = opened()
    later.resume()
    assert shown(later)["m2"] == LONG


def test_a_run_that_does_nothing_is_not_written_down(opened: Open) -> None:
    memory = opened()
    memory.follow(SAID)
    receipt = memory.apply(ManagementPlan(decisions=(Delete("nobody"), Forget("m3", "city"))))
    assert receipt.number is None
    assert receipt.at is None
    assert len(receipt.skipped) == 2
    assert memory.receipts() == []


def test_p24_an_erased_session_forgets_how_it_was_managed(opened: Open, tmp_path: Path) -> None:
    managed(opened)
    memory = opened()
    memory.erase()
    assert memory.receipts() == []
    left = [path for path in tmp_path.rglob("*") if path.is_file() and b"fourth of May" in path.read_bytes()]
    assert left == []


def files_with(directory: Path, text: str) -> list[str]:
    return [str(p) for p in directory.rglob("*") if p.is_file() and text.encode() in p.read_bytes()]


def test_p24_a_deleted_memory_is_in_no_journal_either(opened: Open, tmp_path: Path) -> None:
    memory = opened()
    memory.follow(SAID)
    memory.apply(replace(PLAN, decisions=(Delete("m1", "after the fourth of May it is settled"), *PLAN.decisions[1:])))
    memory = opened()
    [hit] = [hit for hit in memory.search_long_term("fourth of May", 10) if hit.message_ids == ("m2",)]
    assert files_with(tmp_path, "fourth of May")
    assert memory.long_term.delete([hit.id]) == 1
    assert files_with(tmp_path, "fourth of May") == []
    assert [type(made) for made in memory.receipts()[0].decisions if made.entry_id == "m2"] == []
    assert memory.receipts()[0].decisions, "what was decided of others stands"
    assert "m2" not in {message.id for message in opened().resume()}


def test_p24_a_memory_that_cannot_be_removed_from_the_journal_is_not_deleted(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    managed(opened)
    memory = opened()
    count = memory.long_term.count()
    [hit] = [hit for hit in memory.search_long_term("fourth of May", 10) if hit.message_ids == ("m2",)]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("memory_integrations.journal_files.os.replace", full)
        with pytest.raises(StoreUnavailableError):
            memory.long_term.delete([hit.id])
    assert memory.long_term.count() == count
    assert memory.long_term.delete([hit.id]) == 1
    assert files_with(tmp_path, "fourth of May") == []


def test_p24_an_erased_fact_is_in_no_file_and_in_no_receipt(opened: Open, tmp_path: Path) -> None:
    memory = opened()
    memory.set_fact("kept", "Kept")
    memory.set_fact("city", "Xanadu")
    memory.follow(SAID)
    memory.apply(
        ManagementPlan((Promote("m3", "city", "Lisbon", "they live in Lisboa"), Delete("m1", "they said Lisboa")))
    )
    assert len(memory.receipts()[0].decisions) == 2
    assert memory.erase_fact("city") == 2
    assert memory.get_fact("city") is memory.features.get_with_history("city") is None
    assert files_with(tmp_path, "Xanadu") == files_with(tmp_path, "Lisboa") == []
    assert memory.receipts()[0].decisions == (Delete("m1"),)
    assert (memory.get_fact("kept"), memory.erase_fact("city")) == ("Kept", 0)
    assert opened().features.all() == {"kept": "Kept"}


def meanwhile(inner: Callable[..., Any], other: threading.Thread) -> Callable[..., Any]:
    """The same, and another thread has a while for its work before it ends."""

    def patched(*args: Any) -> Any:
        result = inner(*args)
        other.start()
        other.join(0.2)
        return result

    return patched


def test_p24_a_fact_that_is_erased_while_it_is_learnt_is_in_no_file(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session has no journal yet, and is writing down what it learnt."""
    memory = opened()
    memory.follow(SAID, remember=False)
    erasing = threading.Thread(target=lambda: memory.erase_fact("city"))
    monkeypatch.setattr(Managing, "_learn", meanwhile(Managing._learn, erasing))
    memory.apply(ManagementPlan((Promote("m3", "city", "Lisbon"),)))
    erasing.join()
    assert files_with(tmp_path, "Lisbon") == []


def test_p24_what_is_managed_while_its_user_is_erased_is_in_no_file(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = opened()
    memory.follow(SAID)
    managing = threading.Thread(target=lambda: memory.apply(PLAN))
    memories = memory._open.memories
    monkeypatch.setattr(memories, "delete", meanwhile(memories.delete, managing))
    receipt = memory.for_scope("user:ann").erase()
    assert (receipt.memories, receipt.messages, receipt.facts) == (7, 6, 1)
    assert files_with(tmp_path, "Lisbon") == []


@pytest.mark.parametrize("forget", ["erase", "erase the user", "delete", "clear", "erase facts", "undo"])
def test_p24_taking_a_run_back_brings_back_nothing_that_was_erased(opened: Open, clock: Clock, forget: str) -> None:
    """Nor does it take back facts that were learnt since under the numbers of erased ones."""
    memory = opened()
    memory.follow(SAID)
    receipt = memory.apply(PLAN)
    clock.advance(1)
    if forget == "erase":
        memory.erase()
    elif forget == "erase the user":
        memory.for_scope("user:ann").erase()
    elif forget == "delete":
        hits = memory.long_term.search("flight", 10, distinct=False)
        assert memory.long_term.delete([hit.id for hit in hits if hit.message_ids == ("m2",)]) == 1
    elif forget == "clear":
        memory.clear_session()
    elif forget == "erase facts":
        memory.features.erase()
    else:
        memory.undo(receipt)
    if forget in ("erase the user", "erase facts"):
        memory.set_fact("diet", "vegan")
    facts, before = memory.features.all(), shown(memory)
    if forget in ("erase", "erase the user", "undo"):
        with pytest.raises(ManagementError, match="stands no more"):
            memory.undo(receipt)
        assert shown(memory) == before
    else:
        memory.undo(receipt)
    assert memory.features.all() == {key: value for key, value in facts.items() if key != "city" or forget == "erase"}
    gone = {"delete": {"m2"}, "erase facts": set(), "undo": set()}.get(forget, {message.id for message in SAID})
    assert set(shown(memory)) == {message.id for message in SAID} - gone
    if "m2" in gone:
        with pytest.raises(ManagementError, match="never compressed"):
            memory.expand("m2")


def test_p24_what_was_cleared_is_in_no_journal(opened: Open, tmp_path: Path) -> None:
    memory = opened()
    memory.follow(SAID, remember=False)
    memory.apply(replace(PLAN, decisions=(*PLAN.decisions, Delete("m4", "the fourth of May is noted"))))
    assert files_with(tmp_path, "fourth of May")
    memory.clear_session()
    assert files_with(tmp_path, "fourth of May") == []
    again = opened()
    with pytest.raises(ManagementError, match="never compressed"):
        again.expand("m2")
    [receipt] = again.receipts()
    assert receipt.decisions == (Promote("m3", "city", "Lisbon", confidence=0.9),)
    again.undo(receipt)
    assert (again.features.all(), again.receipts(), again.resume()) == ({}, [], [])


async def test_p35_resuming_has_its_async_form(opened: Open) -> None:
    managed(opened)
    memory = opened()
    assert len(await memory.aresume()) == 7
    assert len(await memory.areceipts()) == 1


def test_a_fact_that_was_changed_after_the_plan_was_made_is_left_as_it_is(opened: Open) -> None:
    memory = opened()
    memory.follow(SAID)
    plan = memory.manage_short_term(dry_run=True)
    assert isinstance(plan, ManagementPlan)
    assert any(isinstance(decision, Promote) for decision in plan.decisions)
    memory.set_fact("city", "Porto")
    receipt = memory.apply(plan)
    assert isinstance(receipt, ManagementReceipt)
    assert memory.get_fact("city") == "Porto"
    assert [one.why for one in receipt.skipped] == ["the fact was changed after the plan was made"]


def test_a_plan_may_set_a_fact_and_remove_it(opened: Open) -> None:
    memory = opened()
    memory.follow(SAID)
    before = tuple(memory.short_term.entries)
    plan = ManagementPlan((Promote("m3", "city", "Lisbon"), Forget("m5", "city")), before=before)
    assert len(memory.apply(plan).decisions) == 2
    assert memory.get_fact("city") is None


@pytest.mark.parametrize("step", ["apply", "undo"])
def test_what_is_said_while_a_plan_is_carried_out_or_taken_back_stays(
    opened: Open, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    memory = opened(short_term_policy=ShortTermPolicy(min_entries=0, max_tokens=120))
    memory.follow(SAID)

    def speak() -> None:
        for number in range(20):
            memory.short_term.add(f"Said meanwhile, number {number}.")

    speaking = threading.Thread(target=speak)

    if step == "apply":
        monkeypatch.setattr(Managing, "_write_down", meanwhile(Managing._write_down, speaking))
    receipt = memory.apply(PLAN)
    assert len(receipt.decisions) == 3
    if step == "undo":
        monkeypatch.setattr(manager, "undone", meanwhile(manager.undone, speaking))
        memory.undo(receipt)
    speaking.join()
    assert list(shown(memory).values())[-1] == "Said meanwhile, number 19."


@pytest.mark.parametrize("how", ["erased", "undone", "the run undone"])
@pytest.mark.parametrize("reopened", [False, True])
def test_p24_a_fact_that_was_taken_away_is_not_learnt_again_from_what_was_said_before(
    opened: Open, clock: Clock, how: str, reopened: bool
) -> None:
    memory = opened("user:ann/session:s")
    memory.add_turn("I live in Lisbon.", "Nice.")
    clock.advance(60)
    memory.manage_short_term()
    assert memory.get_fact("city") == "Lisbon"
    clock.advance(60)
    if how == "erased":
        memory.erase_fact("city")
    elif how == "undone":
        memory.features.undo()
    else:
        memory.undo(memory.receipts()[-1])
    if reopened:
        memory.close()
        memory = opened("user:ann/session:s")
        memory.resume()
    clock.advance(60)
    memory.manage_short_term()
    assert memory.get_fact("city") is None
    memory.add_turn("I live in Porto.", "Nice.")
    memory.manage_short_term()
    assert memory.get_fact("city") == "Porto", "what is said later is learnt"


@pytest.mark.parametrize("restarted", [False, True])
def test_p24_of_a_compressed_message_that_is_told_again_otherwise_nothing_is_kept(
    opened: Open, tmp_path: Path, restarted: bool
) -> None:
    """Of what it said at first: neither as the original, nor in what it was compressed to."""
    memory = opened()
    memory.follow(SAID)
    memory.apply(PLAN)
    memory = opened() if restarted else memory
    edited = [replace(m, content="[removed]") if m.id == "m2" else m for m in SAID]
    memory.follow([*edited, Message("user", "And now?", id="m7")], unanswered=True)
    assert shown(memory)["m2"] == "[removed]"
    memory.close()
    files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert not [path for path in files if b"leaves on the fourth of May" in path.read_bytes()]
    again = opened()
    again.follow(edited)
    assert shown(again)["m2"] == "[removed]"
    assert "m1" not in shown(again), "the rest of what was managed stands"
