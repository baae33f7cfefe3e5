"""What people say of themselves in plain English sentences of a closed list: pure, and meant to miss, not to invent.

A sentence counts when it begins with one of the patterns, in the first person and the present, and holds nothing
that could turn it into something else: doubt, negation, a condition, reported speech, a quotation, a question.
"""

from __future__ import annotations

import re
from itertools import pairwise
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
    r"(?!(?:it|that|this|these|those|them|one|option|neither|either|both|not|when|how|if|what|to be"
    r"|the (?:first|second|third|last|next|other|latter|former|one))\b)(?P<value>[\w'+#.-]+(?: [\w'+#.-]+){0,7}?)"
)
_NO_FOOD = "it|that|this|them|those|everything|anything|nothing"
_FOOD = rf"(?!(?:{_NO_FOOD})\b)[a-z][\w'-]*(?: (?:stings?|bites?|mites?|pollen|nuts?|milk|hair))?"
_FOODS = rf"(?P<value>{_FOOD}(?:(?:, and |, | and ){_FOOD}){{0,5}})"
# Those that count without a capital letter.
_KNOWN_LANGUAGES = (
    "arabic|bengali|catalan|chinese|czech|danish|dutch|english|finnish|french|german|greek|hebrew|hindi|hungarian"
    "|indonesian|italian|japanese|korean|mandarin|norwegian|persian|polish|portuguese|punjabi|romanian|russian|spanish"
    "|swahili|swedish|tagalog|tamil|thai|turkish|ukrainian|urdu|vietnamese|welsh"
)
_LANGUAGE = rf"(?:[A-Z][a-z]+|(?:{_KNOWN_LANGUAGES})\b)"
_SOME = "(?:some |a little |a bit of )?"
_LANGUAGES = rf"(?P<value>{_LANGUAGE}(?:(?:, and |, | and ){_SOME}{_LANGUAGE})*)"
# "I'm a ..." says anything of anybody; a trade is known by its last word.
_TRADE_WORDS = (
    "accountant|analyst|architect|baker|barber|barista|bartender|biologist|builder|butcher|carpenter|cashier|chef"
    "|chemist|cleaner|clerk|consultant|dentist|designer|developer|doctor|driver|economist|editor|electrician|engineer"
    "|farmer|firefighter|gardener|hairdresser|journalist|lawyer|lecturer|librarian|manager|mechanic|midwife|musician"
    "|nurse|painter|paramedic|pharmacist|photographer|physicist|physiotherapist|pilot|plumber|police officer"
    "|professor|programmer|psychologist|receptionist|researcher|scientist|secretary|solicitor|surgeon|tailor|teacher"
    "|therapist|translator|tutor|vet|waiter|waitress|welder|writer"
)
_NO_TRADE = (
    "of|an?|the|with|for|to|and|or|than|like|in|at|on|my|your|good|better|bad|worse|terrible|awful|great|big|huge"
    "|little|slow|nervous|proud|born|aspiring|future|failed|amateur|armchair|hobby|kind|sort|fake"
)
_TRADE = rf"(?:(?!(?:{_NO_TRADE})\b)[\w/-]+ ){{0,3}}(?:{_TRADE_WORDS})"
_DIET = "(?P<value>vegetarian|vegan|pescatarian|halal|kosher|gluten-free|dairy-free)"
_DATE = (
    r"(?P<value>\d{1,2}(?:st|nd|rd|th)?(?: of)? [A-Z][a-z]+(?: \d{4})?"
    r"|[A-Z][a-z]+ \d{1,2}(?:st|nd|rd|th)?(?:,? \d{4})?)"
)
_PRONOUNS = r"(?P<value>(?i:she|he|they|it|xe|ze|ey|any|elle|iel)(?:/\w+)+)"
_THING = "(?P<what>[a-z]+(?: [a-z]+)?)"
_CLOSE_ONE = (
    "(?P<what>dog|cat|puppy|kitten|hamster|rabbit|parrot|horse|son|daughter|wife|husband|partner|sister|brother|mother"
    "|father|mum|mom|dad|boss|manager|teacher|doctor|girlfriend|boyfriend|best friend|friend|colleague|neighbou?r"
    "|roommate|flatmate|cousin|uncle|aunt|nephew|niece|grandson|granddaughter|grandmother|grandfather|fianc[ée]e?)"
)
# Where a value ends: at the end, or at a word that begins what is no longer part of it.
_END = (
    r"(?=$|[,;]| (?:and|but|now|with|since|for|because|so|these days|at the moment|right now|again|too|last|this|in"
    r"|from|at|on|here|as|by|yesterday|today|when|while|until|which|where|who|originally|btw)\b)"
)
_END_OF_PHRASE = (
    r"(?=$|[,;]| (?:but|now|since|because|these days|at the moment|right now|again|too|as well|tbh|btw)(?:$|[ ,;]))"
)
_END_OF_HABIT = r"(?=$|[,;]| (?:and|but|since|because|now|last (?:month|year))\b)"
_END_OF_LANGUAGES = r"(?=$|[,;]| (?:but|since|because|now|too|as well|fluently)\b)"
_END_OF_TRADE = r"(?=$|[,;]| (?:and|but|with|since|because|now|who|here|by trade)\b| (?:in|at|from|for|near) [A-Z])"

