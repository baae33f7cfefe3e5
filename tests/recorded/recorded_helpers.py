"""What the recorded tests have in common."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from vcr.cassette import Cassette

from memory_integrations import ManagementReceipt, MemoryManager, ShortTermPolicy

ALWAYS = ShortTermPolicy(manage_above_tokens=0, min_entries=2)

Client = Callable[..., Any]
OpenManager = Callable[..., MemoryManager]


def receipt_of(memory: MemoryManager) -> ManagementReceipt:
    """Manages, and gives the receipt."""
    receipt = memory.manage_short_term()
    assert isinstance(receipt, ManagementReceipt)
    return receipt


def state(memory: MemoryManager) -> tuple[Any, dict[str, Any]]:
    """What managing may change."""
    return memory.short_term.entries, memory.features.all()


def asked(cassette: Cassette) -> list[dict[str, Any]]:
    """What was asked, as JSON."""
    return [json.loads(request.body) for request in cassette.requests]


def run_of(user: str, thread: str) -> dict[str, Any]:
    """A run's config."""
    return {"configurable": {"user_id": user, "thread_id": thread}}
