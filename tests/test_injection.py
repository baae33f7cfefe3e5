"""Whatever text is stored, the prompt keeps its structure: P18. Attacks by the hundred, in every place, by every face.

Each attack is planted wherever text comes to memory, and beside it, for another user, a harmless word. Then every face
must give both the same messages, in the same roles, with the same calls, and the same text around what was planted; and
what was planted must be data: in its block no end of a block, no line at the margin, nothing that cannot be seen.
"""

from __future__ import annotations

import io
import itertools
import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("langchain")
pytest.importorskip("llama_index.core")

from injection_faces import FACES, MANY, Shown
from injection_places import (
    ATTACKS,
    CALL,
    FORMER,
    HARMLESS,
    ITEM_AS_JSON,
    KEY,
    KEY_AND_VALUE,
    NESTED,
    QUESTION,
    RESULT,
    TWO_MESSAGES,
    VALUE,
    Plant,
    masked,
    planted_in,
    user_of,
)
from strategies import Clock

from memory_integrations import MemoryManager, Message, ShortTermPolicy
from memory_integrations.delimiters import MEMORY_NOTE, strip_injected
from memory_integrations.langchain import memory_prompt
from memory_integrations.messages import as_unicode

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecationWarning")  # LlamaIndex's own

QUOTED = frozenset((KEY, VALUE, KEY_AND_VALUE, NESTED, FORMER, ITEM_AS_JSON, CALL))
"""Places whose text is shown as JSON, or as Python writes it."""
# How letters and brackets are faked, beside what Unicode itself calls compatible.
_FAKES = str.maketrans("‹〈⟨˂〈∕／꞉∶：еомуоιο", "<<<<<//:::eomyoio")
_TAG = re.compile(r"<[\s/]*memory\s*:")
_LLAMA_TAG = re.compile(r"<[\s/]*(?:memory|facts|recalled)\b")
_ORDERED = re.compile(r"<(memory:recalled|recalled)>\n(.*?)\n</\1>", re.DOTALL)


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemoryManager]:
    """One open memory for all attacks; each has a user of its own."""
    policy = ShortTermPolicy(max_tokens=100_000, manage_above_tokens=0)
    with MemoryManager(data_dir=tmp_path_factory.mktemp("all"), clock=Clock(), short_term_policy=policy) as opened:
        yield opened


_users = itertools.count()


def shown_by_every_face(memory: MemoryManager, plant: Plant, question: str = QUESTION) -> dict[str, list[Shown]]:
    """What each face gives to a user with whom all of this is planted."""
    ann = user_of(memory, f"ann {next(_users)}")
    plant.remember(ann)
    return {name: face(ann, plant, question) for name, face in FACES.items()}


@pytest.fixture(scope="module")
def harmless(memory: MemoryManager) -> dict[str, list[Shown]]:
    """What each face gives where nobody means any harm."""
    return shown_by_every_face(memory, Plant(*HARMLESS))


def seen_by_a_reader(text: str) -> str:
    """The text as it looks: without what cannot be seen, compatible and similar characters made plain."""
    visible = "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Mn", "Cc") or c in "\n\t")
    plain = unicodedata.normalize("NFKC", visible.replace("\u3164", "")).translate(_FAKES)
    plain = "".join(c for c in plain if unicodedata.category(c) != "Mn")
    return plain.translate(_FAKES).casefold()


