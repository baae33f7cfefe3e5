"""Managing by rules: cautious, extractive, and settled after one run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import START, any_text, calls, entry_lists, latest_user_id, nasty_text, result, sentences, time_limit

from memory_integrations import (
    Compress,
    Delete,
    Entry,
    Message,
    Promote,
    ShortTermMemory,
    ShortTermPolicy,
    TokenCounter,
    ToolCall,
)
from memory_integrations.decisions import Decision, validate
from memory_integrations.delimiters import as_data, delimit
from memory_integrations.rules import RULE_CONFIDENCE, compress, is_greeting, promotions, propose

DAY = timedelta(days=1)
POLICY = ShortTermPolicy(min_entries=0, compression_threshold=30)

GREETINGS = (
    """
hi|Hi!|hello|Hello.|HELLO|hey|hey there|Hi there!|good morning|Good Morning!|good evening|good night|  hello  |hi.
thanks|Thanks!|thank you|Thank you so much!!|thanks a lot|thx|great, thanks!|Ok, thanks|ok|OK.|okay
bye|Bye!|goodbye|see you|See you later!|take care|Have a nice day!|You're welcome.|you’re welcome|no problem
👋 hi|Thanks 🙏
""".strip("\n")
    .replace("\n", "|")
    .split("|")
)

NO_GREETINGS = (
    """
