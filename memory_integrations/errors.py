"""Every error this package raises on purpose.

    MemoryIntegrationError
    ├── ScopeError (also ValueError)            a scope that is malformed, missing or not allowed
    ├── PolicyError (also ValueError)           a short-term policy whose parts contradict each other
    ├── BudgetError (also ValueError)           a token budget that is negative or not a number
    ├── FactError (also ValueError)             a fact key that is no string, a value that is not JSON
    ├── MessageError (also ValueError)          a message without content, role or usable time
    ├── FilterError (also ValueError)           a condition on memories that nothing could meet
    ├── EmbeddingMismatchError (also ValueError) a collection made with another embedding
    ├── StoreError                              a store on disk or on a server did not do what was asked
    │   ├── StoreLockedError                    another process holds the directory
    │   ├── StoreCorruptedError                 what is on disk cannot be read as what it should be
    │   └── StoreUnavailableError               the store cannot be reached, read or written
    │       ├── HistoryError                    two stores tell different histories of one scope
    │       └── EmbeddingError                  the embedding failed, or does not take a text
    └── ManagementError                         managing short-term memory failed

Every message says what was given, what was expected and what to do.
"""


class MemoryIntegrationError(Exception):
    """The root of every error of this package."""


class ScopeError(MemoryIntegrationError, ValueError):
    """A scope is malformed, missing, or not the one this memory may touch."""


class PolicyError(MemoryIntegrationError, ValueError):
    """A :class:`ShortTermPolicy` whose parts contradict each other."""


class BudgetError(MemoryIntegrationError, ValueError):
    """A token budget that is negative or not an integer."""


class FactError(MemoryIntegrationError, ValueError):
    """A fact whose key is not a non-empty string or whose value is not JSON."""


class MessageError(MemoryIntegrationError, ValueError):
    """A message that cannot be stored: no content, no role, a naive or unreadable time."""


class FilterError(MemoryIntegrationError, ValueError):
    """A condition on memories that is empty or of a type that no memory has."""


class EmbeddingMismatchError(MemoryIntegrationError, ValueError):
    """A collection was written with another embedding than the one it is opened with."""


class StoreError(MemoryIntegrationError):
    """A store did not do what was asked of it; nothing was half done silently."""


class StoreLockedError(StoreError):
    """Another process holds the directory of an embedded store."""


class StoreCorruptedError(StoreError):
    """What a store has on disk cannot be read as what it should be."""


class StoreUnavailableError(StoreError):
    """A store cannot be reached, read or written."""


class HistoryError(StoreUnavailableError):
    """Two stores tell different histories of one scope, so that what one has cannot be written to the other."""


class EmbeddingError(StoreUnavailableError):
    """An embedding failed, or does not take a text; nothing of it was stored."""


class ManagementError(MemoryIntegrationError):
    """Managing short-term memory failed; nothing was changed."""
