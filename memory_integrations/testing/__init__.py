"""Stand-ins for tests and offline examples: models that are none, and answer by plain rules.

What they can say comes from what they are given, so that a memory visibly matters: without one they do not know.
``StandInLLM`` needs LlamaIndex, the others langchain-core; each is loaded at its first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memory_integrations.testing.answers import StandInError
    from memory_integrations.testing.chat_model import StandInChatModel
    from memory_integrations.testing.llm import StandInLLM

__all__ = ["StandInChatModel", "StandInError", "StandInLLM"]

_MODULES = {"StandInChatModel": "chat_model", "StandInError": "answers", "StandInLLM": "llm"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
