"""A chat whose pace the tests set, whichever process executes it: a word ``@name`` is said once that file is there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.graph import END, START, MessagesState, StateGraph

_GATES = Path(os.environ["GATES"])
_LOOK_S = 0.05


class Echo(BaseChatModel):
    """Repeats the last message word by word, and waits at a gate."""

    @property
    def _llm_type(self) -> str:
        return "echo"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        raise NotImplementedError("only in async code")

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        parts = [chunk.text async for chunk in self._astream(messages)]
        return ChatResult(generations=[ChatGeneration(message=AIMessage("".join(parts)))])

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for index, word in enumerate(f"echo: {messages[-1].text}".split(" ")):
            while word.startswith("@") and not (_GATES / word[1:]).exists():  # noqa: ASYNC110 - the gate is opened by another process
                await asyncio.sleep(_LOOK_S)
            text = f" {word}" if index else word
            chunk = ChatGenerationChunk(message=AIMessageChunk(text))
            if run_manager is not None:
                await run_manager.on_llm_new_token(text, chunk=chunk)
            yield chunk


async def answer(state: MessagesState) -> dict[str, Any]:
    return {"messages": [await Echo().ainvoke(state["messages"])]}


chat = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").add_edge("answer", END).compile()
