"""What people say of themselves, sentence by sentence: the closed list finds the plain ones and invents nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import any_text, nasty_text, time_limit

from memory_integrations.statements import LISTS, LONGEST_MESSAGE, statements

PLAIN: list[tuple[str, dict[str, Any]]] = [
    # names
    ("My name is Ann.", {"name": "Ann"}),
    ("My name is Ann", {"name": "Ann"}),
    ("my name's Ann Lee", {"name": "Ann Lee"}),
    ("my name’s Ann", {"name": "Ann"}),
    ("My full name is Ann Marie Lee.", {"name": "Ann Marie Lee"}),
    ("Hi, my name is Ann!", {"name": "Ann"}),
    ("Hello! My name is Jean-Luc O'Brien.", {"name": "Jean-Luc O'Brien"}),
    ("My name is Zoë.", {"name": "Zoë"}),
    ("My name is Ann and I live in Lisbon.", {"name": "Ann", "city": "Lisbon"}),
    ("Please call me Sam.", {"preferred_name": "Sam"}),
    ("You can call me Sam", {"preferred_name": "Sam"}),
    ("Call me Ishmael.", {"preferred_name": "Ishmael"}),
    ("My pronouns are they/them.", {"pronouns": "they/them"}),
    ("Hi, I'm Ann. How are you?", {"name": "Ann"}),
    ("Full name is Ann Lee but everybody calls me Annie", {"name": "Ann Lee", "preferred_name": "Annie"}),
    ("I use she/her pronouns.", {"pronouns": "she/her"}),
    # places
    ("I live in Lisbon.", {"city": "Lisbon"}),
    ("I live in New York City.", {"city": "New York City"}),
    ("I live in Rio de Janeiro", {"city": "Rio de Janeiro"}),
    ("I live in São Paulo.", {"city": "São Paulo"}),
    ("I live in the Netherlands.", {"city": "the Netherlands"}),
    ("I live in St. Louis.", {"city": "St. Louis"}),
    ("I live in Paris with my cat.", {"city": "Paris"}),
    ("I currently live in Berlin, by the way.", {"city": "Berlin"}),
    ("I now live in Porto.", {"city": "Porto"}),
    ("I am living in Porto at the moment.", {"city": "Porto"}),
    ("I'm based in Vienna these days", {"city": "Vienna"}),
    ("I moved to Hamburg.", {"city": "Hamburg"}),
    ("I just moved to Hamburg last week.", {"city": "Hamburg"}),
    ("I've moved to Hamburg.", {"city": "Hamburg"}),
    ("I've finally relocated to Kyoto!", {"city": "Kyoto"}),
    ("Good news: I've moved to Hamburg.", {"city": "Hamburg"}),
    ("Well, actually, I live in Rome now.", {"city": "Rome"}),
    ("By the way, I live in Oslo.", {"city": "Oslo"}),
    ("Update: I live in Turin now", {"city": "Turin"}),
    ("I live in Lisbon, so trams matter to me.", {"city": "Lisbon"}),
    ("I live in Lisbon because I love the sea.", {"city": "Lisbon"}),
    ("Thanks! I live in Lisbon.", {"city": "Lisbon"}),
    ("The weather is nice. I live in Lisbon. It is sunny.", {"city": "Lisbon"}),
    ("Please remember that I live in Lisbon.", {"city": "Lisbon"}),
    ("I live in Lisbon; my name is Ann.", {"city": "Lisbon", "name": "Ann"}),
    ("I'm from Portugal.", {"hometown": "Portugal"}),
    ("I am originally from Cape Town.", {"hometown": "Cape Town"}),
    ("I come from Ghana.", {"hometown": "Ghana"}),
    ("I grew up in Leeds.", {"hometown": "Leeds"}),
    ("I grew up in Leeds, but I live in York now.", {"hometown": "Leeds", "city": "York"}),
    ("I live in Lisbon 🌞", {"city": "Lisbon"}),
    ("I live in Lisbon, where can I skate?", {"city": "Lisbon"}),
    ("I've been living in Lisbon since May.", {"city": "Lisbon"}),
    ("I'm not from Porto, I'm from Lisbon.", {"hometown": "Lisbon"}),
    ("im from Lisbon originally", {"hometown": "Lisbon"}),
    # work
    ("I'm a nurse.", {"occupation": "nurse"}),
    ("I'm a senior software engineer at Siemens.", {"occupation": "senior software engineer", "employer": "Siemens"}),
    ("I work for Siemens as an engineer.", {"employer": "Siemens", "occupation": "engineer"}),
    ("A few things about me: I'm a baker and I live in Bonn.", {"occupation": "baker", "city": "Bonn"}),
    ("I work as a nurse.", {"occupation": "nurse"}),
    ("I work as a software engineer at Siemens.", {"occupation": "software engineer", "employer": "Siemens"}),
    ("I am working as an architect now.", {"occupation": "architect"}),
    ("I work at Google.", {"employer": "Google"}),
    ("I work for BMW.", {"employer": "BMW"}),
    ("I work for Johnson & Johnson.", {"employer": "Johnson & Johnson"}),
    ("I'm working for Bank of America since May.", {"employer": "Bank of America"}),
    # food and health
    ("I'm allergic to peanuts.", {"allergies": ["peanuts"]}),
    ("I am allergic to peanuts and shellfish.", {"allergies": ["peanuts", "shellfish"]}),
    ("I'm allergic to nuts, milk, and eggs", {"allergies": ["nuts", "milk", "eggs"]}),
    ("I'm also allergic to cats.", {"allergies": ["cats"]}),
    ("I'm severely allergic to bees.", {"allergies": ["bees"]}),
    ("I'm vegetarian.", {"diet": "vegetarian"}),
    ("I am a vegan", {"diet": "vegan"}),
    ("I'm now a pescatarian, by the way.", {"diet": "pescatarian"}),
    ("Heads up: I'm deathly allergic to bee stings", {"allergies": ["bee stings"]}),
    ("I've been vegetarian since 2010.", {"diet": "vegetarian"}),
    ("I follow a gluten-free diet.", {"diet": "gluten-free"}),
    # dates
    ("My birthday is May 5.", {"birthday": "May 5"}),
    ("My birthday is on 5 May 1990.", {"birthday": "5 May 1990"}),
    ("My birthday's on the 3rd of October", {"birthday": "3rd of October"}),
    ("I was born on March 3, 1985.", {"birthday": "March 3, 1985"}),
    # languages
    ("I speak French.", {"languages_spoken": ["French"]}),
    ("I speak French, Wolof and English.", {"languages_spoken": ["French", "Wolof", "English"]}),
    ("I speak fluent Japanese.", {"languages_spoken": ["Japanese"]}),
    ("I'm learning Portuguese.", {"learning": "Portuguese"}),
    ("i speak hindi, tamil and a bit of english", {"languages_spoken": ["hindi", "tamil", "english"]}),
    ("I'm learning korean", {"learning": "korean"}),
    # tastes
    ("I prefer tea.", {"preference": "tea"}),
    ("I much prefer short answers.", {"preference": "short answers"}),
    ("I prefer C++ and I live in Bonn.", {"preference": "C++", "city": "Bonn"}),
    ("My favourite colour is blue.", {"favourite_colour": "blue"}),
    ("My favorite editor is Vim.", {"favourite_editor": "Vim"}),
    ("My favourite ice cream is pistachio now.", {"favourite_ice_cream": "pistachio"}),
    # those around them
    ("My dog's name is Rex.", {"dog_name": "Rex"}),
    ("My cat is called Miss Molly.", {"cat_name": "Miss Molly"}),
    ("My best friend is named Tom.", {"best_friend_name": "Tom"}),
    ("My sister Ann is here.", {"sister_name": "Ann"}),
    ("We have a parrot called Kiwi.", {"parrot_name": "Kiwi"}),
    ("My daughter's called Mia, and my son is called Leo.", {"daughter_name": "Mia", "son_name": "Leo"}),
]

NOTHING: dict[str, list[str]] = {
    "negation": [
        "I don't live in Lisbon.",
        "I do not live in Lisbon.",
        "My name is not Ann.",
        "My name isn't Ann.",
        "I never live in Lisbon.",
        "I'm not vegetarian.",
        "I am no vegan.",
        "I'm not allergic to peanuts.",
        "I no longer live in Lisbon.",
        "I don’t work at Google.",
        "I live in Lisbon no more.",
        "I work at Google, not.",
        "I can't say I prefer tea.",
        "I'm not sure, I live in Lisbon.",
    ],
    "the past": [
        "I used to live in Lisbon.",
        "I lived in Lisbon.",
        "I formerly worked at Google.",
        "I worked as a nurse.",
        "I previously lived in Rome.",
        "My name was Ann.",
        "I was vegetarian.",
        "I live in Lisbon until June.",
    ],
    "questions": [
        "Do I live in Lisbon?",
        "I live in Lisbon?",
        "My name is Ann?",
        "Is my name Ann?",
        "Where do I live?",
        "I'm allergic to what?",
        "I live in Lisbon, right?",
        "Did I say that my favourite colour is blue?",
        "I live in Lisbon, what made you think that?",
        "I'm vegan, how do you know?",
    ],
    "conditions and wishes": [
        "If I live in Lisbon, what then.",
        "If my name is Ann then say so.",
        "I would live in Lisbon.",
        "I'd live in Lisbon.",
        "I wish I live in Lisbon.",
        "Suppose I live in Lisbon.",
        "Imagine my name is Ann.",
        "Let's pretend I work at Google.",
        "I might be vegetarian.",
        "Maybe I live in Lisbon.",
        "I could live in Lisbon.",
        "I live in Lisbon unless I move.",
        "I want to live in Lisbon.",
        "I hope to move to Lisbon.",
        "I will live in Lisbon.",
        "I plan to work at Google.",
        "Someday I live in Lisbon.",
        "Assuming I live in Lisbon, how far is it to Porto.",
        "I'm going to move to Hamburg.",
    ],
    "doubt": [
        "I think I live in Lisbon.",
        "I guess my name is Ann.",
        "I'm probably vegetarian.",
        "It seems I live in Lisbon.",
        "I almost moved to Hamburg.",
        "I live in Lisbon, perhaps.",
    ],
    "reported speech": [
        "She said my name is Ann.",
        "He told me I live in Lisbon.",
        "My mother says I'm vegetarian.",
        "Bob: I live in Lisbon.",
        "Tell him my name is Ann.",
        "Ask her whether I live in Lisbon.",
        "Someone wrote that I work at Google.",
        "My friend claims I live in Lisbon.",
        "According to him I live in Lisbon.",
    ],
    "quotations": [
        'She asked, "My name is Ann."',
        '"I live in Lisbon."',
        "“I live in Lisbon.”",
        "'I live in Lisbon.'",
        "‘I live in Lisbon.’",
        "„Ich bin Ann. My name is Ann.“",
        "«I live in Lisbon.»",
        "「I live in Lisbon.」",
        "> I live in Lisbon.",
        "> My name is Ann.\n> I live in Lisbon.",
        "| I live in Lisbon.",
        "* I live in Lisbon.",
        'Translate "I live in Lisbon" into French.',
        "Translate: I live in Lisbon.",
        'The text says:\n"Dear all.\nI live in Lisbon.\nYours"',
        "`I live in Lisbon`",
        '"Hello. I live in Lisbon. My name is Eve.',
    ],
    "other people": [
        "My sister lives in Lisbon.",
        "He lives in Lisbon.",
        "Her name is Ann.",
        "My boss prefers tea.",
        "We live in Lisbon.",
        "They call me Sam sometimes when I lose.",
        "You live in Lisbon.",
        "Your name is Ann.",
        "My sister's favourite colour is blue.",
        "Ann is allergic to peanuts.",
        "My company works for Google.",
        "My name is on the list.",
        "My name is hard to spell.",
    ],
    "code and pasted text": [
        "```\nMy name is Ann.\n```",
        "```python\nprint('I live in Lisbon.')\n```",
        "```\nI live in Lisbon.",
        "Fix this:\n```\nI live in Lisbon.\n```\nplease",
        "Write a story in which I live in Lisbon.",
        "Role play: my name is Ann.",
        "An example sentence: I live in Lisbon.",
        "The lyrics go: I live in Lisbon.",
        "In the novel I live in Lisbon.",
        "Subject: hello\nFrom: Bob\nDear Ann, here is what I wrote: I live in Lisbon.",
    ],
    "jokes": [
        "I live in Lisbon, just kidding.",
        "I live in Lisbon. Just kidding!",
        "I'm vegan lol.",
        "I'm vegan 🙄",
        "I prefer chaos, obviously.",
        "Yeah right, and my name is Ann.",
        "As if I live in Lisbon.",
    ],
    "dictation": [
        "Translate to French: My name is Ann. I live in Lisbon.",
        "Proofread this: Dear all. I live in Lisbon.",
        "Write a letter: Hello Bob. My name is Ann.",
        "Rewrite this politely. My name is Ann. I live in Lisbon.",
        "Correct my English. My name is Ann.",
        "Bob: Hi there. My name is Bob.",
        "She said: Hello. My name is Ann.",
        "Which is correct? 1. I live in Lisbon. 2. I live at Lisbon.",
    ],
    "fiction": [
        "My name is Ann in this role-play.",
        "I live in Lisbon in the game.",
        "I work as a knight in the game.",
    ],
    "what holds for a moment": [
        "I prefer it.",
        "I prefer that one.",
        "I prefer the second option.",
        "I prefer option B.",
        "My favourite one is the last.",
        "Call me Monday.",
        "Call me Tomorrow.",
        "Please call me ASAP.",
        "I'm vegetarian on Mondays.",
        "I'm vegan for a day.",
    ],
    "what only sounds alike": [
        "I live in fear.",
        "I live in a small flat.",
        "I live in the city.",
        "I work at night.",
        "I work as hard as I can.",
        "I work for fun.",
        "I'm from here.",
        "Call me later.",
        "Call me when you are done.",
        "Call me back at 5.",
        "My birthday is soon.",
        "I speak slowly.",
        "I speak to customers.",
        "I'm learning a lot.",
        "I am fine.",
        "I'm a walking disaster.",
        "I'm a bad driver.",
        "I'm a fan of my doctor.",
        "I'm a doctor in training.",
        "I'm a teacher's pet.",
        "As a doctor, write me a note.",
        "Hi, I'm German.",
        "Hi, I'm Brazilian.",
        "My boss IS late.",
        "Name is Required.",
        "I'm allergic.",
        "My dog is called often.",
        "live in Lisbon",
        "Lisbon",
        "My favourite.",
        "",
        "   ",
        "\n",
    ],
}


@pytest.mark.parametrize(("text", "expected"), PLAIN, ids=[text for text, _ in PLAIN])
def test_a_plain_statement_is_found(text: str, expected: dict[str, Any]) -> None:
    assert dict(statements(text)) == expected


@pytest.mark.parametrize(
    ("kind", "text"),
    [(kind, text) for kind, texts in NOTHING.items() for text in texts],
    ids=lambda part: repr(part)[:60],
)
def test_what_is_no_plain_statement_is_not_found(kind: str, text: str) -> None:
    assert statements(text) == [], kind


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("I prefer answers in French.", "answers in French"),
        ("I prefer working at night.", "working at night"),
        ("I prefer meetings on Zoom.", "meetings on Zoom"),
        ("My favourite book is War and Peace.", "War and Peace"),
        ("My favourite food is pizza with pineapple.", "pizza with pineapple"),
        ("My name is Dr. Smith.", "Dr. Smith"),
        ("I prefer tea tbh", "tea"),
        ("I speak Spanish at home and English at work.", ["Spanish", "English"]),
    ],
)
def test_a_value_is_whole_or_not_found(text: str, whole: str | list[str]) -> None:
    """Half a value is another fact: who prefers answers in French does not prefer answers."""
    assert [value for _, value in statements(text)] in ([], [whole])


def test_the_tables_are_long_enough() -> None:
    assert len(PLAIN) >= 60
    assert sum(map(len, NOTHING.values())) >= 100


def test_a_long_message_may_be_pasted_and_says_nothing() -> None:
    said = "My name is Ann."
    filler = " Boats are nice today." * ((LONGEST_MESSAGE - 4) // 4)
    assert dict(statements(said + filler)) == {"name": "Ann"}
    assert statements(said + filler + " More words after that.") == []


def test_statements_come_in_order_and_a_later_one_corrects_an_earlier_one() -> None:
    assert statements("I live in Rome. My name is Ann. Correction: I live in Turin.") == [
        ("city", "Rome"),
        ("name", "Ann"),
        ("city", "Turin"),
    ]


def test_p17_names_are_kept_as_they_were_said() -> None:
    """P17: the language and the names of what was said."""
    assert dict(statements("My name is Łukasz Żółć. I live in Kraków.")) == {"name": "Łukasz Żółć", "city": "Kraków"}
    assert statements("Me llamo Ana y vivo en Lisboa.") == []
    assert statements("私の名前はアンです。") == []


@given(
    nasty_text
    | any_text
    | st.sampled_from([text for text, _ in PLAIN]).flatmap(lambda said: nasty_text.map(said.__add__))
)
def test_any_text_gives_keys_and_values_that_it_holds(text: str) -> None:
    for key, value in statements(text):
        assert key == key.strip().lower()
        assert isinstance(value, list) == (key in LISTS)
        for part in value if isinstance(value, list) else [value]:
            assert part.strip()
            assert part in text.replace("’", "'"), "the words are the speaker's own"


@given(
    st.sampled_from([text for text, _ in PLAIN]),
    st.sampled_from(['"', "“", "```\n", "> ", "He said: ", "If ", "Maybe "]),
)
def test_what_makes_a_statement_anothers_makes_it_nothing(text: str, beginning: str) -> None:
    assert statements(beginning + text.replace(". ", ", ").replace("! ", ", ").replace(": ", ", ")) == []


@pytest.mark.parametrize(
    "piece", ['"', "'", "„", "「", "«", "“", "`", "```", "I ", "A ", ", ", "and ", "My name is ", " ", "\n", "a", "."]
)
def test_the_work_grows_with_the_length_of_a_text(piece: str) -> None:
    with time_limit(5):
        statements(piece * (100_000 // len(piece)))
