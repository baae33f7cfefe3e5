"""Facts and recalled memories in prompts: as variables that are always bound, never pasted into a template."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage, convert_to_messages
from langchain_core.prompts import ChatPromptTemplate, HumanMessagePromptTemplate, MessagesPlaceholder
from langchain_core.prompts.message import BaseMessagePromptTemplate

from memory_integrations.context import defused
from memory_integrations.delimiters import MEMORY_NOTE, delimit, strip_injected
from memory_integrations.langchain import identity
from memory_integrations.langchain.messages import extended, from_langchain, to_langchain
from memory_integrations.layout import unsaid
from memory_integrations.manager import MemoryManager
from memory_integrations.tokens import check_budget

FACTS = "memory_facts"
RECALL = "memory_recall"
_RECALLED = 50  # hits that are asked for; the budget decides how many are shown


class MemoryPromptTemplate(ChatPromptTemplate):
    """A chat prompt whose ``{memory_facts}`` and ``{memory_recall}`` are filled anew at each call.

    ``memory_facts`` is JSON, ``{}`` when nothing is known. ``memory_recall`` is a block of memories that were found for
    the input, which begins after a blank line, and empty when nothing was found. Both are those of the user that the
    run names, else of the manager's own scope.

    Args:
        memory: The memory.
        query_key: The variable that memories are recalled for.
        history_key: The variable with the conversation so far, of which nothing is recalled.
        facts_tokens: The budget of the facts; None means no limit.
        recall_tokens: The budget of recalled memories; 0 recalls nothing.
        require_user: Whether a user must be known, so that a run which names none raises.
    """

    memory: MemoryManager
    query_key: str = "input"
    history_key: str = "history"
    facts_tokens: int | None = None
    recall_tokens: int = 500
    require_user: bool = False

    def __init__(self, messages: Sequence[Any], **kwargs: Any) -> None:
        super().__init__(messages, **kwargs)
        # Bound by us, so that nobody has to pass them.
        self.input_variables = [name for name in self.input_variables if name not in (FACTS, RECALL)]

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """False: the open memory in it could not be loaded again."""
        return False

    def format_messages(self, **kwargs: Any) -> list[BaseMessage]:
        """The messages, with what memory holds at this moment."""
        return _defused(super().format_messages(**{**kwargs, **self._remembered(kwargs)}))

    async def aformat_messages(self, **kwargs: Any) -> list[BaseMessage]:
        """Async twin of :meth:`format_messages`."""
        remembered = await asyncio.to_thread(self._remembered, kwargs)
        return _defused(await super().aformat_messages(**{**kwargs, **remembered}))

    def __add__(self, other: Any) -> MemoryPromptTemplate:
        """Put another template behind this one; memory stays bound."""
        return self._with(super().__add__(other))

    def __radd__(self, other: Any) -> MemoryPromptTemplate:
        """Put another template before this one; memory stays bound."""
        if not isinstance(other, ChatPromptTemplate):
            other = ChatPromptTemplate(other if isinstance(other, list | tuple) else [other])
        return self._with(ChatPromptTemplate.__add__(other, self))

    def __getitem__(self, index: Any) -> Any:
        """A message, or for a slice a template of some; memory stays bound."""
        found = super().__getitem__(index)
        return self._with(found) if isinstance(found, ChatPromptTemplate) else found

    def _with(self, template: ChatPromptTemplate) -> MemoryPromptTemplate:
        """Another template, filled from the same memory."""
        return MemoryPromptTemplate(
            template.messages,
            partial_variables=dict(template.partial_variables),
            **{name: getattr(self, name) for name in _SETTINGS},
        )

    def _remembered(self, variables: Mapping[str, Any]) -> dict[str, str]:
        memory = identity.of_run(self.memory, require_user=self.require_user or None)
        return {
            FACTS: memory.features.to_prompt(max_tokens=self.facts_tokens),
            # A partial variable may be the history.
            RECALL: self._recalled(memory, self._merge_partial_and_user_variables(**variables)),
        }

    def _recalled(self, memory: MemoryManager, variables: Mapping[str, Any]) -> str:
        query = strip_injected(_question_in(_as_messages(variables.get(self.query_key))))
        if not self.recall_tokens or not query.strip():
            return ""
        told = [from_langchain(message) for message in _as_messages(variables.get(self.history_key) or [])]
        shown = [message.id for message in told if message.id]
        lines: list[str] = []
        left = self.recall_tokens
        for hit in unsaid(memory.long_term.search(query, _RECALLED, without=shown), told):
            left -= memory.long_term.counter.count(hit.text) + 1
            if left < 0:
                break
            lines.append(hit.text)
        return f"\n\n{delimit('recalled', joined)}" if (joined := "\n".join(lines)) else ""


_SETTINGS = (
    "memory", "query_key", "history_key", "facts_tokens", "recall_tokens", "require_user",
    "metadata", "tags", "output_parser", "name",
)  # fmt: skip


class _Question(BaseMessagePromptTemplate):
    """What is asked, be it text or messages, with what is recalled for it at its end."""

    query_key: str

    @property
    def input_variables(self) -> list[str]:
        """The variables that it is made of."""
        return [self.query_key, RECALL]

    def format_messages(self, **kwargs: Any) -> list[BaseMessage]:
        """The messages."""
        messages, recalled = _as_messages(kwargs[self.query_key]), kwargs[RECALL].lstrip("\n")
        if recalled:
            latest = next((i for i in range(len(messages) - 1, -1, -1) if isinstance(messages[i], HumanMessage)), None)
            if latest is None:
                return [*messages, HumanMessage(recalled)]
            messages[latest] = extended(messages[latest], recalled)
        return messages

    def pretty_repr(self, html: bool = False) -> str:
        """How it reads."""
        return HumanMessagePromptTemplate.from_template(f"{{{self.query_key}}}{{{RECALL}}}").pretty_repr(html)


def memory_prompt(
    memory: MemoryManager,
    template: ChatPromptTemplate | None = None,
    *,
    system: str = "You are a helpful assistant.",
    query_key: str = "input",
    history_key: str = "history",
    facts_tokens: int | None = None,
    recall_tokens: int = 500,
    require_user: bool = False,
) -> ChatPromptTemplate:
    """A chat prompt that memory fills: of ``input`` (text, a message or several) and, where it is given, ``history``.

    Args:
        memory: The memory.
        template: A template of your own with ``{memory_facts}`` and ``{memory_recall}`` wherever you like; None means
            a ready one.
        system: The system prompt of the ready template; braces in it are text.
        query_key: The variable that memories are recalled for.
        history_key: The variable with the conversation so far, of which nothing is recalled.
        facts_tokens: The budget of the facts; None means no limit.
        recall_tokens: The budget of recalled memories; 0 recalls nothing.
        require_user: Whether a user must be known, so that a run which names none raises instead of knowing nothing.

    Raises:
        BudgetError: A budget is negative or not an integer.
        ValueError: The template shows nothing of memory, or has no variable ``query_key`` to recall for.
    """
    if template is not None:
        _check_variables(template, query_key)
    ready = template or ChatPromptTemplate(
        [
            ("system", _escaped(f"{system}\n\n{MEMORY_NOTE}\n\n".lstrip("\n")) + delimit("facts", f"{{{FACTS}}}")),
            MessagesPlaceholder(history_key, optional=True),
            _Question(query_key=query_key),
        ]
    )
    return MemoryPromptTemplate(
        ready.messages,
        partial_variables=dict(ready.partial_variables),
        memory=memory,
        query_key=query_key,
        history_key=history_key,
        facts_tokens=check_budget(facts_tokens),
        recall_tokens=check_budget(recall_tokens),
        require_user=require_user,
        **{name: getattr(ready, name) for name in ("metadata", "tags", "output_parser", "name")},
    )


def _defused(messages: list[BaseMessage]) -> list[BaseMessage]:
    """The messages, of a history with tools, whose results cannot pass for memory."""
    return [to_langchain(defused(from_langchain(m))) if isinstance(m, ToolMessage) else m for m in messages]


def _check_variables(template: ChatPromptTemplate, query_key: str) -> None:
    shown = {FACTS, RECALL}.intersection(template.input_variables)
    if not shown:
        raise ValueError(f"The template has neither {{{FACTS}}} nor {{{RECALL}}}: it would show nothing of memory.")
    known = {*template.input_variables, *template.optional_variables, *template.partial_variables}
    if RECALL in shown and query_key not in known:
        raise ValueError(
            f"The template has no variable {query_key!r} to recall for. It has {sorted(known - {FACTS, RECALL})}: say "
            "which by query_key=."
        )


def _escaped(text: str) -> str:
    """The text as a template that gives just this text."""
    return text.replace("{", "{{").replace("}", "}}")


def _as_messages(value: Any) -> list[BaseMessage]:
    """What is asked or was told, as messages: text is a user's."""
    if isinstance(value, BaseMessage):
        return [value]
    if isinstance(value, list | tuple):
        return convert_to_messages(value)
    if isinstance(value, dict) and "content" in value:
        return convert_to_messages([value])
    return [HumanMessage("" if value is None else str(value))]


def _question_in(messages: Iterable[BaseMessage]) -> str:
    """The text of the user's latest message."""
    said = [message for message in messages if isinstance(message, HumanMessage)]
    return from_langchain(said[-1]).text if said else ""
