"""The manager as a Runnable: from short-term memory and the known facts to a plan, by a language model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any, Literal

from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough
from pydantic import BaseModel, ConfigDict, Field

from memory_integrations.decisions import Delete, Keep, Skipped
from memory_integrations.delimiters import as_data
from memory_integrations.llms import answer_of, as_runnable, structured, unreadable_errors, usage_of
from memory_integrations.manager_prompts import FORMAT, HUMAN, STRUCTURED, SYSTEM
from memory_integrations.messages import transcript_line
from memory_integrations.plans import ManagementPlan, ManagementRequest, planned
from memory_integrations.policies import Entry, ShortTermPolicy, evictable
from memory_integrations.replies import (
    Proposed,
    Reply,
    UnreadableReplyError,
    decide_entries,
    extract_facts,
    read_reply,
)
from memory_integrations.rules import duplicates
from memory_integrations.tokens import TokenCounter

NOSTREAM = "nostream"
"""The tag by which LangGraph keeps a model's tokens out of the user's stream."""


def _without_defaults(schema: dict[str, Any]) -> None:
    """Some hosts refuse a strict schema that has defaults; there every field is required anyway."""
    for field in schema.get("properties", {}).values():
        field.pop("default", None)


class _Described(BaseModel):
    model_config = ConfigDict(json_schema_extra=_without_defaults)


class EntryDecision(_Described):
    """What becomes of an entry."""

    id: str = Field(description="The entry's name, such as e3.")
    action: Literal["KEEP", "DELETE", "COMPRESS"]
    content: str | None = Field(None, description="For COMPRESS: the shorter text.")
    reason: str = ""


class FactChange(_Described):
    """What becomes of a fact about the user."""

    op: Literal["SET", "REMOVE"]
    key: str = Field(description="A short name in snake_case, or that of a known fact.")
    value: str | bool | float | list[str] | None = Field(None, description="For SET: what holds now.")
    source: str = Field(alias="from", description="The entry in which the user says so, such as e3.")
    confidence: float = Field(0.8, description="How sure it is, from 0 to 1.")
    reason: str = ""


class ManagerReply(_Described):
    """What becomes of the entries and facts; those that are not named stay."""

    decisions: list[EntryDecision] = Field(default_factory=list)
    facts: list[FactChange] = Field(default_factory=list)


def build_manager_chain(
    llm: Any,
    policy: ShortTermPolicy | None = None,
    *,
    prompt: ChatPromptTemplate | None = None,
    counter: TokenCounter | None = None,
) -> Runnable[ManagementRequest, ManagementPlan]:
    """The manager as a chain: ``prompt | model | parse | validate``, where ``extract_facts`` is a step of parsing.

    A model with structured output is asked by a schema, any other for JSON in plain text; an answer that cannot be read
    is asked for once more, in plain text. What still cannot be read gives a plan that ``failed``; what the model itself
    raises is raised, so that ``with_retry``, ``with_fallbacks`` and a config's callbacks work as on any Runnable. The
    model's tokens do not reach a LangGraph stream, and the model object is not changed.

    Args:
        llm: A LangChain chat model or Runnable, a LlamaIndex LLM, a name for ``init_chat_model``, or a function.
        policy: The limits; None means those of each request.
        prompt: A prompt with the variables of ``manager_prompts``; None means the one there.
        counter: Counts tokens.

    Raises:
        ManagementError: The model is none of these.
    """
    counter = counter or TokenCounter()
    template = prompt or ChatPromptTemplate(
        [("system", SYSTEM.replace("{", "{{").replace("}", "}}")), ("human", HUMAN)]
    )
    model = as_runnable(llm)
    by_schema = structured(model, ManagerReply)
    plain = _asking(template.partial(format=FORMAT), model)
    first = plain if by_schema is None else _asking(template.partial(format=STRUCTURED), by_schema)
    # Where the second answer cannot be read either, the error is the reply: raised, it would be the first one's.
    again = plain.with_fallbacks(
        [RunnableLambda(itemgetter("error"), name="give_up")],
        exceptions_to_handle=(UnreadableReplyError,),
        exception_key="error",
    )
    ask = first.with_fallbacks(
        [again],
        exceptions_to_handle=(UnreadableReplyError, NotImplementedError, *unreadable_errors()),
        exception_key="unread",
    )

    def prepare(request: ManagementRequest) -> dict[str, Any]:
        if policy is not None:
            request = replace(request, policy=policy)
        aliases = {f"e{i}": entry for i, entry in enumerate(request.entries, 1)}
        settled = duplicates(request.entries, request.policy)
        return {"request": request, "aliases": aliases, "settled": settled, **_shown(request, aliases, settled)}

    def finish(asked: dict[str, Any]) -> ManagementPlan:
        request, reply = asked["request"], asked["reply"]
        if isinstance(reply, UnreadableReplyError):
            return _failed(request, str(reply), Reply((), (), reply.usage, reply.calls))
        proposed, unread = (
            entries + facts for entries, facts in zip(asked["decided"], asked["facts_changed"], strict=True)
        )
        if unread and not proposed:
            return _failed(request, f"no part of the answer is a decision: {unread[0].why}", reply)
        return planned(
            [*asked["settled"], *proposed],
            request,
            counter.count,
            source="llm",
            skipped=_named(unread, asked["aliases"]),
            calls=reply.calls,
            usage=reply.usage,
        )

    def reading(read: Callable[[Reply, Mapping[str, Entry], Sequence[str]], Proposed]) -> Runnable[Any, Proposed]:
        def step(asked: dict[str, Any]) -> Proposed:
            reply = asked["reply"]
            unreadable = isinstance(reply, UnreadableReplyError)
            return ([], []) if unreadable else read(reply, asked["aliases"], list(asked["request"].facts))

        return RunnableLambda(step, name=read.__name__)

    read = RunnablePassthrough.assign(decided=reading(decide_entries), facts_changed=reading(extract_facts))
    chain = (
        RunnableLambda(prepare, name="prepare")
        | RunnablePassthrough.assign(reply=ask)
        | read
        | RunnableLambda(finish, name="validate")
    )
    return chain.with_config(run_name="memory_manager")


def _asking(template: ChatPromptTemplate, model: Runnable[Any, Any]) -> Runnable[dict[str, Any], Reply]:
    """Ask a model and read its answer; an answer that was not readable before counts as a call."""
    asked = template | model.with_config(tags=[NOSTREAM], run_name="memory_manager_model")
    return RunnablePassthrough.assign(output=asked) | RunnableLambda(_read, name="parse")


def _read(asked: Mapping[str, Any]) -> Reply:
    usage, calls = usage_of(asked["output"]), 1
    unread = asked.get("unread")
    if unread is not None and not isinstance(unread, NotImplementedError):
        before = unread.usage if isinstance(unread, UnreadableReplyError) else usage_of(unread)
        usage, calls = {name: usage.get(name, 0) + before.get(name, 0) for name in {**usage, **before}}, 2
    try:
        reply = read_reply(answer_of(asked["output"]))
    except UnreadableReplyError as error:
        raise UnreadableReplyError(str(error), usage, calls) from None
    return replace(reply, usage=usage, calls=calls)


def _shown(request: ManagementRequest, aliases: Mapping[str, Entry], settled: Sequence[Delete]) -> dict[str, str]:
    """What the prompt says of a request; entries that are settled without the model are left out."""
    free = {entry.id for entry in evictable(request.entries, request.policy)}
    gone = {decision.entry_id for decision in settled}
    lines = [
        f"[{alias}]{'' if entry.id in free else ' (protected)'} {entry.tokens} tokens, "
        f"{as_data(transcript_line(entry.message))}"
        for alias, entry in aliases.items()
        if entry.id not in gone
    ]
    facts = [
        as_data(f"{json.dumps(k, ensure_ascii=False)}: {json.dumps(v, ensure_ascii=False)}")
        for k, v in request.facts.items()
    ]
    limit = f"{request.tokens:,} tokens; {request.policy.max_tokens:,} fit"
    return {"entries": "\n".join(lines) or "none", "facts": "\n".join(facts) or "none", "limit": limit}


def _failed(request: ManagementRequest, why: str, reply: Reply) -> ManagementPlan:
    return ManagementPlan(
        source="llm",
        tokens_before=request.tokens,
        failed=why,
        calls=reply.calls,
        scope=request.scope,
        usage=reply.usage,
        before=request.entries,
        after=request.entries,
        facts=request.facts,
    )


def _named(skipped: Sequence[Skipped], aliases: Mapping[str, Entry]) -> list[Skipped]:
    """What was skipped, under the entries' own ids where the model named one that there is."""
    return [
        replace(one, decision=Keep(aliases[one.decision.entry_id].id)) if one.decision.entry_id in aliases else one
        for one in skipped
    ]
