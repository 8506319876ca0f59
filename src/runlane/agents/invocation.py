"""From a run's request to the arguments of a LangGraph call. Pure.

Source: the LangGraph Server's assembly of a run's config.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Final, cast
from uuid import UUID

import msgspec
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, Send
from langgraph.version import __version__ as langgraph_version
from pydantic import BaseModel

from runlane.agents.registry import Graph
from runlane.agents.users import PREFIX, RunUser, user_keys
from runlane.records import RunRecord
from runlane.requests import RunRequest

#: What a client may say in ``config`` beside ``configurable`` and ``metadata``.
_CONFIG_KEYS: Final = ("tags", "recursion_limit", "max_concurrency", "run_name")
#: Metadata that only the server writes: whose run a checkpoint belongs to hangs on it.
_RESERVED_METADATA: Final = frozenset({"thread_id", "assistant_id", "run_id", "cron_id", "graph_id", "run_attempt"})
_REQUEST_ID: Final = "langgraph_request_id"
_RESERVED_CONFIGURABLE: Final = ("__", PREFIX, _REQUEST_ID)
#: With this LangGraph refuses an answer to what was not asked. It has no public name.
_STRICT_RESUME: Final = "__pregel_strict_resume"
_CHECKPOINT_KEYS: Final = ("checkpoint_id", "checkpoint_ns", "checkpoint_map")


def thread_config(thread_id: str, checkpoint: Mapping[str, Any] | str | None = None) -> RunnableConfig:
    """Return the config that addresses a thread's newest checkpoint, or the one that *checkpoint* names.

    Args:
        checkpoint: A checkpoint's id, or its ``checkpoint_id``, ``checkpoint_ns`` and ``checkpoint_map``.
    """
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": "", **_checkpoint_keys(checkpoint)}}


def run_config(
    run: RunRecord,
    graph_id: str,
    *,
    user: RunUser | None = None,
    fork: bool = True,
    strict: bool = True,
    callbacks: Sequence[Any] = (),
) -> RunnableConfig:
    """Return the config of one attempt at *run*.

    Args:
        fork: Whether the checkpoint that the request names is where the run starts.
        strict: Whether LangGraph checks the answers, if the request asks for that.
    """
    request = run.request
    given = request.config or {}
    ids = {"run_id": run.run_id, "thread_id": run.thread_id, "graph_id": graph_id, "assistant_id": run.assistant_id}
    configurable = _allowed(request.configurable)
    if fork:
        configurable |= _checkpoint_keys(request.start)
    else:
        configurable = {key: value for key, value in configurable.items() if key not in _CHECKPOINT_KEYS}
    metadata = {
        key: value
        for key, value in {**(given.get("metadata") or {}), **run.metadata}.items()
        if key not in _RESERVED_METADATA
    }
    config: dict[str, Any] = {key: given[key] for key in _CONFIG_KEYS if given.get(key) is not None}
    config["configurable"] = {**configurable, **user_keys(user), **ids, _REQUEST_ID: request_id(run)}
    if strict and request.strict_resume:
        config["configurable"][_STRICT_RESUME] = True
    known = {name: value for name, value in ids.items() if value is not None}
    config["metadata"] = {**metadata, **known, "run_attempt": run.attempt, "langgraph_version": langgraph_version}
    config["callbacks"] = list(callbacks)
    if (run_id := _uuid(run.run_id)) is not None:
        config["run_id"] = run_id
    return cast(RunnableConfig, config)


def request_id(run: RunRecord) -> str:
    """Return the ``X-Request-Id`` of the request that created *run*; its own id if there was none."""
    return run.stored.origin.request_id or run.run_id


def run_input(request: RunRequest) -> Any:
    """Return what the graph is called with; a command wins over an input."""
    command = request.command or {}
    if all(command.get(part) is None for part in ("resume", "update", "goto")):
        return msgspec.json.decode(request.input)
    return command_of(command)


def command_of(command: Mapping[str, Any]) -> Command[Any]:
    """Return LangGraph's command for the API's ``{"resume", "update", "goto"}``."""
    update = command.get("update")
    if isinstance(update, list) and all(isinstance(item, list) and len(item) == 2 for item in update):
        update = [tuple(item) for item in update]
    return Command(resume=command.get("resume"), update=update, goto=_goto(command.get("goto")))


def run_context(graph: Graph, request: RunRequest) -> Any:
    """Return the run's context, reduced to what the graph's context schema knows; ``None`` if there is none.

    A graph with a schema that was given no context takes it from ``configurable``, as older clients send it. If that
    has none either, and all that the schema has are defaults, the context is those.
    """
    context = request.context
    if isinstance(context, dict):
        context = _allowed(context)
    known = _fields(graph.context_schema)
    if known is None:
        return context or None
    if not context:
        context = _allowed(request.configurable)
    if isinstance(context, dict):
        context = {key: value for key, value in context.items() if key in known}
    return context or ({} if _has_defaults(graph.context_schema) else None)


def _fields(schema: Any) -> frozenset[str] | None:
    if schema is None:
        return None
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return frozenset(schema.model_fields)
    if is_dataclass(schema):
        return frozenset(field.name for field in fields(schema))
    return frozenset(getattr(schema, "__annotations__", ())) or None


def _has_defaults(schema: Any) -> bool:
    """Return whether a context can be made with nothing given, so that LangGraph makes *schema* of an empty one."""
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return not any(field.is_required() for field in schema.model_fields.values())
    if is_dataclass(schema):
        return all(
            not field.init or field.default is not MISSING or field.default_factory is not MISSING
            for field in fields(schema)
        )
    return not getattr(schema, "__required_keys__", True)


def _allowed(configurable: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in configurable.items() if not key.startswith(_RESERVED_CONFIGURABLE)}


def _checkpoint_keys(checkpoint: Mapping[str, Any] | str | None) -> dict[str, Any]:
    if isinstance(checkpoint, str):
        return {"checkpoint_id": checkpoint}
    return {key: checkpoint[key] for key in _CHECKPOINT_KEYS if checkpoint.get(key)} if checkpoint else {}


def _goto(goto: Any) -> Any:
    if goto is None:
        return ()
    targets = goto if isinstance(goto, list) else [goto]
    return [Send(item["node"], item.get("input")) if isinstance(item, dict) else item for item in targets]


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
