"""Token accounting: a LangChain callback that watches every model call of one attempt of a run.

The rules, which hold however a run ends:

- A call counts from its start, once per LangChain run id; its tokens are what the provider reported. Of a call that
  failed, was cancelled or is still running, that is the usage its chunks carried so far; nothing is estimated.
- A call's caller is told by its tags: ``subagent:*``, else ``middleware:*``, else it is the lead agent's. What the
  middleware of a sub-agent spends is the sub-agent's. Calls and messages that LangChain's own middleware marks with
  ``lc_source`` are middleware's too.
- ``message_count`` is what the run added to the conversation, so that the runs of a thread add up: of the lead
  agent's first prompt, the visible human messages after the last AI message; each completed reply of the lead agent;
  each tool result that a prompt of the lead agent brings after its last AI message, once per tool call.
- ``first_human_message`` is the first of those human messages, or the latest visible one if the prompt brings no new
  one (a resumed run). ``last_ai_message`` is the lead agent's last completed reply that has text.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import reduce
from itertools import takewhile
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, GenerationChunk, LLMResult
from langchain_core.tracers.context import register_configure_hook

from runlane.records import Usage
from runlane.storable import storable

Caller = Literal["lead_agent", "subagent", "middleware"]

#: No call has more tokens; a larger number is nonsense, and sums of it would not fit into a column.
MAX_COUNT: Final = 10**12
#: Enough for a list of runs to show what each was about, without copying documents into the ledger.
MAX_TEXT_CHARS: Final = 2000
UNKNOWN_MODEL: Final = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalUsage:
    """Tokens that a sub-agent spent out of the callback's sight, as it reported them.

    ``source_run_id`` identifies the call that spent them: a repeated report, or one of a call that the callback saw
    itself, counts once. ``tag`` names the caller as a call's tag would.
    """

    source_run_id: str
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cached_input_tokens: int = 0
    model: str = UNKNOWN_MODEL
    tag: str = "subagent:external"


def merge(a: Usage, b: Usage) -> Usage:
    """Add *b*, the later one, to *a*: sums, the first human message of the two, the last AI message of the two."""
    return a + b


def aggregate(usages: Iterable[Usage]) -> Usage:
    """Merge *usages*, the oldest first."""
    return reduce(merge, usages, Usage())


class UsageCallback(BaseCallbackHandler):
    """Count what the model calls of one attempt cost; safe to share between the threads that a graph runs in.

    It runs inline and ignores chains, tools and retrievers, so that a streamed token costs a type check and a
    superstep nothing but LangChain's own dispatch. It never raises into the agent.
    """

    run_inline = True
    ignore_agent = True
    ignore_chain = True
    ignore_custom_event = True
    ignore_retriever = True
    ignore_retry = True

    def __init__(
        self,
        *,
        on_progress: Callable[[Usage], None] | None = None,
        progress_interval_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start from zero.

        Args:
            on_progress: Called with a snapshot after a call has ended, in the thread of that call; must not block.
                What it holds back is in the next ``snapshot()``: record that when the attempt is over.
            progress_interval_s: Shortest time between two reports.
            clock: Monotonic seconds.
        """
        self._on_progress = on_progress
        self._progress_interval_s = progress_interval_s
        self._clock = clock
        self._lock = threading.Lock()
        self._next_report_at = -math.inf
        self._done = Usage()
        self._open: dict[UUID, _Call] = {}
        self._seen: set[str] = set()
        self._tool_call_ids: set[str] = set()
        self._prompted = False

    def counting(self) -> AbstractContextManager[None]:
        """Count every model call of the block, and of the tasks and threads that inherit its context.

        A call that is given this callback as well counts once.
        """
        return counted_by(self)

    def snapshot(self) -> Usage:
        """Return what is known now, running calls included."""
        with self._lock:
            if not self._open:
                return self._done
            return aggregate([self._done, *(call.usage(llm_calls=1) for call in self._open.values())])

    def add_external(self, records: Iterable[ExternalUsage]) -> None:
        """Add tokens reported from elsewhere, once per ``source_run_id``; they do not raise ``llm_calls``."""
        with self._lock:
            for record in records:
                if record.source_run_id in self._seen:
                    continue
                self._seen.add(record.source_run_id)
                tokens = _Tokens.of(
                    record.input_tokens, record.output_tokens, record.total_tokens, record.cached_input_tokens
                )
                call = _Call(caller=_caller([record.tag]), model=storable(record.model), tokens=tokens)
                self._done = merge(self._done, call.usage(llm_calls=0))
        self._report()

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Open a call and take from its prompt what is new."""
        with self._lock:
            call = self._start(run_id, tags, metadata)
            if call is not None and call.caller == "lead_agent" and messages:
                self._read_prompt(call, messages[0])

    def on_llm_start(
        self,
        serialized: dict[str, Any],
        prompts: list[str],
        *,
        run_id: UUID,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Open a call of a text completion model; its prompt is no message."""
        with self._lock:
            self._start(run_id, tags, metadata)

    def on_llm_new_token(
        self,
        token: str | list[str | dict[str, Any]],
        *,
        chunk: GenerationChunk | ChatGenerationChunk | None = None,
        run_id: UUID,
        **kwargs: Any,
    ) -> None:
        """Keep the usage that a chunk carries, since a cancelled call gets no end."""
        if not isinstance(chunk, ChatGenerationChunk):
            return
        reported = getattr(chunk.message, "usage_metadata", None)
        if not reported:
            return
        with self._lock:
            call = self._open.get(run_id)
            if call is not None:
                call.tokens = call.tokens.plus(_Tokens.read(reported))

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, tags: list[str] | None = None, **kwargs: Any) -> None:
        """Close a call with what the reply says, which replaces what its chunks said."""
        reply = _first_generation(response)
        with self._lock:
            call = self._open.get(run_id) or self._start(run_id, tags, None)
            if call is None:
                return
            call.model = _model_of(reply, response.llm_output) or call.model
            call.tokens = _tokens_of(reply, response.llm_output) or call.tokens
            if call.caller == "lead_agent" and reply is not None:
                call.message_count += 1
                call.last_ai_message = _text_of(reply)
            self._close(run_id, call)
        self._report()

    def on_llm_error(self, error: BaseException, *, run_id: UUID, tags: list[str] | None = None, **kwargs: Any) -> None:
        """Close a call that failed or was cancelled with what its chunks said."""
        with self._lock:
            call = self._open.get(run_id) or self._start(run_id, tags, None)
            if call is None:
                return
            self._close(run_id, call)
        self._report()

    def _start(self, run_id: UUID, tags: Sequence[str] | None, metadata: Mapping[str, Any] | None) -> _Call | None:
        """Open the call *run_id*; ``None`` if it is known already."""
        if str(run_id) in self._seen:
            return None
        self._seen.add(str(run_id))
        model = _name((metadata or {}).get("ls_model_name")) or UNKNOWN_MODEL
        call = self._open[run_id] = _Call(caller=_caller(tags or (), metadata), model=model)
        return call

    def _close(self, run_id: UUID, call: _Call) -> None:
        del self._open[run_id]
        self._done = merge(self._done, call.usage(llm_calls=1))

    def _read_prompt(self, call: _Call, prompt: Sequence[BaseMessage]) -> None:
        new = list(takewhile(lambda message: not isinstance(message, AIMessage), reversed(prompt)))
        tool_call_ids = {message.tool_call_id for message in new if isinstance(message, ToolMessage)}
        call.message_count = len(tool_call_ids - self._tool_call_ids)
        self._tool_call_ids |= tool_call_ids
        if self._prompted:
            return
        self._prompted = True
        humans = [message for message in new if _is_visible_human(message)]
        call.message_count += len(humans)
        asked = humans[-1] if humans else next(filter(_is_visible_human, reversed(prompt)), None)
        call.first_human_message = None if asked is None else _clip(asked.text)

    def _report(self) -> None:
        if self._on_progress is None:
            return
        with self._lock:
            now = self._clock()
            if now < self._next_report_at:
                return
            self._next_report_at = now + self._progress_interval_s
        self._on_progress(self.snapshot())


