"""Spans of nodes, models and tools, made from the callbacks of LangChain. Imported only if traces are on.

Source: OpenTelemetry Semantic Conventions 1.41.0, GenAI spans.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langgraph.errors import GraphBubbleUp
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from runlane.redaction import shortened

#: Characters of one prompt, answer, or argument in a span.
MAX_PAYLOAD: Final = 32 * 1024
#: Providers as LangChain names them, where the conventions have another name.
_PROVIDERS: Final = {
    "amazon_bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "google_genai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
_ROLES: Final = {"human": "user", "ai": "assistant"}
_TASK: Final = "graph:step:"
_HIDDEN: Final = "langsmith:hidden"


class SpanCallback(BaseCallbackHandler):
    """Makes the spans of one attempt. What LangChain nests between them has none of its own."""

    run_inline = True

    def __init__(self, tracer: Tracer, parent: Context, *, redact: Callable[[str], str] | None) -> None:
        """Args:
        redact: Takes secrets out of prompts, answers and arguments; ``None``: spans have none of these.
        """
        self._tracer = tracer
        self._root = parent
        self._redact = redact
        self._open: dict[UUID, Span] = {}
        self._contexts: dict[UUID, Context] = {}

    def close(self) -> None:
        """End the spans of code that did not end, because it was cancelled or abandoned."""
        while self._open:
            _, span = self._open.popitem()
            span.set_attribute("runlane.cut_off", True)
            span.end()
        self._contexts.clear()

    def on_chain_start(
        self,
        serialized: Any,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        tags = tags or []
        if _HIDDEN in tags or not any(tag.startswith(_TASK) for tag in tags):
            self._contexts[run_id] = self._context(parent_run_id)
            return
        node = str((metadata or {}).get("langgraph_node") or kwargs.get("name"))
        self._start(run_id, parent_run_id, f"node {node}", {"runlane.node": node})

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **_: Any) -> None:
        self._end(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        self._end(run_id, error=error)

    def on_chat_model_start(
        self,
        serialized: Any,
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        prompt = [message for batch in messages for message in batch]
        self._start_model("chat", run_id, parent_run_id, metadata or {}, kwargs, prompt)

    def on_llm_start(
        self,
        serialized: Any,
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._start_model("text_completion", run_id, parent_run_id, metadata or {}, kwargs, ())

    def _start_model(
        self,
        operation: str,
        run_id: UUID,
        parent_run_id: UUID | None,
        metadata: Mapping[str, Any],
        given: Mapping[str, Any],
        prompt: Sequence[BaseMessage],
    ) -> None:
        asked = given.get("invocation_params") or {}
        model = metadata.get("ls_model_name") or asked.get("model") or asked.get("model_name")
        provider = metadata.get("ls_provider")
        attributes = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": _PROVIDERS.get(str(provider), provider),
            "gen_ai.request.model": model,
            "gen_ai.request.temperature": metadata.get("ls_temperature"),
            "gen_ai.request.max_tokens": metadata.get("ls_max_tokens"),
            "gen_ai.input.messages": self._payload([_message(each) for each in prompt]),
        }
        self._start(run_id, parent_run_id, f"{operation} {model}" if model else operation, attributes, SpanKind.CLIENT)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        answers = [each.message for batch in response.generations for each in batch if isinstance(each, ChatGeneration)]
        self._end(run_id, self._answered(answers))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        self._end(run_id, error=error)

    def _answered(self, answers: Sequence[BaseMessage]) -> dict[str, Any]:
        if not answers:
            return {}
        told = answers[0].response_metadata
        used: Mapping[str, Any] = getattr(answers[0], "usage_metadata", None) or {}
        reason = told.get("finish_reason") or told.get("stop_reason")
        return {
            "gen_ai.response.id": answers[0].id,
            "gen_ai.response.model": told.get("model_name") or told.get("model"),
            "gen_ai.response.finish_reasons": None if reason is None else [str(reason)],
            "gen_ai.usage.input_tokens": used.get("input_tokens"),
            "gen_ai.usage.output_tokens": used.get("output_tokens"),
            "gen_ai.output.messages": self._payload([_message(each) for each in answers]),
        }

    def on_tool_start(
        self,
        serialized: Mapping[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        name = str(kwargs.get("name") or (serialized or {}).get("name") or "tool")
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.id": kwargs.get("tool_call_id"),
            "gen_ai.tool.call.arguments": self._payload(input_str),
        }
        self._start(run_id, parent_run_id, f"execute_tool {name}", attributes)

    def on_tool_end(self, output: Any, *, run_id: UUID, **_: Any) -> None:
        content = getattr(output, "content", output)
        attributes = {
            "gen_ai.tool.call.id": getattr(output, "tool_call_id", None),
            "gen_ai.tool.call.result": self._payload(content),
        }
        self._end(run_id, attributes)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        self._end(run_id, error=error)

    def _context(self, parent: UUID | None) -> Context:
        return self._root if parent is None else self._contexts.get(parent, self._root)

    def _start(
        self,
        run_id: UUID,
        parent: UUID | None,
        name: str,
        attributes: Mapping[str, Any],
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> None:
        known = {key: value for key, value in attributes.items() if value is not None}
        span = self._open[run_id] = self._tracer.start_span(name, self._context(parent), kind=kind, attributes=known)
        self._contexts[run_id] = set_span_in_context(span, self._root)

    def _end(
        self, run_id: UUID, attributes: Mapping[str, Any] | None = None, error: BaseException | None = None
    ) -> None:
        self._contexts.pop(run_id, None)
        span = self._open.pop(run_id, None)
        if span is None:
            return
        for key, value in (attributes or {}).items():
            if value is not None:
                span.set_attribute(key, value)
        if isinstance(error, asyncio.CancelledError):
            span.set_attribute("runlane.cut_off", True)
        elif isinstance(error, GraphBubbleUp):  # a pause, a drain or a move to a parent graph
            span.set_attribute("runlane.interrupted", True)
        elif error is not None:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        span.end()

    def _payload(self, value: Any) -> str | None:
        if self._redact is None:
            return None
        text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
        return shortened(self._redact(text), MAX_PAYLOAD)


def _message(message: BaseMessage) -> dict[str, Any]:
    """Return a message as the conventions have it."""
    parts: list[dict[str, Any]] = [{"type": "text", "content": message.text}] if message.text else []
    parts += [
        {"type": "tool_call", "id": call["id"], "name": call["name"], "arguments": call["args"]}
        for call in getattr(message, "tool_calls", ())
    ]
    if message.type == "tool":
        parts = [
            {
                "type": "tool_call_response",
                "id": getattr(message, "tool_call_id", None),
                "response": message.content,
            }
        ]
    return {"role": _ROLES.get(message.type, message.type), "parts": parts}
