"""What a user of the core writes, for the type checker: every public name, used as documented. Not run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import assert_type

from memory_integrations import (
    ArchiveReceipt,
    BudgetError,
    Compress,
    Context,
    Delete,
    Dropped,
    EmbeddingError,
    EmbeddingMismatchError,
    Entry,
    EraseReceipt,
    Fact,
    FactError,
    FactVersion,
    FeatureMemory,
    FilterError,
    Finding,
    Forget,
    HistoryError,
    Keep,
    LongTermMemory,
    ManagementError,
    ManagementPlan,
    ManagementReceipt,
    ManagementRequest,
    MemoryFilter,
    MemoryHit,
    MemoryIntegrationError,
    MemoryManager,
    MemoryScope,
    Message,
    MessageError,
    MigrationReceipt,
    PolicyError,
    Promote,
    QdrantServer,
    ScopeError,
    ShortTermMemory,
    ShortTermPolicy,
    StoreCorruptedError,
    StoreError,
    StoreLockedError,
    StoreUnavailableError,
    TokenCounter,
    ToolCall,
    View,
)


def conversation() -> None:
    policy = ShortTermPolicy(max_tokens=2000, max_age=timedelta(days=1), manage_every_n_turns=10)
    with MemoryManager("user:123", data_dir="data", short_term_policy=policy, model="gpt-5") as memory:
        assert_type(memory.add_turn("Hello", "Hello"), tuple[str, str])
        call = ToolCall("1", "look", {"at": "x"})
        ids = memory.follow([Message("assistant", "", tool_calls=(call,)), Message("tool", "y", tool_call_id="1")])
        assert_type(ids, list[str])
        context = memory.get_context("What?", max_tokens=1000)
        assert_type(context, Context)
        assert_type(context.messages, tuple[Message, ...])
        dropped: list[Dropped] = context.dropped
        print(context.combined, context.token_usage["total"], [(d.kind, d.id, d.reason) for d in dropped])
        assert_type(memory.short_term, ShortTermMemory)
        view: View = memory.short_term.get_context(500)
        print(view.text, view[0].content, len(view[1:]))
        entries: list[Entry] = memory.short_term.entries
        print(entries[0].tokens, TokenCounter("gpt-4o").count("text"))


def facts(memory: MemoryManager) -> None:
    features: FeatureMemory = memory.for_scope(MemoryScope(user_id="1", session_id="2")).features
    number = features.set("language", ["Python", 3, {"deep": None}], source="user", confidence=0.9)
    assert_type(number, int)
    fact = features.get_with_history("language")
    assert_type(fact, Fact | None)
    if fact is not None:
        versions: list[FactVersion] = fact.history
        print(versions[-1].since, features.undo(number), features.as_of(datetime.now(UTC)))


def search(memory: MemoryManager) -> list[str]:
    long_term: LongTermMemory = memory.long_term
    only = MemoryFilter(session_id=["a", "b"], metadata={"topic": "tea"})
    hits: list[MemoryHit] = long_term.search("tea", 5, since=datetime.now(UTC), where=only, explain=True)
    return [hit.text for hit in hits if hit.score > 0.2]


def manage(memory: MemoryManager) -> EraseReceipt:
    plan = memory.manage_short_term(dry_run=True)
    if isinstance(plan, ManagementPlan):
        receipt: ManagementReceipt = memory.apply(plan)
        for decision in receipt.decisions:
            match decision:
                case Keep(entry_id) | Delete(entry_id):
                    print(entry_id)
                case Compress(entry_id, content):
                    print(entry_id, content)
                case Promote(entry_id, key, value):
                    print(entry_id, key, value)
                case Forget(entry_id, key):
                    print(entry_id, key)
        memory.undo(receipt)
    return memory.erase()


def stores(memory: MemoryManager) -> list[Finding]:
    server = QdrantServer("https://cluster:6333", prefer_grpc=True, retries=2, replication_factor=2)
    production = MemoryManager(qdrant=server, journal_url="postgresql://user@host/database")
    moved: MigrationReceipt = memory.migrate_to(production, lambda what, done, whole: print(what, done, whole))
    print(moved.points, moved.events_sha256)
    backup: ArchiveReceipt = memory.export("all.jsonl", all_scopes=True, vectors=True)
    print(memory.import_archive("all.jsonl") == backup, memory.erase_fact("language"))
    return [finding for finding in production.examine() if finding.repair is None or finding.repair()]


class Nothing:
    """A manager of one's own."""

    def invoke(self, input: ManagementRequest) -> ManagementPlan:
        return ManagementPlan(source="mine", before=input.entries, after=input.entries)

    async def ainvoke(self, input: ManagementRequest) -> ManagementPlan:
        return self.invoke(input)


def background(memory: MemoryManager) -> Entry:
    memory.manager = Nothing()
    memory.manage_in_background().result()
    memory.flush()
    return memory.expand("m1")


async def asynchronous(memory: MemoryManager) -> Context:
    await memory.aadd_turn("Hello", "Hello")
    await memory.aset_fact("a", 1)
    await memory.aflush()
    return await memory.aget_context_of([Message("user", "Hello")], recall=3)


def errors(memory: MemoryManager) -> str:
    try:
        memory.get_context(max_tokens=-1)
    except (BudgetError, FactError, FilterError, MessageError, PolicyError, ScopeError) as error:
        return f"an argument: {error}"
    except EmbeddingError as error:
        return f"the embedding: {error}"
    except HistoryError as error:
        return f"another history: {error}"
    except (StoreLockedError, StoreCorruptedError, StoreUnavailableError, EmbeddingMismatchError) as error:
        return f"a store: {error}"
    except (StoreError, ManagementError, MemoryIntegrationError) as error:
        return str(error)
    return ""