#: The callback of the attempt whose code is running. LangChain asks for it whenever it configures callbacks.
_COUNTING: Final[ContextVar[BaseCallbackHandler | None]] = ContextVar("runlane_counting", default=None)
register_configure_hook(_COUNTING, inheritable=True)


@contextmanager
def counted_by(handler: BaseCallbackHandler) -> Iterator[None]:
    """Have *handler* told of every model call of the block, and of the tasks and threads that inherit its context."""
    before = _COUNTING.get()
    _COUNTING.set(handler)
    try:
        yield
    finally:
        _COUNTING.set(before)


class _Tokens(NamedTuple):
    input: int = 0
    output: int = 0
    total: int = 0
    cached: int = 0

    @classmethod
    def of(cls, input_tokens: Any, output_tokens: Any, total_tokens: Any, cached: Any) -> _Tokens:
        """Read counts as providers give them: absent, null and negative are 0; an absent total is the sum."""
        given, made = _count(input_tokens), _count(output_tokens)
        return cls(given, made, _count(total_tokens) or given + made, _count(cached))

    @classmethod
    def read(cls, reported: Mapping[str, Any]) -> _Tokens:
        """Read LangChain's ``usage_metadata``, or a provider's own mapping with OpenAI's names."""
        details = reported.get("input_token_details") or reported.get("prompt_tokens_details")
        details = details if isinstance(details, Mapping) else {}
        return cls.of(
            reported.get("input_tokens", reported.get("prompt_tokens")),
            reported.get("output_tokens", reported.get("completion_tokens")),
            reported.get("total_tokens"),
            details.get("cache_read", details.get("cached_tokens")),
        )

    def plus(self, other: _Tokens) -> _Tokens:
        return _Tokens(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


_NO_TOKENS: Final = _Tokens()


@dataclass(slots=True, kw_only=True)
class _Call:
    caller: Caller
    model: str
    tokens: _Tokens = _NO_TOKENS
    message_count: int = 0
    first_human_message: str | None = None
    last_ai_message: str | None = None

    def usage(self, *, llm_calls: int) -> Usage:
        tokens = self.tokens
        return Usage(
            input_tokens=tokens.input,
            output_tokens=tokens.output,
            total_tokens=tokens.total,
            llm_calls=llm_calls,
            cached_input_tokens=tokens.cached,
            lead_agent_tokens=tokens.total if self.caller == "lead_agent" else 0,
            subagent_tokens=tokens.total if self.caller == "subagent" else 0,
            middleware_tokens=tokens.total if self.caller == "middleware" else 0,
            message_count=self.message_count,
            by_model={
                self.model: {
                    "input_tokens": tokens.input,
                    "output_tokens": tokens.output,
                    "total_tokens": tokens.total,
                    "cached_input_tokens": tokens.cached,
                    "llm_calls": llm_calls,
                }
            },
            first_human_message=self.first_human_message,
            last_ai_message=self.last_ai_message,
        )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 < value <= MAX_COUNT else 0


def _name(value: Any) -> str | None:
    return storable(value) if isinstance(value, str) and value else None


def _clip(text: str) -> str:
    return storable(str(text[:MAX_TEXT_CHARS]))


def _caller(tags: Sequence[str], metadata: Mapping[str, Any] | None = None) -> Caller:
    """Return the caller of a model call. LangChain sorts tags, so that their order says nothing about nesting."""
    if any(tag.startswith("subagent:") for tag in tags):
        return "subagent"
    if any(tag.startswith("middleware:") for tag in tags) or (metadata or {}).get("lc_source"):
        return "middleware"
    return "lead_agent"


def _is_visible_human(message: BaseMessage) -> bool:
    """Return whether a person wrote *message*.

    Source: ``lc_source``, https://github.com/langchain-ai/langchain/pull/34693.
    """
    hidden = message.additional_kwargs.get("hide_from_ui") or message.additional_kwargs.get("lc_source")
    return isinstance(message, HumanMessage) and not hidden and not (message.name or "").startswith("middleware:")


def _first_generation(response: LLMResult) -> Generation | None:
    """Return the reply. Of several choices of one call each repeats the usage of the whole call."""
    first = response.generations[0] if response.generations else []
    return first[0] if first else None


def _text_of(reply: Generation) -> str | None:
    text = reply.message.text if isinstance(reply, ChatGeneration) else reply.text
    return _clip(text) if text.strip() else None


def _sources(reply: Generation | None, llm_output: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Return the mappings in which providers describe a call, the most specific first."""
    metadata = reply.message.response_metadata if isinstance(reply, ChatGeneration) else None
    return [source for source in (metadata, llm_output) if source]


def _model_of(reply: Generation | None, llm_output: Mapping[str, Any] | None) -> str | None:
    sources = _sources(reply, llm_output)
    names = (_name(source.get(key)) for source in sources for key in ("model_name", "model"))
    return next((name for name in names if name), None)


def _tokens_of(reply: Generation | None, llm_output: Mapping[str, Any] | None) -> _Tokens | None:
    message = reply.message if isinstance(reply, ChatGeneration) else None
    reported = [getattr(message, "usage_metadata", None)]
    reported += [source.get(key) for source in _sources(reply, llm_output) for key in ("token_usage", "usage")]
    read = (_Tokens.read(mapping) for mapping in reported if isinstance(mapping, Mapping))
    return next((tokens for tokens in read if any(tokens)), None)
