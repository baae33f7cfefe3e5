"""What people say of themselves in plain English sentences of a closed list: pure, and meant to miss, not to invent.

A sentence counts when it begins with one of the patterns, in the first person and the present, and holds nothing
that could turn it into something else: doubt, negation, a condition, reported speech, a quotation, a question.
"""

from __future__ import annotations

import re
from typing import Any

LISTS = frozenset(("allergies", "languages_spoken"))
"""Keys whose values add up instead of replacing each other."""

LONGEST_MESSAGE = 60
"""Words; a longer message may be pasted, and then it speaks of somebody else."""

LONGEST_TEXT = 2_000
"""Characters; the same, before anything is looked for."""

# A word that begins with a capital letter of any alphabet: whether it is one is checked when it was found.
_WORD = r"[^\W\d_a-z][\w'.-]*"
_NAME = rf"(?P<value>{_WORD}(?: {_WORD}){{0,3}})"
_PLACE = rf"(?P<value>(?:the )?{_WORD}(?:,? (?:(?:of|de|do|da|la|le|the) )?{_WORD}){{0,3}})"
_COMPANY = rf"(?P<value>{_WORD}(?: (?:(?:of|and|&) )?{_WORD}){{0,4}})"
_JOB = r"(?:an?|the) (?P<value>[a-z][\w'/-]*(?: [\w'/-]+){0,4}?)"
_PHRASE = (
    r"(?!(?:it|that|this|these|those|them|one|option|neither|either|both|not"
    r"|the (?:first|second|third|last|next|other|latter|former|one))\b)(?P<value>[\w'+#.-]+(?: [\w'+#.-]+){0,7}?)"
)
_FOODS = r"(?P<value>[a-z][\w'-]*(?:(?:, and |, | and )[a-z][\w'-]*){0,5})"
_LANGUAGES = r"(?P<value>[A-Z][a-z]+(?:(?:, and |, | and )[A-Z][a-z]+)*)"
_DATE = (
    r"(?P<value>\d{1,2}(?:st|nd|rd|th)?(?: of)? [A-Z][a-z]+(?: \d{4})?"
    r"|[A-Z][a-z]+ \d{1,2}(?:st|nd|rd|th)?(?:,? \d{4})?)"
)
_CLOSE_ONES = (
    "dog|cat|puppy|kitten|hamster|rabbit|parrot|horse|son|daughter|wife|husband|partner|sister|brother|mother|father"
    "|mum|mom|dad|boss|manager|teacher|doctor|girlfriend|boyfriend|best friend"
)
# Where a value ends: at the end, or at a word that begins what is no longer part of it.
_END = (
    r"(?=$|[,;]| (?:and|but|now|with|since|for|because|so|these days|at the moment|right now|again|too|last|this|in"
    r"|from|at|on|here|as|by|yesterday|today|when|which)\b)"
)
_END_OF_PHRASE = (
    r"(?=$|[,;]| (?:but|now|since|because|these days|at the moment|right now|again|too|as well)(?:$|[ ,;]))"
)
_END_OF_HABIT = r"(?=$|[,;]| (?:and|but|since|because|now)\b)"

_PATTERNS = tuple(
    (key, re.compile(rf"(?i:{beginning}) {value}{end}"))
    for key, beginning, value, end in (
        ("name", "my (?:full |first )?name(?: is|'s)", _NAME, _END),
        ("preferred_name", "(?:please |just |you can )?call me", _NAME, _END),
        ("pronouns", "my pronouns are", r"(?P<value>\w+(?:/\w+)+)", _END),
        ("city", "i(?: now| currently)? live in", _PLACE, _END),
        ("city", "i'm(?: now| currently)? (?:living|based) in", _PLACE, _END),
        ("city", "i(?:'ve| have)?(?: just| recently| finally)? (?:moved|relocated) to", _PLACE, _END),
        ("hometown", "i(?:'m| come)(?: originally)? from", _PLACE, _END),
        ("hometown", "i grew up in", _PLACE, _END),
        ("occupation", "i(?: now| currently)? work as", _JOB, _END),
        ("occupation", "i'm (?:now |currently )?working as", _JOB, _END),
        ("employer", r"i(?: now| currently)? work(?: as [\w '-]+?)? (?:at|for)", _COMPANY, _END),
        ("employer", r"i'm (?:now |currently )?working(?: as [\w '-]+?)? (?:at|for)", _COMPANY, _END),
        ("allergies", "i'm(?: also| very| severely)? allergic to", _FOODS, _END),
        ("diet", "i'm(?: now)?(?: an?)?", "(?P<value>vegetarian|vegan|pescatarian)", _END_OF_HABIT),
        ("birthday", "my birthday(?: is|'s)(?: on)?(?: the)?", _DATE, _END),
        ("birthday", "i was born on(?: the)?", _DATE, _END),
        ("languages_spoken", "i speak(?: fluent)?", _LANGUAGES, _END),
        ("learning", "i'm(?: now)? learning", r"(?P<value>[A-Z][a-z]+)", _END),
        ("preference", "i (?:much |really |always )?prefer", _PHRASE, _END_OF_PHRASE),
        ("favourite_*", r"my favou?rite (?P<what>[a-z]+(?: [a-z]+)?) is(?: now)?", _PHRASE, _END_OF_PHRASE),
        ("*_name", rf"my (?P<what>{_CLOSE_ONES})(?:'s name is| is called| is named|'s called)", _NAME, _END),
    )
)
_CAPITALISED = frozenset(("name", "preferred_name", "city", "hometown", "employer"))
# What has a capital letter and is no name, or no place.
_NO_NAMES = frozenset(
    """monday tuesday wednesday thursday friday saturday sunday today tomorrow tonight later asap back when maybe
    crazy old nothing anything everything""".split()
)
_NO_PLACES = frozenset(
    """linux windows macos mac android ios vim emacs python rust java javascript typescript kubernetes docker aws azure
    gcp slack notion github gitlab engineering sales marketing product design management support operations finance
    plan team""".split()
)