Hi, my name is Ann|hello world|Hello, can you help?|thanks, but no|Thanks for the tea recipe|Thank you, Bob
this|hit|okra|byte|history|the|hellohello|ok so I moved|good morning to you all|no problem is too big
cheers from Lisbon|take care of my dog|see you at 8|bye the way|goodbye Lisbon|have a nice day planned?
no|yes|hi 5|hi2|你好 hi|1|42|👍|...|?|!
""".strip("\n")
    .replace("\n", "|")
    .split("|")
)

COUNT = TokenCounter().count


def entry(text: Any, role: str = "user", number: int = 0, **fields: Any) -> Entry:
    """An entry of a text, with its exact tokens."""
    message = text if isinstance(text, Message) else Message(role, text, id=f"m{number}")
    return Entry(f"m{number}", replace(message, id=f"m{number}"), COUNT(message.text), START, **fields)


def entries_of(*texts: Any) -> list[Entry]:
    """Entries of a user and an assistant who take turns; a message stands for itself."""
    return [entry(text, ("user", "assistant")[number % 2], number) for number, text in enumerate(texts)]


def proposed(
    entries: Sequence[Entry], policy: ShortTermPolicy = POLICY, facts: dict[str, Any] | None = None
) -> list[Decision]:
    return propose(entries, facts or {}, START, policy, COUNT)


def deleted(entries: Sequence[Entry], policy: ShortTermPolicy = POLICY) -> dict[str, str]:
    """The entries that the rules would delete, each with its reason."""
    return {d.entry_id: d.reason for d in proposed(entries, policy) if isinstance(d, Delete)}


class TestGreetings:
    @pytest.mark.parametrize("text", GREETINGS)
    def test_a_whole_message_that_greets_goes(self, text: str) -> None:
        assert is_greeting(text)
        assert deleted(entries_of(text, "What now?", "Tell me about tea.")) == {"m0": "a greeting"}

    @pytest.mark.parametrize("text", NO_GREETINGS)
    def test_a_message_that_says_more_stays(self, text: str) -> None:
        assert not is_greeting(text)
        assert "m0" not in deleted(entries_of(text, "What now?", "Tell me about tea."))

    @given(st.sampled_from(GREETINGS), sentences)
    def test_a_greeting_is_never_a_part_of_a_message(self, greeting: str, text: str) -> None:
        assert not is_greeting(f"{greeting} {text}")
        assert not is_greeting(f"{text} {greeting}")

    @pytest.mark.parametrize("answer", ["evening", "Morning.", "ok", "Okay!", "no problem"])
    def test_an_answer_to_a_question_is_no_greeting(self, answer: str) -> None:
        """ "Morning or evening?" — "Evening." says something, and so does "ok" to a proposal."""
        talk = entries_of(
            "Book me a table.", "Shall I take the evening, or would you rather have the morning?", answer, "Done."
        )
        assert "m2" not in deleted([*talk, entry("Thanks for that.", number=4)])


class TestDuplicates:
    def test_the_last_of_equal_messages_stays(self) -> None:
        talk = entries_of(
            "Where is my letter?", "At home.", "Where is my letter?", "At home.", "Where is my letter?", "!"
        )
        assert set(deleted(talk)) == {"m0", "m2"}

    def test_a_compressed_message_is_compared_by_what_was_said(self) -> None:
        said = Message("user", "Tea is good. It rained. Bread is good as well.")
        short = entry("Tea is good.", original=said)
        assert deleted([short, *entries_of("x", "y")[1:], entry("Tea is good.", number=2), entry("!", number=3)]) == {}

    def test_short_answers_may_answer_another_question(self) -> None:
        assert (
            deleted(entries_of("the second", "And of these?", "the second", "Thank you so much, noted.", "yes it is"))
            == {}
        )

    def test_the_same_words_of_somebody_else_are_no_duplicate(self) -> None:
        talk = [
            entry("I like green tea", "user", 0),
            entry("I like green tea", "assistant", 1),
            entry("Well then.", "user", 2),
        ]
        assert deleted(talk) == {}
        named = [
            entry(Message("user", "I like green tea", name=name), number=n)
            for n, name in enumerate(("Ann", "Bob", "Eve"))
        ]
        assert deleted(named) == {}

    @given(
        st.lists(
            st.tuples(st.sampled_from(["tea is good", "bread is good", "a", "tea is good "]), st.booleans()), max_size=8
        )
    )
    def test_what_was_said_is_still_said(self, talk: list[tuple[str, bool]]) -> None:
        entries = [entry(text, "user" if by_user else "assistant", n) for n, (text, by_user) in enumerate(talk)]
        gone = deleted(entries)
        before = {(e.role, e.content.strip()) for e in entries}
        assert {(e.role, e.content.strip()) for e in entries if e.id not in gone} == before


class TestWhatStays:
    @given(entry_lists(), st.integers(0, 4), st.booleans())
    def test_nothing_protected_is_ever_proposed(self, entries: list[Entry], least: int, decaying: bool) -> None:
        policy = ShortTermPolicy(
            min_entries=least,
            compression_threshold=5,
            max_age=timedelta(seconds=50),
            decay_half_life=timedelta(seconds=5) if decaying else None,
            min_retention=0.5,
        )
        changed = {d.entry_id for d in proposed(entries, policy) if isinstance(d, Delete | Compress)}
        latest = {e.id for e in entries[max(len(entries) - least, 0) :]}
        protected = {e.id for e in entries if e.protected}
        assert not changed & (latest | protected | {latest_user_id(entries)})

    def test_what_tools_said_and_media_stay_until_they_expire(self) -> None:
        image = Message("user", [{"type": "text", "text": "hi"}, {"type": "image", "base64": "A"}])
        talk = entries_of(
            image, calls("a", content="thanks"), result("a", "ok"), result("a", "ok"), image, "x", "What now?"
        )
        assert deleted(talk) == {}
        old = [replace(e, created_at=START - 2 * DAY) for e in talk[:-1]]
        policy = replace(POLICY, max_age=DAY)
        assert set(deleted([*old, talk[-1]], policy)) == {e.id for e in old}

    def test_p30_what_decayed_goes_and_what_was_used_stays(self) -> None:
        talk = [
            replace(e, created_at=START - 3 * DAY) for e in entries_of("one more thing", "noted that", "tea please")
        ]
        talk[1] = replace(talk[1], accesses=50)
        policy = replace(POLICY, decay_half_life=DAY, min_retention=0.2)
        assert deleted([*talk, entry("now", number=3)], policy) == {"m0": "decayed", "m2": "decayed"}

    @given(entry_lists())
    def test_the_rules_propose_nothing_that_validation_refuses(self, entries: list[Entry]) -> None:
        exact = [replace(e, tokens=COUNT(e.content)) for e in entries]
        accepted, skipped = validate(proposed(exact), exact, POLICY, COUNT)
        assert skipped == []
        assert accepted == proposed(exact)

    @given(
        st.lists(
            st.lists(sentences.map("{}.".format), min_size=1, max_size=12).map(" ".join) | st.sampled_from(GREETINGS),
            max_size=6,
        )
    )
    def test_p15_a_second_run_finds_nothing_to_do(self, texts: list[str]) -> None:
        memory = ShortTermMemory(replace(POLICY, max_tokens=10**6))
        facts: dict[str, Any] = {}
        for text in texts:
            memory.add(text)
        for decision in proposed(memory.entries, facts=facts):
            if isinstance(decision, Delete):
                memory.delete(decision.entry_id)
            elif isinstance(decision, Compress):
                memory.compress_entry(decision.entry_id, decision.content)
            elif isinstance(decision, Promote):
                facts[decision.key] = decision.value
        assert proposed(memory.entries, facts=facts) == []


class TestCompression:
    long_texts = st.lists(
        sentences.map(str.capitalize).flatmap(lambda s: st.sampled_from([f"{s}.", f"{s}!", f"{s}?", f"{s}\n"])),
        max_size=15,
    ).map(" ".join)

    @given(long_texts, st.integers(0, 80))
    def test_p16_a_compression_is_extractive_shorter_and_in_order(
        self, counter: TokenCounter, text: str, most: int
    ) -> None:
        shorter = compress(text, most, counter.count)
        if shorter is None:
            return
        assert shorter.strip()
        assert counter.count(shorter) <= most
        assert counter.count(shorter) < counter.count(text)
        said = [s.strip() for s in re.split(r"(?<=[.!?])\s+|\n+", text) if s.strip()]
        place = 0
        for sentence in re.split(r"(?<=[.!?])\s+", shorter):
            rest = said[place:]
            # A sentence that ended with its line has no mark of its own: two of them may stand together.
            found = next((n for n in range(1, len(rest) + 1) if _is_made_of(sentence, rest[:n])), None)
            assert found, f"{sentence!r} was not said, or not here"
            place += found

    @given(any_text | nasty_text, st.integers(0, 50))
    def test_p16_any_text_is_compressed_or_left(self, counter: TokenCounter, text: str, most: int) -> None:
        shorter = compress(text, most, counter.count)
        assert shorter is None or (shorter.strip() and counter.count(shorter) <= most)

    def test_the_most_telling_sentences_stay(self, counter: TokenCounter) -> None:
        text = (
            "The harbour of Lisbon is old. It rained. The harbour has many boats. Somebody laughed. "
            "Boats leave the harbour of Lisbon daily. So it goes. A dog barked twice."
        )
        assert compress(text, 26, counter.count) == (
            "The harbour of Lisbon is old. The harbour has many boats. Boats leave the harbour of Lisbon daily."
        )

    def test_a_text_begins_with_what_it_is_about(self, counter: TokenCounter) -> None:
        text = "Lisbon harbour trams rattle. Boats boats leave."
        assert compress(text, 10, counter.count) == "Lisbon harbour trams rattle."

    def test_one_sentence_cannot_be_compressed(self, counter: TokenCounter) -> None:
        assert compress("tea " * 500, 50, counter.count) is None

    def test_p4_texts_without_spaces_are_compressed_too(self, counter: TokenCounter) -> None:
        text = "今天天气很好，我们去公园散步。昨天下雨了，所以我在家看书。我的猫叫小白。" * 8
        shorter = compress(text, 60, counter.count)
        assert shorter is not None
        assert counter.count(shorter) <= 60

    def test_only_long_entries_of_plain_text_are_compressed(self) -> None:
        long = "The harbour of Lisbon is old. It rained all day long in the city. " * 8
        call = Message("assistant", long, tool_calls=(ToolCall("a", "t", {}),))
        blocks = Message("user", [{"type": "text", "text": long}])
        talk = entries_of(f"{long} Boats come.", call, blocks, result("a", "found"), "Tea. Bread.", "x", "What now?")
        assert [(type(d), d.entry_id) for d in proposed(talk)] == [(Compress, "m0")]
        assert proposed(talk, replace(POLICY, compression_threshold=None)) == []

    @pytest.mark.parametrize("piece", ["a. ", "a ", ".", "! ", "\n", "。", "日"])
    def test_the_work_grows_with_the_length_of_a_text(self, counter: TokenCounter, piece: str) -> None:
        with time_limit(5):
            compress(piece * (60_000 // len(piece)), 1000, counter.count)
            is_greeting(piece * 60_000)


class TestPromotions:
    def test_a_user_s_statement_becomes_a_fact_with_its_source(self) -> None:
        assert promotions(entries_of("My name is Ann. I live in Lisbon."), {}) == [
            Promote("m0", "name", "Ann", "stated in the first person", RULE_CONFIDENCE),
            Promote("m0", "city", "Lisbon", "stated in the first person", RULE_CONFIDENCE),
        ]
        assert 0 < RULE_CONFIDENCE < 1

    @pytest.mark.parametrize("role", ["assistant", "tool", "system", "developer"])
    def test_p18_what_others_say_is_not_promoted(self, role: str) -> None:
        """P18: tool output is not promoted by default."""
        assert promotions([entry("My name is Ann.", role)], {}) == []

    @pytest.mark.parametrize(
        "body", ["8 May 2023 Bob: Hello. My name is Eve.", "My name is Eve.", "x\nI live in Rome."]
    )
    def test_p10_injected_memory_is_not_mined_for_facts(self, body: str) -> None:
        """P10: what was injected is never mined for facts."""
        block = delimit("recalled", as_data(body))
        assert promotions([entry(f"{block}\nI live in Lisbon.")], {}) == [
            Promote("m0", "city", "Lisbon", "stated in the first person", RULE_CONFIDENCE)
        ]
        assert promotions([entry(f"Look at this: {block}")], {}) == []

    def test_what_is_known_already_is_left_out(self) -> None:
        talk = entries_of("My name is Ann.", "Hi Ann!", "My name is Ann.")
        assert len(promotions(talk, {})) == 1
        assert promotions(talk, {"name": "Ann"}) == []
        assert [p.value for p in promotions(talk, {"name": "Bob"})] == ["Ann"]

    def test_the_latest_statement_is_the_last_promotion(self) -> None:
        talk = entries_of("I live in Rome.", "Nice.", "I moved to Turin.")
        assert [p.value for p in promotions(talk, {})] == ["Rome", "Turin"]

    @pytest.mark.parametrize(
        ("known", "value"),
        [
            (None, ["cats"]),
            ([], ["cats"]),
            (["nuts"], ["nuts", "cats"]),
            (["cats", "nuts"], None),
            ("nuts", ["nuts", "cats"]),
        ],
    )
    def test_p15_what_adds_up_is_never_replaced(self, known: Any, value: Any) -> None:
        """P15: an allergy that is known is not forgotten over a new one."""
        facts = {} if known is None else {"allergies": known}
        found = promotions([entry("I'm allergic to cats.")], facts)
        assert [p.value for p in found] == ([] if value is None else [value])

    def test_a_compressed_entry_and_media_are_left_alone(self) -> None:
        compressed = entry("My name is Ann.", original=Message("user", "My name is Ann. Or was it?"))
        blocks = entry(Message("user", [{"type": "text", "text": "My name is Ann."}]))
        assert promotions([compressed, blocks], {}) == []

    @given(entry_lists())
    def test_every_promotion_names_the_entry_it_came_from(self, entries: list[Entry]) -> None:
        users = {e.id for e in entries if e.role == "user"}
        assert {p.entry_id for p in promotions(entries, {})} <= users


def _is_made_of(sentence: str, said: Sequence[str]) -> bool:
    """Whether a piece of a compressed text is the last of these sentences, after some of the ones before, in order."""
    if not sentence.endswith(said[-1]):
        return False
    rest = sentence.removesuffix(said[-1]).rstrip()
    for part in reversed(said[:-1]):
        if rest.endswith(part):
            rest = rest.removesuffix(part).rstrip()
    return not rest
