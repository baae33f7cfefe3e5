"""The conversation of a session under the memory's policy, as LlamaIndex's chat memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock
from llama_index.core.memory.types import BaseMemory
from pydantic import ConfigDict, Field, InstanceOf, TypeAdapter

from memory_integrations.context import Context
from memory_integrations.delimiters import MEMORY_NOTE, delimit, strip_injected
from memory_integrations.errors import MemoryIntegrationError, StoreError
from memory_integrations.llama_index.known import conversation_of
from memory_integrations.llama_index.messages import RememberedMessage, before, from_llama_index, to_llama_index
from memory_integrations.manager import MemoryManager
from memory_integrations.messages import Message
from memory_integrations.policies import ShortTermPolicy
from memory_integrations.scopes import MemoryScope
from memory_integrations.tokens import check_budget

_POLICY: TypeAdapter[ShortTermPolicy] = TypeAdapter(ShortTermPolicy)
# What the context engines' templates would put in the place of such a word.
_VARIABLE = re.compile(r"\{(?=(?:context_str|query_str|context_msg|existing_answer)\})")


class ManagedChatMemory(BaseMemory):
    """The conversation of one session: for every chat engine, and as ``memory=`` of an agent's or a workflow's run.

    What a model is given is the policy's view of the conversation, with the facts and what is recalled for its latest
    user message, under one budget. These stand in that message, before what the user says; for an engine that asks
    before it puts the message (``get(input)``), in a system message. Neither is ever stored.

    Each message is stored once and at once, also where an engine sets the whole history again, and a session that
    another process left goes on: with what users and assistants said. It is light: make one for each request, or keep
    one; every one of a session shows the same conversation. Async twins do their work in a thread.

    Args:
        memory: The memory.
        scope: Whose conversation, such as "user:ann/session:monday"; None means the memory's own scope.
        max_tokens: The budget of the whole, in tokens; None means the policy's.
        recall: How many memories are recalled at most; 0 recalls nothing.
        remember: Whether what is put reaches long-term memory.
        note: What a model is told of the blocks that memory is given in.

    Raises:
        BudgetError: The budget is negative or not an integer.
        ScopeError: The scope cannot be read.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    memory: InstanceOf[MemoryManager] = Field(exclude=True)
    max_tokens: int | None = None
    recall: int = Field(default=10, ge=0)
    remember: bool = True
    note: str = MEMORY_NOTE

    def __init__(self, memory: MemoryManager, scope: str | MemoryScope | None = None, **options: Any) -> None:
        check_budget(options.get("max_tokens"))
        if scope is not None and isinstance(memory, MemoryManager):
            memory = memory.for_scope(scope)
        super().__init__(memory=memory, **options)  # type: ignore[call-arg]

    @classmethod
    def class_name(cls) -> str:
        """The name under which it is serialised."""
        return "ManagedChatMemory"

    @classmethod
    def from_defaults(
        cls,
        chat_history: list[ChatMessage] | None = None,
        llm: Any = None,
        *,
        memory: MemoryManager | None = None,
        scope: str | MemoryScope | None = None,
        token_limit: int | None = None,
        **options: Any,
    ) -> ManagedChatMemory:
        """A chat memory as LlamaIndex makes its own.

        Args:
            chat_history: The conversation so far.
            llm: Of no use here: the memory counts tokens by its own model.
            memory: The memory.
            scope: Whose conversation.
            token_limit: The budget of the whole; ``max_tokens`` by the name that LlamaIndex has for it.
            options: What else the class takes.

        Raises:
            TypeError: There is no memory.
        """
        if memory is None:
            raise TypeError("ManagedChatMemory needs a memory: from_defaults(memory=MemoryManager(...), scope=...).")
        if token_limit is not None:
            options.setdefault("max_tokens", token_limit)
        made = cls(memory, scope, **options)
        if chat_history:
            made.set(chat_history)
        return made

    # Reading

    def get(
        self, input: str | ChatMessage | None = None, initial_token_count: int = 0, **kwargs: Any
    ) -> list[ChatMessage]:
        """What a model should be given, oldest first; the caller's to change.

        Args:
            input: What the user asks, for which memories are recalled; None means the latest user message. Where that
                message is not put yet, its tokens are counted.
            initial_token_count: Tokens of the budget that are spoken for, such as those of a system prompt.
            kwargs: Nothing; what other memories take is passed over.

        Raises:
            StoreError: A store cannot be read.

        Warns:
            BudgetWarning: The latest user message alone is over the budget; it is there all the same.
        """
        memory = self._begun()
        entries = memory.short_term.entries
        asked = next((entry for entry in reversed(entries) if entry.role == "user"), None)
        query = input.content if isinstance(input, ChatMessage) else input
        # An agent that hands over has put its calls and their results by then.
        last = next((e for e in reversed(entries) if e.role != "tool" and not e.message.tool_calls), None)
        is_put = asked is not None and (query is None or (asked is last and asked.content == query))
        spent = initial_token_count if is_put or not query else initial_token_count + self._count(query)
        context = memory.get_context(
            strip_injected(asked.content) if asked is not None and is_put else query,
            max(self._budget(memory) - spent, 0),
            recall=self.recall,
        )
        messages: list[ChatMessage] = list(map(to_llama_index, context.messages))
        told = self._told(context)
        put = next((m for m in reversed(messages) if m.role == MessageRole.USER), None) if is_put else None
        if told and put is not None:  # else it was forgotten meanwhile
            before(put, told)
        elif told:
            _into_system(messages, _VARIABLE.sub("{ ", told))
        return messages

    def get_all(self) -> list[RememberedMessage]:  # type: ignore[override]
        """The whole conversation as far as the policy holds it, each message as it was said; nothing is added."""
        entries = self._begun().short_term.entries
        return [to_llama_index(entry.original or entry.message) for entry in entries]

    # Writing

    def put(self, message: ChatMessage) -> None:
        """Add a message.

        Raises:
            StoreError: It could not be stored. It is in the conversation, and the next call stores it.
        """
        self.put_messages([message])

    def put_messages(self, messages: Sequence[ChatMessage]) -> None:
        """Add messages; see :meth:`put`."""
        memory = self._begun()
        conversation = conversation_of(memory)
        with conversation.lock:
            self._follow(memory, [conversation.new(self._read(message), memory.short_term) for message in messages])

    def set(self, messages: Sequence[ChatMessage]) -> None:
        """Make this the conversation. Messages that were put before are known again, and stored no second time.

        Raises:
            StoreError: Something could not be stored. It is in the conversation, and the next call stores it.
        """
        memory = self._begun()
        conversation = conversation_of(memory)
        with conversation.lock:
            told = conversation.named([self._read(message) for message in messages], memory.short_term)
            failed: StoreError | None = None
            try:
                self._follow(memory, told)
            except StoreError as error:  # what was told is in the conversation all the same
                failed = error
            memory.short_term.arrange([message.id for message in told if message.id])
            if failed is not None:
                raise failed

    def reset(self) -> None:
        """Forget the conversation. What was remembered of it in long-term memory stays: see ``MemoryManager.erase``."""
        conversation = conversation_of(self.memory)
        with conversation.lock:
            conversation.forget(self.memory.short_term)
            self.memory.clear_session()

    # Serialisation

    @property
    def tokenizer_fn(self) -> Callable[[str], Sequence[int]]:
        """Gives a sequence as long as a text has tokens: engines count their system prompt with it."""
        return lambda text: range(self._count(text))

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """The chat memory as JSON: where its memory is, and the conversation as it is now."""
        entries = self._begun().short_term.entries
        return {
            **self.model_dump(**kwargs),
            "class_name": self.class_name(),
            "scope": str(self.memory.scope),
            "memory": {
                **self.memory.options,
                "policy": _POLICY.dump_python(self.memory.short_term.policy, mode="json"),
            },
            "chat_history": [
                to_llama_index(entry.original or entry.message).model_dump(mode="json") for entry in entries
            ],
            "told": [[entry.id, entry.created_at.isoformat()] for entry in entries],
        }

    @classmethod
    def from_dict(
        cls, data: dict[str, Any], *, memory: MemoryManager | None = None, **kwargs: Any
    ) -> ManagedChatMemory:
        """The chat memory of what :meth:`to_dict` gave.

        Its session goes on where it is now. Where this process had nothing of it, the conversation is the one that it
        had, without what was erased, deleted or reset since, and with what was stored of the session since.

        Args:
            data: What :meth:`to_dict` gave.
            memory: The memory; None means the one on the same stores which is open in this process, else a new one.
            kwargs: Nothing.

        Raises:
            MemoryIntegrationError: There is no such memory here, and it had embeddings, a client or a model of its own.
        """
        options = {name: value for name, value in data.items() if name in ("max_tokens", "recall", "remember", "note")}
        where, scope = data["memory"], data["scope"]
        found = memory or MemoryManager.opened(where["data_dir"], stores=where["stores"])
        made = cls(found or _opened(where), scope, **options)
        conversation = conversation_of(made._begun())
        with conversation.lock:
            if not conversation.begun:
                made._restore(data["chat_history"], data["told"])
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_dict, (self.to_dict(),)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> ManagedChatMemory:
        return self.model_copy()

    # Inside

    def _begun(self) -> MemoryManager:
        """The memory, with what another process left of the session."""
        conversation_of(self.memory).resume(self.memory)
        return self.memory

    def _restore(self, history: list[Any], told: list[list[str]]) -> None:
        """Set a history as it was once, as far as it is still there, and what was said after it."""
        resumed, session = self.get_all(), self.memory.scope.session_id
        said = [
            replace(
                from_llama_index(ChatMessage.model_validate(message)),
                id=id_,
                session_id=session,
                created_at=datetime.fromisoformat(at),
            )
            for message, (id_, at) in zip(history, told, strict=True)
        ]
        self.set(list(map(to_llama_index, self.memory.still_there(said))))
        before = {entry.id for entry in self.memory.short_term.entries}
        ids = [message._of.id for message in resumed if message._of is not None]
        latest = max((i for i, id_ in enumerate(ids) if id_ in before), default=-1)
        if later := resumed[latest + 1 :]:
            self.set([*self.get_all(), *later])

    def _follow(self, memory: MemoryManager, messages: list[Message]) -> None:
        memory.follow(messages, remember=self.remember, unanswered=True)

    def _read(self, message: ChatMessage) -> Message:
        """The message without what :meth:`get` put into it, where it comes back."""
        read = from_llama_index(message)
        if isinstance(message, RememberedMessage) and read is message._of:
            return read
        blocks = [block for block in message.blocks if not self._is_injected(block)]
        return read if len(blocks) == len(message.blocks) else from_llama_index(_with(message, blocks))

    def _is_injected(self, block: Any) -> bool:
        if not isinstance(block, TextBlock):
            return False
        left = strip_injected(block.text)
        return left != block.text and left.strip() in ("", self.note.strip())

    def _budget(self, memory: MemoryManager) -> int:
        limit = memory.short_term.policy.max_tokens if self.max_tokens is None else self.max_tokens
        return max(limit - self._count(self.note), 0)

    def _count(self, text: str) -> int:
        return self.memory.short_term.counter.count_line(text)

    def _told(self, context: Context) -> str:
        """What a model is told of the user and of earlier conversations; nothing where nothing is known."""
        facts = delimit("facts", context.features) if context.features != "{}" else ""
        recalled = delimit("recalled", context.long_term)
        return "\n".join(filter(None, (self.note, facts, recalled))) if facts or recalled else ""


def _with(message: ChatMessage, blocks: list[Any]) -> ChatMessage:
    return ChatMessage.model_construct(role=message.role, blocks=blocks, additional_kwargs=message.additional_kwargs)


def _into_system(messages: list[ChatMessage], text: str) -> None:
    """Put a text at the end of the one system message."""
    if messages and messages[0].role == MessageRole.SYSTEM:
        messages[0].blocks = [*messages[0].blocks, TextBlock(text=text)]
    else:
        messages.insert(0, ChatMessage(role=MessageRole.SYSTEM, content=text))


def _opened(where: dict[str, Any]) -> MemoryManager:
    """A memory that is opened anew, by plain options."""
    options = {name: value for name, value in where.items() if name != "stores"}
    if lacking := options.pop("objects"):
        raise MemoryIntegrationError(
            f"The memory in {options['data_dir']} was opened with {', '.join(lacking)} of its own, and none on the "
            "same stores is open here. Open it first, and pass it: ManagedChatMemory.from_dict(data, memory=memory)."
        )
    policy = _POLICY.validate_python(options.pop("policy"))
    return MemoryManager(short_term_policy=policy, **options)
