"""What one attempt has shown and done so far that its checkpoints do not know yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage
from langgraph.callbacks import GraphCallbackHandler, GraphInterruptEvent


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


class Observer(GraphCallbackHandler):
    """Watches one attempt: whether it paused, which tools finished, which assistant text was streamed.

    It is asked about chat-model tokens by :meth:`streamed`, not by LangChain, whose callbacks cost more.
    """

    run_inline = True

    def __init__(self) -> None:
        self.started = False
        self.paused = False
        self.tool_results: dict[str, ToolMessage] = {}
        self._partials: dict[str, Partial] = {}
        self._step = -1

    @property
    def ignore_llm(self) -> bool:
        return True

    @property
    def ignore_chat_model(self) -> bool:
        return True

    @property
    def ignore_chain(self) -> bool:
        return True

    @property
    def ignore_retriever(self) -> bool:
        return True

    @property
    def partials(self) -> list[Partial]:
        """Texts of the newest superstep, in the order in which they began."""
        return [partial for partial in self._partials.values() if any(partial.pieces)]

    def on_interrupt(self, event: GraphInterruptEvent) -> None:
        """Note that the graph stopped to wait, for an answer or at a breakpoint."""
        self.paused = True

    def on_tool_end(self, output: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any) -> None:
        """Keep the result of a tool until its node has finished; siblings in the same node may be stopped first."""
        if isinstance(output, ToolMessage):
            self.tool_results[output.tool_call_id] = output

    def superstep_over(self) -> None:
        """Forget tool results that are in the state by now."""
        self.tool_results.clear()

    def streamed(self, chunk: Any, metadata: Mapping[str, Any]) -> None:
        """Note one streamed message of the root graph. Texts of earlier supersteps are in the state by now."""
        if isinstance(chunk, AIMessageChunk):
            content = chunk.content
            text = content if type(content) is str else str(chunk.text)
            self.streamed_text(chunk.id or "", text, metadata)

    def streamed_text(self, message_id: str, text: str, metadata: Mapping[str, Any]) -> None:
        """Note a piece of a message that the root graph streams."""
        step = metadata["langgraph_step"]
        if step != self._step:
            self._step = step
            self._partials.clear()
        partial = self._partials.get(message_id)
        if partial is None:
            partial = self._partials[message_id] = Partial(
                message_id=message_id,
                step=step,
                # "node:task", and "|..." of functional tasks within it
                task_id=metadata["langgraph_checkpoint_ns"].partition("|")[0].rpartition(":")[2],
            )
        partial.pieces.append(text)