_PATTERNS = tuple(
    (key, re.compile(rf"(?i:{beginning}) {value}{end}"))
    for key, beginning, value, end in (
        ("name", "(?:my (?:full |first )?name|full name)(?: is|'s)|name's", _NAME, _END),
        ("preferred_name", "(?:please |just |you can )?call me|every(?:body|one) calls me", _NAME, _END),
        ("pronouns", "my pronouns are", _PRONOUNS, _END),
        ("pronouns", "i use", _PRONOUNS, "(?= pronouns)"),
        ("city", "i(?: now| currently)? live in", _PLACE, _END),
        ("city", "i(?:'m(?: now| currently)? (?:living|based)|'ve been living) in", _PLACE, _END),
        ("city", "i(?:'ve| have)?(?: just| recently| finally)? (?:moved|relocated) to", _PLACE, _END),
        ("hometown", "i(?:'m| come)(?: originally)? from", _PLACE, _END),
        ("hometown", "i grew up in", _PLACE, _END),
        ("occupation", "i(?: now| currently)? work as", _JOB, _END),
        ("occupation", "i'm (?:now |currently )?working as", _JOB, _END),
        ("occupation", r"i work (?:at|for) [\w '&-]+? as", _JOB, _END),
        ("occupation", "i'm an?|my occupation is(?: an?)?", f"(?P<value>{_TRADE})", _END_OF_TRADE),
        ("occupation", "as an?", f"(?P<value>{_TRADE})", "(?=,? [Ii] )"),
        ("employer", rf"i'm an? {_TRADE} (?:at|for)", _COMPANY, _END),
        ("employer", r"i(?: now| currently)? work(?: as [\w '-]+?)? (?:at|for)", _COMPANY, _END),
        ("employer", r"i'm (?:now |currently )?working(?: as [\w '-]+?)? (?:at|for)", _COMPANY, _END),
        ("employer", "(?:i've )?been working (?:at|for)", _COMPANY, _END),
        ("allergies", "i'm(?: also| very| severely| deathly)? allergic to", _FOODS, _END),
        ("diet", "i(?:'m(?: now)?|'ve been| went)(?: an?)?", _DIET, _END_OF_HABIT),
        ("diet", "i (?:only eat|follow an?)", _DIET, f"(?: diet)?{_END_OF_HABIT}"),
        ("birthday", "my b(?:irth)?day(?: is|'s)(?: on)?(?: the)?", _DATE, _END),
        ("birthday", "i was born on(?: the)?", _DATE, _END),
        ("languages_spoken", "i(?: can)? speak(?: fluent)?", _LANGUAGES, _END_OF_LANGUAGES),
        ("learning", "i'm(?: now)? (?:learning|teaching myself)", f"(?P<value>{_LANGUAGE})", _END_OF_LANGUAGES),
        ("preference", "i (?:much |really |always )?prefer", _PHRASE, _END_OF_PHRASE),
        (
            "favourite_*",
            rf"my (?:all-time )?fav(?:e|ou?rite)? (?!thing|part){_THING} is(?: now)?",
            _PHRASE,
            _END_OF_PHRASE,
        ),
        ("*_name", rf"(?:my|our)(?: new)? {_CLOSE_ONE}(?:'s name is| is called| is named|'s called)", _NAME, _END),
        ("*_name", rf"(?:i|we) have an? {_CLOSE_ONE} (?:called|named)", _NAME, _END),
        ("*_name", f"my {_CLOSE_ONE}", rf"(?!\w[A-Z]){_NAME}", "(?= (?:is|has|and|works|lives)\\b)"),
    )
)
_CAPITALISED = frozenset(("name", "preferred_name", "city", "hometown", "employer"))
# What has a capital letter and is no name, or no place.
_NO_NAMES = frozenset(
    """monday tuesday wednesday thursday friday saturday sunday today tomorrow tonight later asap back when maybe
    crazy old nothing anything everything sherlock einstein mud""".split()
)
_NO_PLACES = frozenset(
    """linux windows macos mac android ios vim emacs python rust java javascript typescript kubernetes docker aws azure
    gcp slack notion github gitlab engineering sales marketing product design management support operations finance
    plan team""".split()
)

