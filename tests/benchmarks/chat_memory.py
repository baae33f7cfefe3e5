"""What a LlamaIndex chat memory's ``get`` takes, beside LlamaIndex's own, in one run.

    python tests/benchmarks/chat_memory.py [--messages 1000] [--memories 10000] [--turns 50]

Each memory has the same conversation, ours also so many memories of the user in other sessions, 20 facts, and a search
for each question. LlamaIndex's own give the conversation alone: ``ChatMemoryBuffer`` and ``Memory`` with no blocks. A
turn is put before each ``get``, so that nothing is answered from a cache of ours.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import tempfile
import time
from collections.abc import Callable
from statistics import median, quantiles

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer, Memory

from memory_integrations import MemoryManager, Message, ShortTermPolicy
from memory_integrations.cli.replay import sample_messages
from memory_integrations.llama_index import ManagedChatMemory

WORDS = [word for message in sample_messages() for word in message.text.split()]
WHOLE = 1_000_000
"""Tokens: more than any conversation here has."""


def milliseconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000


def shown(name: str, taken: list[float]) -> str:
    return f"{name:<52} p50 {median(taken):7.2f} ms   p95 {quantiles(taken, n=20)[-1]:7.2f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000)
    parser.add_argument("--memories", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=50)
    options = parser.parse_args()
    choice = random.Random(0)

    def sentence() -> str:
        return " ".join(choice.choices(WORDS, k=20))

    history = [ChatMessage(sentence(), role=("user", "assistant")[i % 2]) for i in range(options.messages)]
    taken: dict[str, list[float]] = {}
    loop = asyncio.new_event_loop()
    with tempfile.TemporaryDirectory() as directory:
        whole = ShortTermPolicy(max_tokens=WHOLE)
        with MemoryManager("user:ann", data_dir=directory, short_term_policy=whole) as memory:
            memory.long_term.store_messages(
                Message(("user", "assistant")[i % 2], sentence(), session_id=f"s{i // 20}")
                for i in range(options.memories)
            )
            for i in range(20):
                memory.set_fact(f"fact {i}", sentence()[:40])
            ours = ManagedChatMemory(memory, "user:ann/session:now")
            ours.set(history)
            small = ManagedChatMemory(memory, "user:ann/session:now", max_tokens=4000)
            buffer = ChatMemoryBuffer.from_defaults(chat_history=list(history), token_limit=WHOLE)
            cut = ChatMemoryBuffer.from_defaults(chat_history=list(history), token_limit=4000)
            memories = [ours, buffer, cut]
            theirs = Memory.from_defaults(token_limit=WHOLE)
            loop.run_until_complete(theirs.aput_messages(list(history)))
            gc.collect()
            gc.freeze()  # else each of them pays now and then for looking through all that the others keep
            for turn in range(options.turns + 3):
                for message in (ChatMessage(f"What of {sentence()}?"), ChatMessage(sentence(), role="assistant")):
                    for one in memories:
                        one.put(message)
                    loop.run_until_complete(theirs.aput(message))
                question = ChatMessage(f"What of {sentence()}?")
                for one in memories:
                    one.put(question)
                loop.run_until_complete(theirs.aput(question))
                times = {
                    "ManagedChatMemory.get, all shown": milliseconds(ours.get),
                    "ManagedChatMemory.get, 4,000 tokens shown": milliseconds(small.get),
                    "  of it a search alone": milliseconds(lambda q=question: memory.search_long_term(q.content, 20)),
                    "ChatMemoryBuffer.get, all shown": milliseconds(buffer.get),
                    "ChatMemoryBuffer.get, 4,000 tokens shown": milliseconds(cut.get),
                    "Memory.aget, all shown": milliseconds(lambda: loop.run_until_complete(theirs.aget())),
                }
                if turn >= 3:
                    for name, value in times.items():
                        taken.setdefault(name, []).append(value)
            print(f"{len(ours.get()):,} messages shown of all, {len(small.get()):,} within 4,000 tokens")
    loop.close()
    for name, values in taken.items():
        print(shown(name, values))
    best = median(taken["ManagedChatMemory.get, all shown"])
    for name in ("ChatMemoryBuffer.get, all shown", "Memory.aget, all shown"):
        print(f"{name} takes {median(taken[name]) / best:.1f} times as long")


if __name__ == "__main__":
    main()
