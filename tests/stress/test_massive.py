"""More than anybody should store: long texts, long keys, long histories, any character, and any budget."""

from __future__ import annotations

import json
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sparse import content
from strategies import START, Clock, time_limit

from memory_integrations import (
    FactError,
    FeatureMemory,
    MemoryManager,
    MemoryScope,
    Message,
    ShortTermPolicy,
    TokenCounter,
)
from memory_integrations.features import open_shelves
from memory_integrations.journal_files import JsonlJournal
from memory_integrations.messages import as_unicode

OpenManager = Callable[..., MemoryManager]
MEGABYTE = 1_000_000


def prose(characters: int) -> str:
    """Sentences that differ, so that no two pieces of them are the same."""
    text = " ".join(f"Sentence {n} tells of tea, boats and rain in harbour {n % 97}." for n in range(characters // 40))
    return text[:characters]


# Long texts


def test_a_message_of_five_megabytes_is_kept_whole_found_and_gone(manager: OpenManager, tmp_path: Path) -> None:
    memory = manager()
    needle = "The heron sleeps in attic seven under old blankets. " * 16
    text = f"{prose(4 * MEGABYTE)}\n\n{needle}\n\n{prose(MEGABYTE)}"
    first, _ = memory.add_turn(text, "That was long.")
    assert [message.content for message in memory.long_term.messages()] == [text, "That was long."]
    (hit,) = memory.search_long_term("Where does the heron sleep?", limit=1)
    assert "heron sleeps in attic seven" in hit.text and hit.message_ids == (first,)
    assert len(hit.text) < 10_000, "a hit shows pieces"
    memory.close()
    assert next(message.content for message in manager().long_term.messages()) == text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shown = memory.get_context("heron", max_tokens=500).messages
    assert [message.content for message in shown] == [text], "the latest user message, however long"
    assert memory.long_term.delete([hit.id]) == 1
    memory.clear_session()
    memory.close()
    assert not any(b"attic seven" in content(path) for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize("text", ["a" * MEGABYTE, "日本" * (MEGABYTE // 4) + "\n" * (MEGABYTE // 2) + "."])
def test_a_megabyte_without_a_pause_is_counted_and_kept(manager: OpenManager, text: str) -> None:
    with time_limit(60):
        memory = manager()
        memory.add_turn(text, "OK.")
        assert next(iter(memory.long_term.messages())).content == text
        assert memory.short_term.total_tokens < 4 * len(text)


def test_a_fact_of_a_megabyte_and_keys_of_ten_thousand_characters(manager: OpenManager) -> None:
    memory = manager()
    keys = [f"{name * 10_000}" for name in ("k", "🙂", "/")]
    for key in keys:
        memory.set_fact(key, prose(MEGABYTE))
    memory.set_fact("small", "seen")
    again = manager()
    assert again.features.keys() == [*keys, "small"]
    assert all(again.get_fact(key) == prose(MEGABYTE) for key in keys)
    context = again.get_context(max_tokens=100)
    assert context.features == '{\n"small": "seen"\n}', "what is too long hides nothing else"
    assert {dropped.id for dropped in context.dropped} >= set(keys) or len(context.dropped) >= len(keys)
    assert again.features.delete(keys[0]) and again.features.undo() == keys[0]
    assert again.features.get_with_history(keys[0]).current == prose(MEGABYTE)  # type: ignore[union-attr]


# Many


def test_ten_thousand_versions_of_one_fact(manager: OpenManager, clock: Clock, long_run: bool) -> None:
    count, undone = 10_000, 3_000 if long_run else 100
    memory = manager("user:ann")
    for number in range(count):
        memory.set_fact("counter", number)
        clock.advance(1)
    for opened in (memory, manager("user:ann")):
        fact = opened.features.get_with_history("counter")
        assert fact is not None
        assert [version.value for version in fact.history] == list(range(count))
        assert all(one.until == other.since for one, other in zip(fact.history, fact.history[1:], strict=False))
        for moment in (0, 1, count // 2, count - 1):
            assert opened.features.as_of(Clock(START).advance(moment)) == {"counter": moment}
    with time_limit(60):
        for number in range(undone):
            assert memory.features.undo() == "counter"
            assert memory.get_fact("counter") == count - 2 - number
    other = manager("user:ann").features
    assert other.get("counter") == count - 1 - undone
    assert len(other.get_with_history("counter").history) == count - undone  # type: ignore[union-attr]


def test_thousands_of_entries_are_all_there_and_the_newest_are_shown(manager: OpenManager, long_run: bool) -> None:
    count = 20_000 if long_run else 1_500
    memory = manager(short_term_policy=ShortTermPolicy(max_tokens=100 * count))
    roles = ("user", "assistant")
    ids = memory.add_messages([Message(roles[n % 2], f"Message {n} tells of boat {n * 7}.") for n in range(count)])
    assert [entry.id for entry in memory.short_term.entries] == ids
    assert [message.id for message in memory.long_term.messages()] == ids
    context = memory.get_context(max_tokens=1000)
    assert context.messages[-1].content == f"Message {count - 1} tells of boat {(count - 1) * 7}."
    assert context.token_usage["total"] <= 1000
    assert memory.search_long_term(f"What does message {count // 2} tell of boat {count // 2 * 7}?", 1)[0].message_ids
    assert memory.erase().messages == count
    assert memory.long_term.count() == 0


class Counting(TokenCounter):
    """Says how many characters it counted."""

    counted = 0

    def count(self, text: str) -> int:
        self.counted += len(text)
        return super().count(text)


def test_of_thousands_of_facts_the_latest_fit_without_counting_them_again_and_again(tmp_path: Path) -> None:
    """Counting anew for each fact that is left out took seconds for each prompt."""
    journal = JsonlJournal(tmp_path, Clock())
    memory, counter = FeatureMemory(open_shelves(journal), MemoryScope("ann")), Counting()
    for number in range(2_000):
        memory.set(f"fact {number}", f"The value of fact {number}.")
    memory.counter = counter
    whole = memory.to_prompt()
    text = memory.to_prompt(max_tokens=1_000)
    assert counter.counted < 20 * len(whole)
    assert 900 < counter.count(text) <= 1_000
    shown = list(json.loads(text))
    assert shown == [f"fact {number}" for number in range(2_000 - len(shown), 2_000)]
    journal.close()


# Budgets


@pytest.mark.parametrize("budget", [0, 1, 2, 10**6, 10**18, None])
def test_any_budget_is_kept(manager: OpenManager, counter: TokenCounter, budget: int | None) -> None:
    """P2, P3: nothing raises, and only what must be shown is over it."""
    memory = manager()
    for turn in range(20):
        memory.add_turn(f"Turn {turn}: the harbour was quiet.", f"I see, turn {turn}.")
        memory.set_fact(f"fact {turn}", "tea")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context = memory.get_context("How was the harbour?", max_tokens=budget)
        view = memory.short_term.get_context(budget)
    assert "Turn 19: the harbour was quiet." in [message.content for message in context.messages]
    assert "Turn 19: the harbour was quiet." in [message.content for message in view.messages]
    if budget is not None and budget > 100:
        assert context.token_usage["total"] <= budget
    if budget in (0, 1, 2):
        assert len(context.messages) <= 2 and context.features == "{}" and context.dropped
    else:
        assert len(context.messages) == 40 and '"fact 0": "tea"' in context.features
    assert memory.features.to_prompt(max_tokens=budget).startswith("{")
    if budget is not None:
        assert counter.count(memory.long_term.get_relevant_context("harbour", max_tokens=budget)) <= budget


# Any character


def planes(every: int) -> Iterator[str]:
    """Of each of Unicode's planes every so manieth code point, as one text."""
    for plane in range(17):
        points = range(plane << 16, (plane + 1) << 16, every)
        yield "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)


ODD = {
    "NUL": "before\0after\0",
    "every control": "".join(map(chr, range(32))) + "\x7f" + "".join(map(chr, range(0x80, 0xA0))),
    "right to left": "שלום \u202eevil\u202c مرحبا \u2067x\u2069",
    "a thousand marks": "z" + "\u0301\u0323\u20dd" * 1000,
    "joined": "👩‍👩‍👧‍👦" * 500,
    "flags": "🇵🇹🇩🇪" * 500,
    "not normal": "e\u0301 é ﬁ ﬀ Å Å",
    "noncharacters": "\ufffe\uffff\ufdd0\U0010ffff",
    "a mark first": "\ufeffBOM \ufeff",
    "separators": "a\u2028b\u2029c\x85d\x0be\x0cf",
    "a lone surrogate": "half \ud83d of \udca9 it",
    "a template": "{{x}} {0} %s ${y} \\u0041 </memory:facts>",
    "SQL": "'; DROP TABLE memory_journal_events; --",
}


@pytest.mark.parametrize("journal", ["jsonl", "sqlite"])
def test_all_of_unicode_comes_back_as_it_was(tmp_path: Path, journal: str, long_run: bool) -> None:
    options: dict[str, Any] = {"data_dir": tmp_path / "data"}
    if journal == "sqlite":
        options["journal_url"] = f"sqlite:///{tmp_path}/journal.db"
    texts = [*planes(1 if long_run else 257), *ODD.values()]
    said: list[str] = []
    facts: dict[str, str] = {}
    with MemoryManager("user:ü\0\U0001f642/session:\u202e", **options) as memory:
        for number, text in enumerate(texts):
            memory.add_turn(text, f"Text {number}.")
            said += [as_unicode(text), f"Text {number}."]
            key = f"key {text[:200]}"
            if key == as_unicode(key):
                memory.set_fact(key, text)
                facts[key] = as_unicode(text)
            else:
                with pytest.raises(FactError):
                    memory.set_fact(key, text)
    with MemoryManager("user:ü\0\U0001f642/session:\u202e", **options) as memory:
        assert memory.features.all() == facts
        assert [message.content for message in memory.long_term.messages()] == said
        assert [message.content for message in memory.resume()] == said
        for text in ODD.values():
            memory.search_long_term(text, 3)
            memory.get_context(text, max_tokens=1000).combined.encode()
        assert memory.for_scope("user:u").features.all() == {}
    assert unicodedata.normalize("NFC", "e\u0301") == "é" != "e\u0301", "what is stored is not normalised"
    assert sys.maxunicode == 0x10FFFF


def test_names_of_any_character_are_kept_apart(tmp_path: Path) -> None:
    """Scopes that a file system, or a database, would take for one."""
    names = [
        "é",
        "e\u0301",
        "E",
        "e",
        "\u017f",
        "s",
        "K",
        "\u212a",
        "a" * 300,
        "a" * 301,
        "\0",
        "",
        "%00",
        "..",
        ".",
        "/",
        "\\",
    ]
    with MemoryManager(data_dir=tmp_path) as memory:
        scopes = [memory.for_scope(f"user:{name}x") for name in names]
        for number, one in enumerate(scopes):
            one.set_fact("who", number)
            one.add_turn(f"I am number {number}.", "Hello.")
        assert [one.get_fact("who") for one in scopes] == list(range(len(names)))
        assert [one.long_term.count() for one in scopes] == [2] * len(names)
        for number, one in enumerate(scopes):
            assert one.search_long_term("Who am I, which number?", 5)
            assert all(
                f"number {number}." in hit.text for hit in one.search_long_term("number", 5) if "I am" in hit.text
            )
