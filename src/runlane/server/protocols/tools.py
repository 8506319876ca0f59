"""Assistants as tools: names that a model can call, and schemas of what it has to give. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from runlane.records import Assistant

#: What an input that is no object is called among a tool's arguments.
INPUT: Final = "input"
_OTHER = re.compile(r"[^A-Za-z0-9_-]+")
_MAX_NAME: Final = 64
_TEXT: Final = {"type": "string", "description": "What to say to the agent."}


def named(assistants: Iterable[Assistant]) -> dict[str, Assistant]:
    """Return *assistants* by names of at most 64 letters, digits, ``_`` and ``-``; the first of a name has it plain."""
    found: dict[str, Assistant] = {}
    for one in assistants:
        plain = _OTHER.sub("_", one.name).strip("_")[:_MAX_NAME] or "assistant"
        short = f"{plain[: _MAX_NAME - 9]}_{one.assistant_id[:8]}"
        found[next(name for name in (plain, short, one.assistant_id) if name not in found)] = one
    return found


def input_schema(schema: Any) -> dict[str, Any]:
    """Return the schema of a tool's arguments for a graph's input: an object whose messages may be one text."""
    if not _is_object(schema):
        properties = {INPUT: {} if schema is None else {k: v for k, v in schema.items() if k != "$defs"}}
        found: dict[str, Any] = {"type": "object", "properties": properties, "required": [INPUT]}
    else:
        properties = dict(schema.get("properties") or {})
        if _is_list(properties.get("messages")):
            properties["messages"] = _TEXT
        found = {k: v for k, v in schema.items() if k not in ("$defs", "properties")}
        found["properties"] = properties
    defs = _used(found, (schema or {}).get("$defs") or {})
    return {**found, "$defs": defs} if defs else found


def input_of(arguments: Mapping[str, Any], schema: Any) -> Any:
    """Return the graph's input for a tool's *arguments*."""
    if not _is_object(schema):
        return arguments.get(INPUT)
    messages = arguments.get("messages")
    if isinstance(messages, str) and _is_list((schema.get("properties") or {}).get("messages")):
        return {**arguments, "messages": [{"role": "user", "content": messages}]}
    return dict(arguments)


def _is_object(schema: Any) -> bool:
    return isinstance(schema, dict) and (schema.get("type") == "object" or "properties" in schema)


def _is_list(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.get("type") == "array"


def _used(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of *defs* that *schema* refers to, and those refer to."""
    found: dict[str, Any] = {}
    texts = [orjson.dumps(schema)]
    while texts:
        text = texts.pop()
        for name, one in defs.items():
            if name not in found and orjson.dumps(f"#/$defs/{name}") in text:
                found[name] = one
                texts.append(orjson.dumps(one))
    return found
