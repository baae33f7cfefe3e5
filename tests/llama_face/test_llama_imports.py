"""What importing the LlamaIndex face brings with it, and what it says where LlamaIndex is not installed."""

from __future__ import annotations

import json

import pytest
from fresh import fresh_python

from memory_integrations import llama_index, testing


def test_importing_it_imports_no_framework() -> None:
    ran = fresh_python("import json, sys, memory_integrations.llama_index\nprint(json.dumps(list(sys.modules)))")
    loaded = {name.partition(".")[0] for name in json.loads(ran.stdout)}
    assert not loaded & {"langchain", "langchain_core", "langgraph", "llama_index", "qdrant_client", "numpy"}


def test_the_public_names_are_sorted_and_say_what_they_are() -> None:
    pytest.importorskip("llama_index.core")
    names = llama_index.__all__
    assert names == sorted(set(names))
    assert [name for name in names if not getattr(llama_index, name).__doc__] == []
    assert dir(llama_index) == names
    with pytest.raises(AttributeError, match="ManagedChat"):
        _ = llama_index.ManagedChat
    with pytest.raises(AttributeError, match="StandIn"):
        _ = testing.StandIn


@pytest.mark.parametrize("name", ["llama_index.ManagedChatMemory", "testing.StandInLLM"])
def test_without_llamaindex_it_says_what_to_install(name: str) -> None:
    package, _, attribute = name.partition(".")
    ran = fresh_python(
        "import sys\n"
        "sys.modules['llama_index'] = None\n"
        "try:\n"
        f"    from memory_integrations.{package} import {attribute}\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    assert "pip install 'memory-integrations[llama-index]'" in ran.stdout


def test_the_two_faces_do_not_load_each_other() -> None:
    pytest.importorskip("llama_index.core")
    ran = fresh_python(
        "import json, sys\nfrom memory_integrations.llama_index import *\nprint(json.dumps(list(sys.modules)))"
    )
    loaded = json.loads(ran.stdout)
    assert "memory_integrations.llama_index.chat_memory" in loaded
    assert not [name for name in loaded if name.startswith("memory_integrations.langchain")]
    assert not {"langchain", "langgraph"} & {name.partition(".")[0] for name in loaded}