def invisible(text: str) -> list[str]:
    """Characters that cannot be seen and change what can: controls, bidirectional ones, text in tag characters."""
    bidirectional = ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI")
    return [
        character
        for character in text
        if (unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t")
        or unicodedata.bidirectional(character) in bidirectional
        or character in "\u200e\u200f\u061c\u2028\u2029"
        or "\U000e0000" <= character <= "\U000e007f"
        or "\u206a" <= character <= "\u206f"
    ]


def around(shown: list[Shown]) -> list[tuple[str, object, str]]:
    """What stands around what was planted. What a search finds is ranked by what it says, so its order is left out."""
    found = []
    for role, structure, text, said in shown:
        text = masked(text, halves=bool(said))
        text = _ORDERED.sub(lambda m: f"<{m[1]}>\n" + "\n".join(sorted(m[2].splitlines())) + f"\n</{m[1]}>", text)
        if role == "recalled":
            text = "\n".join(sorted(text.splitlines()))
        text = re.sub(r"""["'](\[planted \d+\])["']""", r"'\1'", text)  # Python's quotes depend on what they hold
        found.append((role, structure, re.sub(r"[\d,]+ tokens", "N tokens", text)))
    return sorted(found, key=str) if shown and shown[0].role in ("document", "node") else found


def is_plain(attack: str) -> bool:
    """Whether nothing of it need be changed: it is one line of what everybody writes."""
    return attack.isascii() and attack.isprintable() and "memory:" not in attack and "<" not in attack


def problems(face: str, shown: Shown, attack: str) -> Iterator[str]:
    """What is wrong with a text that holds planted text as memory."""
    role, _, text, said = shown
    tag = _LLAMA_TAG if face.startswith("Memory, ") else _TAG
    for place, planted in planted_in(text):
        if place in said:
            continue
        if tag.search(seen_by_a_reader(planted)):
            yield f"place {place}: a delimiter in {planted!r}"
        if place == RESULT and role == "tool":
            continue  # for the rest it is what the tool said, in a message of its own
        if unseen := invisible(planted):
            yield f"place {place}: {unseen} in {planted!r}"
        as_it_was = planted, planted.replace("{ ", "{")  # where an engine would put something in a variable's place
        if is_plain(attack) and place not in QUOTED and not any(attack in text for text in as_it_was):
            yield f"place {place}: {attack!r} became {planted!r}"
        margin = [line for line in planted.splitlines()[1:] if not line.startswith("  ")]
        if len(margin) != (place == TWO_MESSAGES):  # of which the second begins a line
            yield f"place {place}: a line at the margin in {planted!r}"


@pytest.mark.parametrize("name", ATTACKS)
def test_p18_the_structure_of_a_prompt_is_unchanged(
    name: str, memory: MemoryManager, harmless: dict[str, list[Shown]]
) -> None:
    first, second = ATTACKS[name]
    for face, shown in shown_by_every_face(memory, Plant(first, second)).items():
        assert around(shown) == around(harmless[face]), face
        assert [problem for part in shown for problem in problems(face, part, first)] == [], face


@pytest.mark.parametrize("name", ATTACKS)
def test_p10_a_block_is_taken_out_as_a_whole_and_nothing_else(name: str, memory: MemoryManager) -> None:
    """What comes back to memory, because somebody stores what a model was given, leaves nothing of memory in it."""
    plant, ann = Plant(*ATTACKS[name]), user_of(memory, f"ann {next(_users)}")
    plant.remember(ann)
    assert strip_injected(plant.say(ann, "combined").get_context(QUESTION, max_tokens=MANY).combined) == ""
    prompt = memory_prompt(ann, recall_tokens=MANY).invoke({"input": QUESTION}).to_messages()
    assert "<memory:facts>" in prompt[0].text and "<memory:recalled>" in prompt[1].text
    assert strip_injected(prompt[0].text) == f"You are a helpful assistant.\n\n{MEMORY_NOTE}"
    assert strip_injected(prompt[1].text) == QUESTION


@pytest.mark.parametrize("name", ATTACKS)
def test_p32_facts_are_read_from_a_prompt_as_they_were_set(name: str, memory: MemoryManager) -> None:
    ann = user_of(memory, f"ann {next(_users)}")
    Plant(*ATTACKS[name]).remember(ann)
    assert json.loads(ann.features.to_prompt()) == ann.features.all()


ASKED = ("memory_prompt", "MemoryMiddleware, user", "ManagedChatMemory", "SimpleChatEngine", "ReActAgent")


def asked(memory: MemoryManager, text: str) -> dict[str, list[tuple[str, object, str]]]:
    """What a model is given where a user says a text, and nobody planted anything."""
    ann, quiet = user_of(memory, f"ann {next(_users)}"), Plant(*HARMLESS)
    quiet.remember(ann)
    return {face: around(FACES[face](ann, quiet, f"begin99z {QUESTION} {text} end99z")) for face in ASKED}


@pytest.fixture(scope="module")
def plainly_asked(memory: MemoryManager) -> dict[str, list[tuple[str, object, str]]]:
    return asked(memory, "Please.")


@pytest.mark.parametrize("name", ATTACKS)
def test_p18_what_a_user_says_now_changes_no_other_message(
    name: str, memory: MemoryManager, plainly_asked: dict[str, list[tuple[str, object, str]]]
) -> None:
    """His own message is his, whatever he writes in it; what is recalled for it stands in a block of its own there."""
    assert asked(memory, ATTACKS[name][0]) == plainly_asked


# The command line


COMMANDS = [
    ["facts", "list"], ["facts", "list", "--json"], ["facts", "history"], ["facts", "history", "--json"],
    ["facts", "history", "\x1b[2Junknown"], ["search", QUESTION, "--limit", "1000"],
    ["search", QUESTION, "--limit", "1000", "--json"], ["context", QUESTION, "--max-tokens", str(MANY)],
    ["context", QUESTION, "--max-tokens", "500"], ["context", QUESTION, "--max-tokens", str(MANY), "--json"],
    ["manage", "--yes"], ["manage", "--undo"], ["stats"], ["search", QUESTION, "--scope", "user:\x9b31m\u202e"],
    ["facts", "list", "--scope", "user:\x9b31m\u202e"], ["facts", "delete", "unknown", "--scope", "user:\x9b31m\u202e"],
]  # fmt: skip


@pytest.fixture(scope="module")
def full_of_attacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with every attack in it: as fact, message, file and name."""
    directory = tmp_path_factory.mktemp("cli") / "memory"
    with MemoryManager("user:me/session:s\x1b[31m\u202e", data_dir=directory, clock=Clock()) as memory:
        for number, (first, second) in enumerate(ATTACKS.values()):
            plant = Plant(first, second)
            memory.set_fact(as_unicode(f"{number} {first}"), [second, {second: number}])
            memory.set_fact(f"text {number}", f"{first} x")
            memory.store_file_summary(f"{number} {first}", f"harbour {number} {second}")
            memory.add_messages(
                [
                    Message("user", f"{plant.text(number)} I like {first}", name=f"{first} {number}"),
                    Message("assistant", f"harbour {number} {second}"),
                ]
            )
        memory.add_turn("My name is \u202eBob. I live in Lisbon.", "Noted.")
    return directory


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_nothing_stored_steers_the_terminal(
    command: list[str], full_of_attacks: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No escape sequence, no character that reorders or hides others; and JSON says what is stored, nonetheless."""
    from memory_integrations import cli

    monkeypatch.setenv("MEMORY_INTEGRATIONS_DATA_DIR", str(full_of_attacks))
    monkeypatch.setenv("COLUMNS", "200")
    code = cli.main([*command, *([] if "--scope" in command else ["--scope", "user:me"])])
    printed = capfd.readouterr()
    assert invisible(printed.out) == invisible(printed.err) == []
    assert code == any("unknown" in word for word in command), printed.err
    if command[-1] != "--json":
        return
    told = json.loads(printed.out)
    with MemoryManager("user:me", data_dir=full_of_attacks) as memory:
        if command[:2] == ["facts", "list"]:
            assert told == memory.features.all()
        if command[0] == "search":
            assert {hit["id"] for hit in told} == {hit.id for hit in memory.search_long_term(QUESTION, 1000)}


def test_nothing_said_in_a_chat_steers_the_terminal(
    full_of_attacks: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from memory_integrations import cli

    monkeypatch.setenv("MEMORY_INTEGRATIONS_DATA_DIR", str(full_of_attacks))
    typed = [" ".join(as_unicode(first).split()) for first, _ in ATTACKS.values()]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([*typed, "/facts", "/context"])))
    assert cli.main(["chat", "--scope", "user:me/session:chat"]) == 0
    printed = capfd.readouterr()
    assert invisible(printed.out) == invisible(printed.err) == []
