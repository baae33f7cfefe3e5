"""Memory for LangChain and LlamaIndex: short-term, long-term and feature memory behind one manager.

Importing this package imports no framework, no engine and no model: each is loaded at its first use.
"""

from memory_integrations.archive import ArchiveReceipt
from memory_integrations.context import Context
from memory_integrations.decisions import Compress, Delete, Forget, Keep, Promote
from memory_integrations.doctor import Finding
from memory_integrations.errors import (
    BudgetError,
    EmbeddingError,
    EmbeddingMismatchError,
    FactError,
    FilterError,
    HistoryError,
    ManagementError,
    MemoryIntegrationError,
    MessageError,
    PolicyError,
    ScopeError,
    StoreCorruptedError,
    StoreError,
    StoreLockedError,
    StoreUnavailableError,
)
from memory_integrations.features import Fact, FactVersion, FeatureMemory
from memory_integrations.filters import MemoryFilter
from memory_integrations.layout import MemoryHit
from memory_integrations.long_term import LongTermMemory
from memory_integrations.manager import EraseReceipt, MemoryManager
from memory_integrations.messages import Message, ToolCall
from memory_integrations.migration import MigrationReceipt
from memory_integrations.plans import ManagementPlan, ManagementReceipt, ManagementRequest
from memory_integrations.policies import Entry, ShortTermPolicy
from memory_integrations.scopes import MemoryScope
from memory_integrations.server import QdrantServer
from memory_integrations.short_term import ShortTermMemory
from memory_integrations.tokens import TokenCounter
from memory_integrations.views import Dropped, View

__version__ = "0.1.0"

__all__ = [
    "ArchiveReceipt",
    "BudgetError",
    "Compress",
    "Context",
    "Delete",
    "Dropped",
    "EmbeddingError",
    "EmbeddingMismatchError",
    "Entry",
    "EraseReceipt",
    "Fact",
    "FactError",
    "FactVersion",
    "FeatureMemory",
    "FilterError",
    "Finding",
    "Forget",
    "HistoryError",
    "Keep",
    "LongTermMemory",
    "ManagementError",
    "ManagementPlan",
    "ManagementReceipt",
    "ManagementRequest",
    "MemoryFilter",
    "MemoryHit",
    "MemoryIntegrationError",
    "MemoryManager",
    "MemoryScope",
    "Message",
    "MessageError",
    "MigrationReceipt",
    "PolicyError",
    "Promote",
    "QdrantServer",
    "ScopeError",
    "ShortTermMemory",
    "ShortTermPolicy",
    "StoreCorruptedError",
    "StoreError",
    "StoreLockedError",
    "StoreUnavailableError",
    "TokenCounter",
    "ToolCall",
    "View",
]
