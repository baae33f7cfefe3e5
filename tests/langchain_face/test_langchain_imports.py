"""What the LangChain face brings with it, and what it keeps to one place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fresh import fresh_python

from memory_integrations import langchain

FACE = Path(langchain.__file__).parent
DEPRECATED = ("BaseChatMessageHistory", "RunnableWithMessageHistory")


def test_importing_the_face_loads_no_framework() -> None:
    code = "import json, sys, memory_integrations.langchain; print(json.dumps(sorted(sys.modules)))"
    loaded = {name.partition(".")[0] for name in json.loads(fresh_python(code).stdout)}
    assert not loaded & {"langchain", "langchain_core", "langgraph", "llama_index", "qdrant_client", "numpy"}


def test_the_public_names_are_sorted_and_say_what_they_are() -> None:
    pytest.importorskip("langchain")
    names = langchain.__all__
    assert names == sorted(set(names))
    assert [name for name in names if not getattr(langchain, name).__doc__] == []
    assert dir(langchain) == names
    with pytest.raises(AttributeError, match="MemoryMiddlewear"):
        _ = langchain.MemoryMiddlewear


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("MemoryMiddleware", "langchain"),
        ("memory_tools", "langchain"),
        ("MemoryStore", "langgraph"),
        ("LongTermRetriever", None),
        ("ShortTermChatMessageHistory", None),
        ("memory_prompt", None),
    ],
)
def test_what_the_extra_is_needed_for_says_so(name: str, needs: str | None) -> None:
    """As in an environment where only langchain-core is installed."""
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('langchain', 'langgraph'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from memory_integrations import langchain\n"
        "try:\n"
        f"    print(getattr(langchain, {name!r}).__name__)\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    told = fresh_python(code).stdout.strip()
    assert told == name if needs is None else f"{name} needs {needs}" in told and "[langchain]" in told


def test_what_langchain_deprecated_is_used_in_one_file() -> None:
    users = [p.name for p in FACE.glob("*.py") if any(f"import {name}" in p.read_text("utf-8") for name in DEPRECATED)]
    assert users == ["chat_history.py"]
