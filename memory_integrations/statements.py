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

_NAME = r"(?P<value>[A-Z][\w'-]*(?: [A-Z][\w'-]*){0,3})"
_PLACE = r"(?P<value>(?:the )?[A-Z][\w'.-]*(?:,? (?:(?:of|de|do|da|la|le|the) )?[A-Z][\w'-]*){0,3})"
_COMPANY = r"(?P<value>[A-Z][\w&'.-]*(?: (?:(?:of|and|&) )?[A-Z][\w&'.-]*){0,4})"
_JOB = r"(?:an?|the) (?P<value>[a-z][\w'/-]*(?: [\w'/-]+){0,4}?)"
_FEW_WORDS = r"(?P<value>[\w'+#.-]+(?: [\w'+#.-]+){0,5}?)"
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

_PATTERNS = tuple(
    (key, re.compile(rf"(?i:{beginning}) {value}{_END}"))
    for key, beginning, value in (
        ("name", "my (?:full |first )?name(?: is|'s)", _NAME),
        ("preferred_name", "(?:please |just |you can )?call me", _NAME),
        ("pronouns", "my pronouns are", r"(?P<value>\w+(?:/\w+)+)"),
        ("city", "i(?: now| currently)? live in", _PLACE),
        ("city", "i'm(?: now| currently)? (?:living|based) in", _PLACE),
        ("city", "i(?:'ve| have)?(?: just| recently| finally)? (?:moved|relocated) to", _PLACE),
        ("hometown", "i(?:'m| come)(?: originally)? from", _PLACE),
        ("hometown", "i grew up in", _PLACE),
        ("occupation", "i(?: now| currently)? work as", _JOB),
        ("occupation", "i'm (?:now |currently )?working as", _JOB),
        ("employer", r"i(?: now| currently)? work(?: as [\w '-]+?)? (?:at|for)", _COMPANY),
        ("employer", r"i'm (?:now |currently )?working(?: as [\w '-]+?)? (?:at|for)", _COMPANY),
        ("allergies", "i'm(?: also| very| severely)? allergic to", _FOODS),
        ("diet", "i'm(?: now)?(?: an?)?", "(?P<value>vegetarian|vegan|pescatarian)"),
        ("birthday", "my birthday(?: is|'s)(?: on)?(?: the)?", _DATE),
        ("birthday", "i was born on(?: the)?", _DATE),
        ("languages_spoken", "i speak(?: fluent)?", _LANGUAGES),
        ("learning", "i'm(?: now)? learning", r"(?P<value>[A-Z][a-z]+)"),
        ("preference", "i (?:much |really |always )?prefer", _FEW_WORDS),
        ("favourite_*", r"my favou?rite (?P<what>[a-z]+(?: [a-z]+)?) is(?: now)?", _FEW_WORDS),
        ("*_name", rf"my (?P<what>{_CLOSE_ONES})(?:'s name is| is called| is named|'s called)", _NAME),
    )
)

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_QUOTATION = re.compile(
    r"\"[^\"]*\"|“[^”]*”|„[^“”]*[“”]|«[^»]*»|「[^」]*」|『[^』]*』|(?<!\w)['‘][^'’\n]*['’](?!\w)|`[^`]*`"
)
_QUOTE_MARK = re.compile(r"[\"“”„«»‹›「」『』`]|(?<!\w)['‘]|^\s*[>|*]")
_NOT_PLAIN = re.compile(
    r"\b(?:if|would\w*|could\w*|should\w*|might|maybe|perhaps|wish\w*|suppos\w+|imagin\w+|pretend\w*|were|unless"
    r"|whether|hypothetical\w*|not|never|no|none|\w+n't|cannot|used to|any ?more|former\w*|previously|almost|nearly"
    r"|sa(?:id|ys?|ying)|tell\w*|told|ask\w*|quot\w+|wrote|writes?|jok\w+|kidding|sarcas\w+|lol|as if|example|e\.g"
    r"|role ?play\w*|character|story|novel|lyrics?|translat\w+|sentence|phrase|think|thought|guess|dream\w*|feels? like"
    r"|seems?|until|before|once|as a child|temporarily|probably|some ?day|quotation)\b",
    re.IGNORECASE,
)
_OPENING = re.compile(
    r"^(?:(?:hi|hello|hey|so|and|also|well|actually|yes|yeah|oh|ok|okay|by the way|btw|just so you know|for the record"
    r"|fyi|as of today|from now on|note that|please remember(?: that)?|remember(?: that)?|guess what|good news|update"
    r"|correction|thanks|these days|nowadays|in fact)\b(?:[,:!]+|(?: -|—))? *)+",
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
    text = text.replace("’", "'")
    text = _QUOTATION.sub("(quotation)", _FENCED.sub("\n", text))
    if len(text.split()) > LONGEST_MESSAGE:
        return []
    found: list[tuple[str, Any]] = []
    for sentence in _SENTENCE_END.split(text):
        if "?" in sentence or sentence.rstrip().endswith(":"):
            continue
        plain = _AFTERTHOUGHT.sub("", re.sub(r"\b([Ii]) am\b", r"\1'm", sentence.strip().rstrip(" .!…")))
        if not _NOT_PLAIN.search(plain) and not _QUOTE_MARK.search(plain):
            for clause in _NEXT_CLAUSE.split(plain):
                found += _read(_OPENING.sub("", clause.strip()))
    return found


def _read(clause: str) -> list[tuple[str, Any]]:
    """The statements that a clause begins with: "I work as a baker at Bimbo" makes two."""
    found: dict[str, Any] = {}
    for pattern_key, pattern in _PATTERNS:
        match = pattern.match(clause)
        if match:
            value: str = match["value"].strip(" ,.")
            key = pattern_key
            if "*" in key:
                key = key.replace("*", match["what"].lower().replace(" ", "_"))
            found.setdefault(key, re.split(r", and |, | and ", value) if key in LISTS else value)
    return list(found.items())
