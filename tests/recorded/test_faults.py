"""What becomes of memory when a provider fails: nothing is changed, the receipt says so, one more try at most.

The cassettes are recorded from a scripted server (``scripted_server.py``) that fails when a model's name says so, since
no provider fails when asked. Where no answer came (it was late, the connection broke) the cassette names the exception
that the client's transport raised, and the replay raises it at once. A cassette gives a stream as a whole: how a client
gets on with a slow one cannot be seen here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from recorded_helpers import ALWAYS, Client, OpenManager, asked, receipt_of, state
from vcr.cassette import Cassette

from memory_integrations import (
    ManagementReceipt,
    MemoryManager,
    Message,
    StoreError,
)

pytestmark = [pytest.mark.vcr, pytest.mark.scripted]

TALK = ["Hello there!", "My name is Ann.", "I live in Lisbon.", "What is new?"]


def scripted(fault: str) -> str:
    """A model's name that chooses a fault."""
    return f"ft:gpt-4o-mini:scripted-{fault}"


@pytest.fixture
def told(manager: OpenManager) -> Callable[..., MemoryManager]:
    def told(llm: Any) -> MemoryManager:
        memory = manager(llm_client=llm, short_term_policy=ALWAYS)
        memory.set_fact("pet", "a beagle")
        for i, text in enumerate(TALK):
            memory.short_term.add_message(Message("user", text, id=f"m{i}"))
        return memory

    return told


def statuses(cassette: Cassette) -> list[int]:
    return [response["status"]["code"] for response in cassette.responses]


# Faults of the transport: asked once


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("429", 429),
        ("401", 401),
        ("400", 400),
        ("500", 500),
        ("slow", 599),
        ("disconnect", 599),
        ("malformed", 200),
        ("html", 200),
        ("no-choices", 200),
    ],
)
def test_p12_a_fault_changes_nothing_and_the_receipt_says_failed(
    told: Callable[..., MemoryManager],
    client: Client,
    vcr: Cassette,
    fault: str,
    status: int,
) -> None:
    """P12: through both clients; the library adds no retries to the client's own, of which there are none here."""
    memory = told(client(scripted(fault), timeout=0.3))
    before = state(memory)
    receipt = receipt_of(memory)
    assert receipt.failed
    assert (receipt.decisions, receipt.calls) == ((), 1)
    assert state(memory) == before
    assert statuses(vcr) == [status]
    memory.undo(receipt)
    assert state(memory) == before


async def test_a_late_answer_is_a_failure_in_an_event_loop_too(
    told: Callable[..., MemoryManager], client: Client, vcr: Cassette
) -> None:
    memory = told(client(scripted("slow"), timeout=0.3))
    before = state(memory)
    receipt = await memory.amanage_short_term()
    assert isinstance(receipt, ManagementReceipt)
    assert receipt.failed and "Timeout" in receipt.failed
    assert state(memory) == before
    assert statuses(vcr) == [599]


# Answers that hold no decisions: asked twice at most


@pytest.mark.parametrize("fault", ["empty", "prose", "wrong-types", "cut-off", "refusal", "filtered"])
def test_p12_an_answer_that_is_none_changes_nothing_and_is_asked_for_once_more(
    told: Callable[..., MemoryManager], client: Client, vcr: Cassette, fault: str
) -> None:
    """P12: the receipt counts what was asked and what it cost."""
    memory = told(client(scripted(fault)))
    before = state(memory)
    receipt = receipt_of(memory)
    assert receipt.failed
    assert receipt.decisions == ()
    assert receipt.calls == len(vcr) == 2
    assert state(memory) == before
    told_usage = [json.loads(response["body"]["string"])["usage"] for response in vcr.responses]
    if "response_format" in asked(vcr)[0] and fault in ("prose", "wrong-types", "filtered"):
        told_usage = told_usage[1:]  # LangChain's client raises over the first answer, and loses what it cost
    assert receipt.usage == {
        "input_tokens": sum(usage["prompt_tokens"] for usage in told_usage),
        "output_tokens": sum(usage["completion_tokens"] for usage in told_usage),
    }


def test_a_second_answer_in_plain_text_is_taken(
    told: Callable[..., MemoryManager], chat: Client, vcr: Cassette
) -> None:
    receipt = receipt_of(memory := told(chat(scripted("prose-once"))))
    assert (receipt.failed, receipt.calls) == (None, 2)
    assert memory.get_fact("name") == "Ann"
    first, second = asked(vcr)
    assert "response_format" in first and "response_format" not in second


# What the client itself tries again


def test_a_client_that_may_retry_waits_as_it_is_told_and_is_answered(
    told: Callable[..., MemoryManager], chat: Client, vcr: Cassette
) -> None:
    """The wait is the recorded ``retry-after-ms`` of one millisecond. For us it is one call."""
    memory = told(chat(scripted("429-once"), max_retries=1))
    receipt = receipt_of(memory)
    assert (receipt.failed, receipt.calls) == (None, 1)
    assert memory.get_fact("name") == "Ann"
    assert statuses(vcr) == [429, 200]


def test_managing_again_after_a_fault_succeeds(
    told: Callable[..., MemoryManager], client: Client, vcr: Cassette
) -> None:
    memory = told(client(scripted("429-once")))
    assert receipt_of(memory).failed
    receipt = receipt_of(memory)
    assert receipt.failed is None
    assert memory.get_fact("name") == "Ann"
    assert statuses(vcr) == [429, 200]


# Streams


def test_a_stream_is_whole_where_nothing_fails(chat: Client) -> None:
    pieces = [piece.text for piece in chat(scripted("")).stream("The boat is green and the house is blue.")]
    assert len([piece for piece in pieces if piece]) > 1
    assert "green" in "".join(pieces)


@pytest.mark.parametrize("fault", ["stream-cut-off", "stream-error"])
def test_managing_by_a_stream_that_breaks_changes_nothing(
    told: Callable[..., MemoryManager], chat: Client, fault: str
) -> None:
    def streamed(prompt: Any) -> str:
        return "".join(piece.text for piece in chat(scripted(fault)).stream(prompt))

    memory = told(streamed)
    before = state(memory)
    receipt = receipt_of(memory)
    assert receipt.failed
    assert state(memory) == before


# Embeddings


@pytest.mark.parametrize("fault", ["429", "500", "malformed"])
def test_a_turn_that_cannot_be_embedded_is_not_stored_by_halves(
    manager: OpenManager, embeddings: Client, fault: str
) -> None:
    memory = manager(embeddings=embeddings(scripted(fault)))
    with pytest.raises(StoreError):
        memory.add_turn("The code word is heron.", "I will remember.")
    assert memory.short_term.entries == []
