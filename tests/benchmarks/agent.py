"""What memory costs an agent: a model call with and without the middleware, beside a search alone, in one run.

    python tests/benchmarks/agent.py [--messages 10000] [--turns 100]

The model is a stand-in that answers at once, so that what is left is the framework's time and ours. Both agents have a
thread of their own in the same kind of checkpointer, and their turns alternate.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from statistics import median, quantiles

from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from memory_integrations import MemoryManager, Message
from memory_integrations.cli.replay import sample_messages
from memory_integrations.langchain import MemoryMiddleware

WORDS = [word for message in sample_messages() for word in message.text.split()]


class Endless:
    """Answers without end."""

    def __iter__(self) -> Endless:
        return self

    def __next__(self) -> AIMessage:
        return AIMessage("Noted.")


def milliseconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000


def shown(name: str, taken: list[float]) -> str:
    return f"{name:<34} p50 {median(taken):6.2f} ms   p95 {quantiles(taken, n=20)[-1]:6.2f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=100)
    options = parser.parse_args()
    choice = random.Random(0)

    def sentence() -> str:
        return " ".join(choice.choices(WORDS, k=20))

    with tempfile.TemporaryDirectory() as directory, MemoryManager(data_dir=directory) as memory:
        ann = memory.for_scope("user:ann")
        ann.long_term.store_messages(
            Message(("user", "assistant")[i % 2], sentence(), session_id=f"s{i // 20}") for i in range(options.messages)
        )
        for i in range(20):
            ann.set_fact(f"fact {i}", sentence()[:40])
        model = GenericFakeChatModel(messages=iter(Endless()))
        bare = create_agent(model, checkpointer=InMemorySaver())
        remembering = create_agent(model, middleware=[MemoryMiddleware(memory)], checkpointer=InMemorySaver())
        taken: dict[str, list[float]] = {"bare agent": [], "with memory": [], "a search alone": []}
        for turn in range(options.turns + 5):
            said = {"messages": [HumanMessage(f"What of {sentence()}?")]}
            config = {"configurable": {"user_id": "ann", "thread_id": "t"}}
            times = {
                "bare agent": milliseconds(lambda said=said, config=config: bare.invoke(said, config)),
                "with memory": milliseconds(lambda said=said, config=config: remembering.invoke(said, config)),
                "a search alone": milliseconds(lambda said=said: ann.search_long_term(said["messages"][0].text, 20)),
            }
            if turn >= 5:
                for name, value in times.items():
                    taken[name].append(value)
    for name, values in taken.items():
        print(shown(name, values))
    overhead = median(taken["with memory"]) - median(taken["bare agent"])
    print(f"overhead of memory for a turn of one model call: {overhead:.2f} ms at {options.messages:,} stored messages")


if __name__ == "__main__":
    main()
