"""Long-term memory as LlamaIndex's retriever, alone and in what is built on one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_index.core")

from llama_helpers import function_agent, given, run
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.chat_engine import ContextChatEngine
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import MetadataMode
from llama_index.core.tools import RetrieverTool
from strategies import START, Clock

from memory_integrations import MemoryFilter, MemoryManager
from memory_integrations.llama_index import LongTermRetriever, ManagedChatMemory
from memory_integrations.testing import StandInLLM

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecationWarning")  # the framework's own


@pytest.fixture
def memory(tmp_path: Path, clock: Clock) -> Iterator[MemoryManager]:
    with MemoryManager("user:ann/session:s1", data_dir=tmp_path, clock=clock) as memory:
        memory.add_turn("I play the oboe in an orchestra.", "A fine instrument.")
        clock.advance(86_400 * 40)
        memory.add_turn("The orchestra sails to Oslo.", "Bon voyage.", "s2")
        memory.for_scope("user:bob").add_turn("I play the oboe badly.", "Practise.")
        yield memory


def test_it_gives_nodes_with_scores_best_first(memory: MemoryManager) -> None:
    retriever = LongTermRetriever(memory=memory, k=2)
    assert isinstance(retriever, BaseRetriever)
    nodes = retriever.retrieve("Which instrument do I play?")
    assert len(nodes) == 2
    assert nodes[0].text == "1 May 2024 user: I play the oboe in an orchestra."
    scores = [node.score or 0 for node in nodes]
    assert 1 >= scores[0] >= scores[1] > 0
    assert nodes[0].metadata["session_id"] == "s1"
    assert nodes[0].metadata["role"] == "user"
    assert len(nodes[0].metadata["message_ids"]) == 1
    hit = memory.search_long_term("Which instrument do I play?", 1)[0]
    assert (nodes[0].node_id, nodes[0].score) == (hit.id, hit.score)


async def test_p35_it_has_its_async_form(memory: MemoryManager) -> None:
    retriever = LongTermRetriever(memory, 2)
    found = [node.text for node in await retriever.aretrieve("Which instrument do I play?")]
    assert found == [node.text for node in retriever.retrieve("Which instrument do I play?")]


def test_a_model_is_shown_the_text_alone(memory: MemoryManager) -> None:
    node = LongTermRetriever(memory).retrieve("oboe")[0].node
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        assert node.get_content(mode) == "1 May 2024 user: I play the oboe in an orchestra."


def test_p21_p23_nobody_elses_memories_are_found_whatever_the_filter(memory: MemoryManager) -> None:
    def texts(**options: Any) -> str:
        return "\n".join(node.text for node in LongTermRetriever(memory, 10, **options).retrieve("oboe orchestra"))

    assert "badly" not in texts()
    assert "badly" not in texts(filter=MemoryFilter(role="user"))
    assert texts(filter=MemoryFilter(session_id="s2")).count("orchestra") == 1
    assert "oboe" not in texts(since=START + timedelta(days=1))
    assert "sails" not in texts(until=START + timedelta(days=1))
    assert texts(score_threshold=1) in ("", texts().split("\n")[0])
    assert "badly" in texts(scope="user:bob")


def test_what_is_wrong_is_said_at_once(memory: MemoryManager) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        LongTermRetriever(memory, 0)
    with pytest.raises(TypeError, match="MemoryManager"):
        LongTermRetriever("memory")  # type: ignore[arg-type]


def test_a_query_engine_answers_from_it(memory: MemoryManager) -> None:
    llm = StandInLLM()
    engine = RetrieverQueryEngine.from_args(
        LongTermRetriever(memory), llm=llm, node_postprocessors=[SimilarityPostprocessor(similarity_cutoff=0.1)]
    )
    response = engine.query("Which instrument do I play?")
    assert "I play the oboe in an orchestra." in given(llm.seen[-1])
    assert str(response) == 'You said: "I play the oboe in an orchestra." (1 May 2024)'
    assert response.source_nodes


async def test_an_agent_searches_by_it(memory: MemoryManager) -> None:
    tool = RetrieverTool.from_defaults(LongTermRetriever(memory), name="recollect", description="What was said.")
    llm = StandInLLM()
    chat_memory = ManagedChatMemory(memory, "user:ann/session:s3", recall=0)
    answer = await run(function_agent(llm, [tool]), "Please recollect the oboe.", chat_memory)
    assert "I play the oboe in an orchestra." in answer


def test_a_context_engine_retrieves_from_it(memory: MemoryManager) -> None:
    llm = StandInLLM()
    chat_memory = ManagedChatMemory(memory, "user:ann/session:s3", recall=0)
    engine = ContextChatEngine.from_defaults(LongTermRetriever(memory), llm=llm, memory=chat_memory)
    engine.chat("Which instrument do I play?")
    assert given(llm.seen[-1]).count("I play the oboe in an orchestra.") == 1
