"""Whatever text is stored, the prompt keeps its structure: P18. Attacks by the hundred, in every place, by every face.

Each attack is planted wherever text comes to memory, and beside it, for another user, a harmless word. Then every face
must give both the same messages, in the same roles, with the same calls, and the same text around what was planted; and
what was planted must be data: in its block no end of a block, no line at the margin, nothing that cannot be seen.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator

import pytest

pytest.importorskip("langchain")
pytest.importorskip("llama_index.core")

from injection_faces import FACES, Shown
from injection_places import ATTACKS, HARMLESS, QUESTION, RESULT, TWO_MESSAGES, Plant, masked, planted_in, user_of
from strategies import Clock

from memory_integrations import MemoryManager, ShortTermPolicy

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecationWarning")  # LlamaIndex's own

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


def problems(face: str, shown: Shown) -> Iterator[str]:
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
        margin = [line for line in planted.splitlines()[1:] if not line.startswith("  ")]
        if len(margin) != (place == TWO_MESSAGES):  # of which the second begins a line
            yield f"place {place}: a line at the margin in {planted!r}"


@pytest.mark.parametrize("name", ATTACKS)
def test_p18_the_structure_of_a_prompt_is_unchanged(
    name: str, memory: MemoryManager, harmless: dict[str, list[Shown]]
) -> None:
    for face, shown in shown_by_every_face(memory, Plant(*ATTACKS[name])).items():
        assert around(shown) == around(harmless[face]), face
        assert [problem for part in shown for problem in problems(face, part)] == [], face
