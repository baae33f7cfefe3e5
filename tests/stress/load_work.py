"""What :mod:`test_load` and :mod:`test_full_disk` run in other processes."""

from __future__ import annotations

import os
import resource

import pytest

from memory_integrations import MemoryManager, StoreError, StoreUnavailableError


def set_facts(data: str, name: str, count: int) -> None:
    """Set facts in a user's scope, one after the other."""
    with MemoryManager("user:ann", data_dir=data) as memory:
        for number in range(count):
            memory.set_fact(f"{name} {number}", number)


def work_with_little_memory(data: str) -> None:
    """Let the process have 40 MiB more than it has, and ask for more than that."""
    memory = MemoryManager("user:ann", data_dir=data)
    memory.add_turn("The heron sleeps.", "It does.")
    assert memory.search_long_term("heron")
    with open("/proc/self/statm", encoding="ascii") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (40 << 20),) * 2)
    with pytest.raises((MemoryError, StoreError)):
        memory.set_fact("big", "x" * (200 << 20))
    memory.set_fact("small", 1)
    assert memory.get_fact("small") == 1
    assert "heron" in memory.search_long_term("heron")[0].text
    memory.close()


def write_as_nobody(data: str, own: str) -> None:
    """Become a user who may read the files and write none of them."""
    with MemoryManager("user:ann", data_dir=own) as memory:  # what is imported late this user may not even read
        memory.add_turn("said", "answered")
        memory.search_long_term("said")
        memory.manage_short_term()
        memory.erase()
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    memory = MemoryManager("user:ann/session:s", data_dir=data)
    assert memory.get_fact("city") == "Lisbon"
    for write in (
        lambda: memory.set_fact("city", "Oslo"),
        lambda: memory.features.delete("city"),
        lambda: memory.add_turn("said", "answered"),
        memory.clear_session,
        memory.erase,
        memory.long_term.reembed,
    ):
        with pytest.raises(StoreUnavailableError, match=data):
            write()
    assert memory.get_fact("city") == "Lisbon"
    memory.close()