_SENTENCE_END = re.compile(r"(?<!\bDr\.)(?<!\bSt\.)(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<=[.!?])\s+|\n+")
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_QUOTATION = re.compile(
    r"\"[^\"]*\"|“[^”]*”|„[^“”]*[“”]|«[^»]*»|「[^」]*」|『[^』]*』|(?<!\w)['‘][^'’\n]*['’](?!\w)|`[^`]*`"
)
_QUOTE_MARK = re.compile(r"[\"“”„«»‹›「」『』`]")
_QUOTED_LINE = re.compile(r"(?<!\w)['‘]|^\s*[>|*]")
# Said of the whole message: it is dictated, translated, played, listed, or meant in fun.
_NOT_SERIOUS = re.compile(
    r"(?:^|\n)\s*[\w ]{1,30}:(?:\s|$)|(?:^|\s)\d+[.)]\s"
    r"|\b(?:jok\w+|kidding|lol|sarcas\w+|role[ -]?play\w*|pretend\w*|in (?:the|this|my) (?:game|story|novel))\b"
    r"|(?:^|[.!?]\s+|\n|please )"
    r"(?:translat|rewrit|rephras|paraphras|proofread|correct|summari[sz]|writ|repeat|say)(?:e|ing)?\b",
    re.IGNORECASE,
)
_ANNOUNCEMENT = re.compile(
    r"\b(good news|update|correction|fyi|for the record|by the way|btw|ps|note|reminder|remember):", re.IGNORECASE
)
_NOT_PLAIN = re.compile(
    r"\b(?:if|would\w*|could\w*|should\w*|might|maybe|perhaps|wish\w*|suppos\w+|imagin\w+|were|unless"
    r"|whether|hypothetical\w*|not|never|no|none|\w+n't|cannot|used to|any ?more|former\w*|previously|almost|nearly"
    r"|sa(?:id|ys?|ying)|tell\w*|told|ask\w*|quot\w+|wrote|writes?|as if|example|e\.g"
    r"|character|story|novel|lyrics?|translat\w+|sentence|phrase|think|thought|guess|dream\w*|feels? like"
    r"|seems?|until|before|once|as a child|temporarily|probably|some ?day|quotation)\b",
    re.IGNORECASE,
)
_OPENING = re.compile(
    r"^(?:(?:hi|hello|hey|so|and|also|well|actually|yes|yeah|oh|ok|okay|by the way|btw|just so you know|for the record"
    r"|fyi|as of today|from now on|note that|please remember(?: that)?|remember(?: that)?|guess what|good news|update"
    r"|correction|thanks|these days|nowadays|in fact)\b(?:[,!]+|(?: -|—))? *)+",
    re.IGNORECASE,
)
# A reason or a consequence after the statement ("..., so this matters") says nothing against it.
_AFTERTHOUGHT = re.compile(r",? (?:so|because|which|that's why)\b.*$", re.IGNORECASE)
_NEXT_CLAUSE = re.compile(r"(?:,| -|—|;)? (?:and|but) (?=(?:i|my|call)\b)|[,;] (?=(?:i|my)\b)", re.IGNORECASE)


def statements(text: str) -> list[tuple[str, Any]]:
    """What a message states of its speaker, in order.

    Args:
        text: A message.

    Returns:
        Keys such as "city" or "dog_name", and values: text, or a list of texts for :data:`LISTS`.
    """
    if len(text) > LONGEST_TEXT or len(text.split()) > LONGEST_MESSAGE:
        return []
    text = _QUOTATION.sub("(quotation)", _FENCED.sub("\n", text.replace("’", "'")))
    text = _ANNOUNCEMENT.sub(r"\1,", text)
    if _QUOTE_MARK.search(text) or _NOT_SERIOUS.search(text):
        return []
    found: list[tuple[str, Any]] = []
    for sentence in _SENTENCE_END.split(text):
        if re.search(r":(?:\s|$)", sentence):  # what follows may be somebody else's
            break
        if "?" in sentence:
            continue
        plain = _AFTERTHOUGHT.sub("", re.sub(r"\b([Ii]) am\b", r"\1'm", sentence.strip().rstrip(" .!…")))
        if not _NOT_PLAIN.search(plain) and not _QUOTED_LINE.search(plain):
            for clause in _NEXT_CLAUSE.split(plain):
                found += _read(_OPENING.sub("", clause.strip()))
    return found


def _read(clause: str) -> list[tuple[str, Any]]:
    """The statements that a clause begins with: "I work as a baker at Bimbo" makes two."""
    found: dict[str, Any] = {}
    for pattern_key, pattern in _PATTERNS:
        match = pattern.match(clause)
        if match and _is_meant(pattern_key, match["value"]):
            value: str = match["value"].strip(" ,.")
            key = pattern_key
            if "*" in key:
                key = key.replace("*", match["what"].lower().replace(" ", "_"))
            found.setdefault(key, re.split(r", and |, | and ", value) if key in LISTS else value)
    return list(found.items())


def _is_meant(key: str, value: str) -> bool:
    """Whether a name is a name and a place a place, as far as a closed list can tell."""
    if key in LISTS:
        return _NO_NAMES.isdisjoint(value.lower().split())
    if key not in _CAPITALISED and key != "*_name":
        return True
    words = value.removeprefix("the ").strip(" ,.").split()
    refused = _NO_PLACES if key in ("city", "hometown") else _NO_NAMES
    return words[0][0].isupper() and refused.isdisjoint(word.lower() for word in (words[0], words[-1]))
