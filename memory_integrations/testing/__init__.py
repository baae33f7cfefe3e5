"""Stand-ins for tests and offline examples: models that are none, and answer by plain rules.

What they can say comes from what they are given, so that a memory visibly matters: without one they do not know.
``StandInLLM`` needs LlamaIndex, the others langchain-core; each is loaded at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory_integrations.lazily import loading

if TYPE_CHECKING:
    from memory_integrations.testing.answers import StandInError
    from memory_integrations.testing.chat_model import StandInChatModel
    from memory_integrations.testing.llm import StandInLLM

__all__ = ["StandInChatModel", "StandInError", "StandInLLM"]

_MODULES = {
    "StandInChatModel": "memory_integrations.testing.chat_model",
    "StandInError": "memory_integrations.testing.answers",
    "StandInLLM": "memory_integrations.testing.llm",
}
__getattr__ = loading(__name__, _MODULES, {"llama_index": "llama-index"})


def __dir__() -> list[str]:
    return sorted(__all__)
