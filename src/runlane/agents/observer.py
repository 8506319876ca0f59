"""Progress of an attempt that its checkpoints do not have yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage
from langgraph.callbacks import GraphCallbackHandler, GraphInterruptEvent

#: Errors of tools and tasks that are remembered until the stream tells their texts, which it does soon.
_MAX_RAISED: Final = 64
_MODEL_EVENTS: Final = ("on_chat_model_start", "on_llm_start", "on_llm_new_token", "on_llm_end", "on_llm_error")


@dataclass(slots=True, kw_only=True)
class Partial:
    """Assistant text that was streamed by a task that has not finished."""

    message_id: str
    step: int
    task_id: str
    pieces: list[str] = field(default_factory=list)

    @property
    def message(self) -> AIMessage:
        """The text so far, under the id that the viewer saw; half a tool call is not kept."""
        return AIMessage("".join(self.pieces), id=self.message_id)


@dataclass(slots=True, kw_only=True)
class _Superstep:
    """Messages that one graph streams in one superstep, by id."""

    step: int
    partials: dict[str, Partial] = field(default_factory=dict)


class GraphObserver(GraphCallbackHandler):
    """Watches one attempt: whether it paused, which tools finished, which assistant text was streamed.

    ``raised`` has the newest errors, by which texts of errors that a stream
    tells without their classes are known.

    It is asked about chat-model tokens by :meth:`streamed`, not by LangChain, whose callbacks cost more. A subgraph is
    told from the root graph by its checkpoint namespace, that of the root being empty.
    """

    run_inline = True
    ignore_chain = True
    ignore_retriever = True
    ignore_llm = True
    ignore_chat_model = True

    def __init__(self, *, meter: BaseCallbackHandler | None = None) -> None:
        """Watch nothing yet.

        Args:
            meter: Told of the events of models, as if it were a handler of its own, which would cost LangChain more
                per token and node.
        """
        if meter is not None:
            self.ignore_llm = self.ignore_chat_model = False
            vars(self).update({name: getattr(meter, name) for name in _MODEL_EVENTS})
        self.started = False
        self.paused = False
        self.raised: list[BaseException] = []
        self._tools: dict[UUID, str] = {}
        self._results: dict[tuple[str, str], ToolMessage] = {}
        self._streaming: dict[str, _Superstep] = {}

    def partials(self, namespace: str = "") -> list[Partial]:
        """Texts of the newest superstep of the graph in *namespace*, in the order in which they began."""
        superstep = self._streaming.get(namespace)
        return [] if superstep is None else [one for one in superstep.partials.values() if any(one.pieces)]

    def tool_results(self, namespace: str = "") -> dict[str, ToolMessage]:
        """Return the results of tools in the graph in *namespace* and below it, by their calls; its own come first."""
        own, below = {}, {}
        for (place, call_id), result in self._results.items():
            if place.rpartition("|")[0] == namespace:
                own[call_id] = result
            elif not namespace or place.startswith(f"{namespace}|"):
                below[call_id] = result
        return below | own

    def on_interrupt(self, event: GraphInterruptEvent) -> None:
        """Note that the graph stopped to wait, for an answer or at a breakpoint."""
        self.paused = True

    def on_tool_start(
        self,
        serialized: Any,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Note in which task of which graph a tool works."""
        self._tools[run_id] = (metadata or {}).get("langgraph_checkpoint_ns", "")

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget a tool that failed, and remember why."""
        self._tools.pop(run_id, None)
        self.note_error(error)

    def on_tool_end(self, output: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any) -> None:
        """Keep the result of a tool until its node has finished; siblings in the same node may be stopped first."""
        place = self._tools.pop(run_id, "")
        if isinstance(output, ToolMessage):
            self._results[place, output.tool_call_id] = output

    def note_error(self, error: BaseException) -> None:
        """Remember an error whose text the stream may tell."""
        self.raised.append(error)
        del self.raised[:-_MAX_RAISED]

    def superstep_over(self) -> None:
        """Forget what is in the state of the root graph by now, and what its subgraphs did meanwhile."""
        self._results.clear()
        if len(self._streaming) > 1:
            self._streaming = {namespace: of for namespace, of in self._streaming.items() if not namespace}

    def forget(self, namespace: str) -> None:
        """Forget what the graph in *namespace* has streamed."""
        self._streaming.pop(namespace, None)

    def streamed(self, chunk: Any, metadata: Mapping[str, Any], namespace: str = "") -> None:
        """Note one streamed message of a graph. Texts of its earlier supersteps are in its state by now."""
        if isinstance(chunk, AIMessageChunk):
            content = chunk.content
            text = content if type(content) is str else str(chunk.text)
            self.streamed_text(chunk.id or "", text, metadata, namespace)

    def streamed_text(self, message_id: str, text: str, metadata: Mapping[str, Any], namespace: str = "") -> None:
        """Note a piece of a message that the graph in *namespace* streams."""
        step = metadata["langgraph_step"]
        superstep = self._streaming.get(namespace)
        if superstep is None or superstep.step != step:
            superstep = self._streaming[namespace] = _Superstep(step=step)
        partial = superstep.partials.get(message_id)
        if partial is None:
            # "node:task" within the graph, and "|..." of functional tasks within it
            place = metadata["langgraph_checkpoint_ns"].removeprefix(f"{namespace}|")
            partial = superstep.partials[message_id] = Partial(
                message_id=message_id, step=step, task_id=place.partition("|")[0].rpartition(":")[2]
            )
        partial.pieces.append(text)
