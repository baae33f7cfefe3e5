"""How much of a question's evidence a search brings back, on conversations in the LoCoMo format.

    python tests/benchmarks/locomo.py FILE [--limit 100] [--budgets 500 1000]

One user scope a conversation. For each question ``search(question, limit)``; hits are taken in order while the sum
of the cl100k_base tokens of their texts stays within the budget; recall is the share of the question's evidence ids
among the taken hits' ``message_ids``, averaged over all questions.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from memory_integrations import MemoryManager, Message
from memory_integrations.long_term import MemoryHit
from memory_integrations.tokens import TokenCounter

count = TokenCounter("cl100k_base").count


def messages_of(conversation: dict[str, Any]) -> list[Message]:
    return [
        Message(
            role="user",
            content=m["content"],
            name=m["name"],
            id=m["id"],
            session_id=m["session"],
            created_at=datetime.fromisoformat(m["timestamp"]).replace(tzinfo=UTC),
        )
        for m in conversation["messages"]
    ]


def recall(hits: Sequence[MemoryHit], evidence: set[str], budget: int) -> float:
    found: set[str] = set()
    left = budget
    for hit in hits:
        left -= count(hit.text)
        if left < 0:
            break
        found.update(hit.message_ids)
    return len(found & evidence) / len(evidence)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--budgets", type=int, nargs="+", default=[500, 1000])
    options = parser.parse_args()
    conversations = json.loads(options.file.read_text(encoding="utf-8"))
    by_conversation: dict[str, list[list[float]]] = defaultdict(list)
    by_category: dict[str, list[list[float]]] = defaultdict(list)
    seconds = []
    with tempfile.TemporaryDirectory() as directory, MemoryManager(data_dir=directory) as manager:
        stored = 0
        started = time.perf_counter()
        for conversation in conversations:
            memory = manager.for_scope(f"user:{conversation['id']}").long_term
            stored += len(memory.store_messages(messages_of(conversation)))
        print(f"{stored} messages stored in {time.perf_counter() - started:.2f} s")
        for conversation in conversations:
            memory = manager.for_scope(f"user:{conversation['id']}").long_term
            for question in conversation["questions"]:
                started = time.perf_counter()
                hits = memory.search(question["question"], limit=options.limit)
                seconds.append(time.perf_counter() - started)
                recalls = [recall(hits, set(question["evidence"]), budget) for budget in options.budgets]
                by_conversation[conversation["id"]].append(recalls)
                by_category[question["category"]].append(recalls)
    print(
        f"\n{'evidence recall inside':<24}"
        + "".join(f"{budget:>8} tokens" for budget in options.budgets)
        + "   questions"
    )
    for name, rows in [*by_category.items(), *by_conversation.items()]:
        print(
            f"{name:<24}" + "".join(f"{mean(column):>15.1%}" for column in zip(*rows, strict=True)) + f"{len(rows):>12}"
        )
    every = [recalls for rows in by_conversation.values() for recalls in rows]
    print(
        f"{'all':<24}" + "".join(f"{mean(column):>15.1%}" for column in zip(*every, strict=True)) + f"{len(every):>12}"
    )
    if len(by_conversation) > 1:
        means = [[mean(column) for column in zip(*rows, strict=True)] for rows in by_conversation.values()]
        print(f"{'spread (sd)':<24}" + "".join(f"{stdev(column):>15.1%}" for column in zip(*means, strict=True)))
    print(f"search: p50 {median(seconds) * 1000:.2f} ms over {len(seconds)} questions")


if __name__ == "__main__":
    main()
