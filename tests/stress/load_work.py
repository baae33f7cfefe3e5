"""What :mod:`test_load` runs in other processes."""

from __future__ import annotations

from memory_integrations import MemoryManager


def set_facts(data: str, name: str, count: int) -> None:
    """Set facts in a user's scope, one after the other."""
    with MemoryManager("user:ann", data_dir=data) as memory:
        for number in range(count):
            memory.set_fact(f"{name} {number}", number)
