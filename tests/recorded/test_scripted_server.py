"""The rules by which the scripted server answers; that it speaks the protocol is seen when it is recorded."""

from __future__ import annotations

from typing import Any

import pytest
from scripted_server import managed, objection

STRICT = {"type": "object", "properties": {"default": {"type": "string"}}, "required": ["default"]}


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({**STRICT, "additionalProperties": False}, None),  # a field may have any name
        (STRICT, "nothing else taken"),
        ({**STRICT, "additionalProperties": False, "required": []}, "all must be required"),
        ({"$defs": {"one": {"type": "string", "default": ""}}}, "'default' is not permitted"),
        ({"anyOf": [{"type": "number", "minimum": 0}]}, "'minimum' is not permitted"),
    ],
)
def test_a_strict_schema_is_refused_for_what_strict_hosts_refuse(schema: dict[str, Any], why: str | None) -> None:
    found = objection({"type": "json_schema", "json_schema": {"strict": True, "schema": schema}})
    assert found is None if why is None else found is not None and why in found
    assert objection({"type": "json_schema", "json_schema": {"strict": False, "schema": schema}}) is None


def test_what_the_prompt_protects_is_left_alone_and_only_users_state_facts() -> None:
    prompt = (
        'Known facts:\n"employer": "a bakery"\n\n'
        "Entries, oldest first; those marked:\n"
        "[e1] 3 tokens, user: Hello!\n"
        "[e2] (protected) 3 tokens, user: Hello!\n"
        "[e3] 90 tokens, assistant: One thing.\n  Another thing.\n"
        "[e4] 5 tokens, assistant: I live in Oslo.\n"
        "[e5] 9 tokens, user: I no longer work there. I live in Lisbon.\n"
    )
    decided = managed(prompt)
    assert [(d["id"], d["action"], d["content"]) for d in decided["decisions"]] == [
        ("e1", "DELETE", None),
        ("e3", "COMPRESS", "One thing."),
    ]
    assert {(f["op"], f["key"], f["value"], f["from"]) for f in decided["facts"]} == {
        ("SET", "city", "Lisbon", "e5"),
        ("REMOVE", "employer", None, "e5"),
    }