_SENTENCE_END = re.compile(
    r"(?<!\bDr\.)(?<!\bSt\.)(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\b[ie]\.[eg]\.)(?<=[.!?])\s+|\n+"
)
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_QUOTATION = re.compile(
    r"\"[^\"]*\"|“[^”]*”|„[^“”]*[“”]|«[^»]*»|「[^」]*」|『[^』]*』|(?<!\w)['‘][^'’\n]*['’](?!\w)|`[^`]*`"
)
_QUOTE_MARK = re.compile(r"[\"“”„«»‹›「」『』`]")
_QUOTED_LINE = re.compile(r"(?<!\w)['‘]|^\s*[>|*]")
# Said of the whole message: it is dictated, translated, played, listed, or meant in fun.
_NOT_SERIOUS = re.compile(
    r"(?:^|\n)\s*[\w ]{1,30}:(?:\s|$)|(?:^|\s)\d+[.)]\s"
    r"|\b(?:jok\w+|kidding|lol|sarcas\w+|yeah,? right|role[ -]?play\w*|pretend\w*"
    r"|in (?:the|this|my) (?:game|story|novel))\b"
    r"|(?:^|[.!?]\s+|\n|please )"
    r"(?:translat|rewrit|rephras|paraphras|proofread|correct|summari[sz]|writ|repeat|say)(?:e|ing)?\b",
    re.IGNORECASE,
)
_ANNOUNCEMENT = re.compile(
    r"\b(good news|heads up|one thing(?: though)?|(?:a few|some) (?:things|facts) about me"
    r"|update|correction|fyi|for the record|by the way|btw|ps|note|reminder|remember):",
    re.IGNORECASE,
)
_NOT_PLAIN = re.compile(
    r"\b(?:if|would\w*|could\w*|should\w*|might|maybe|perhaps|wish\w*|suppos\w+|imagin\w+|were|unless"
    r"|whether|hypothetical\w*|not|never|no|none|\w+n't|cannot|used to|any ?more|former\w*|previously|almost|nearly"
    r"|sa(?:id|ys?|ying)|tell\w*|told|ask\w*|quot\w+|wrote|writes?|as if|example|e\.g|i\.e"
    r"|character|story|novel|lyrics?|translat\w+|sentence|phrase|think|thought|guess|dream\w*|feels? like"
    r"|obviously|clearly|apparently|basically|seems?"
    r"|until|before|once|as a child|temporarily|probably|some ?day|quotation)\b",
    re.IGNORECASE,
)
_OPENING = re.compile(
    r"^(?:(?:hi|hello|hey|so|and|also|well|actually|yes|yeah|oh|ok|okay|by the way|btw|just so you know|for the record"
    r"|fyi|as of today|from now on|note that|please remember(?: that)?|remember(?: that)?|guess what|good news|heads up"
    r"|update|one thing(?: though)?|(?:a few|some) (?:things|facts) about me|now|correction|thanks"
    r"|these days|nowadays|in fact)\b(?:[,!]+|(?: -|—))? *)+",
    re.IGNORECASE,
)
# A reason or a consequence after the statement ("..., so this matters") says nothing against it.
_AFTERTHOUGHT = re.compile(r",? (?:so|because|which|that's why)\b.*$", re.IGNORECASE)
# Neither does a question for which it is the reason, if it does not ask about the statement itself.
_QUESTION_AFTER = re.compile(
    r", (?:but )?(?:where|what|which|how|can|could you)\b(?![^,]*\b(?:that|say|said|think|believe|know)\b)[^,]*\?$",
    re.IGNORECASE,
)
# What is denied before it is put right: "I'm not from Texas, I'm from Oklahoma."
_PUT_RIGHT = re.compile(r"^i(?:(?:'m| am) not from| (?:don't|do not) (?:live|work))\b[^,]*, (?=i\b)", re.IGNORECASE)
_NEXT_CLAUSE = re.compile(
    r"(?:,| -|—|;)? (?:and|but) (?=(?:now )?(?:im?|my|our|call|every(?:body|one) calls)\b)"
    r"|[,;] (?=(?:now )?(?:im?|my|our)\b)",
    re.IGNORECASE,
)
# After a greeting "I'm Ann" is a name; "I'm German" is none.
_GREETED = re.compile(
    r"\A(?i:(?:hi|hello|hey)(?: there)?\b[,!.]* i(?: am|'?m)) (?=[A-Z][a-z])(?!\w+(?:ish|ese|ian|can)\b)"
    rf"(?!(?i:{_KNOWN_LANGUAGES})\b)"
)
# How the next sentence takes a statement back: "I'm a doctor. Of procrastination."
_TAKEN_BACK = re.compile(
    r"(?:of|not|just|as if|in (?:my|your) dreams|at heart|sort of|kind of|ha(?:ha)*|psych|wait|jk|or (?:am|do|was)"
    r"|well, (?:not|almost|sort|kind))\b",
    re.IGNORECASE,
)
# What ends a sentence and is no word of it; a face that laughs or rolls its eyes stays, and nothing is found.
_TAIL = re.compile(r"[^\w)'*/+#>|?😂🤣🙄😜😏😉]+$")


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
    text = _GREETED.sub("My name is ", _ANNOUNCEMENT.sub(r"\1,", text))
    if _QUOTE_MARK.search(text) or _NOT_SERIOUS.search(text):
        return []
    found: list[tuple[str, Any]] = []
    for sentence, after in pairwise([*_SENTENCE_END.split(text), ""]):
        if re.search(r":(?:\s|$)", sentence):  # what follows may be somebody else's
            break
        sentence = _AFTERTHOUGHT.sub("", _QUESTION_AFTER.sub("", sentence.strip()))
        if "?" in sentence:
            continue
        plain = _PUT_RIGHT.sub("", _TAIL.sub("", sentence))
        if not _NOT_PLAIN.search(plain) and not _QUOTED_LINE.search(plain) and not _TAKEN_BACK.match(after):
            for clause in _NEXT_CLAUSE.split(plain):
                found += _read(_OPENING.sub("", clause.strip()))
    return found


def _read(clause: str) -> list[tuple[str, Any]]:
    """The statements that a clause begins with: "I work as a baker at Bimbo" makes two."""
    found: dict[str, Any] = {}
    clause = re.sub(r"^([Ii])(?: am|m)\b", r"\1'm", clause)
    for pattern_key, pattern in _PATTERNS:
        match = pattern.match(clause)
        if match and _is_meant(pattern_key, match["value"]):
            value: str = match["value"].strip(" ,.")
            key = pattern_key
            if "*" in key:
                key = key.replace("*", match["what"].lower().replace(" ", "_"))
            found.setdefault(key, re.split(rf"(?:, and |, | and ){_SOME}", value) if key in LISTS else value)
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
