"""A deep agent: it keeps files and delegates. Without OPENAI_API_KEY a model that needs no network answers."""

from __future__ import annotations

import os
from typing import Any

from deepagents import create_deep_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult


class OfflineChatModel(BaseChatModel):
    """Writes what was asked into a file, and says where it is."""

    @property
    def _llm_type(self) -> str:
        return "offline"

    def bind_tools(self, tools: Any, **kwargs: Any) -> OfflineChatModel:
        return self

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        asked = max(at for at, message in enumerate(messages) if isinstance(message, HumanMessage))
        done = sum(isinstance(message, AIMessage) for message in messages[asked:])
        topic = str(messages[asked].content)
        file = {"file_path": f"/notes-{asked}.md", "content": f"# {topic}\n"}
        steps = [
            AIMessage("", tool_calls=[{"id": f"file-{asked}", "name": "write_file", "args": file}]),
            AIMessage(f"The notes are in {file['file_path']}."),
        ]
        return ChatResult(generations=[ChatGeneration(message=steps[min(done, 1)])])


def chat_model() -> BaseChatModel:
    if not os.environ.get("OPENAI_API_KEY"):
        return OfflineChatModel()
    from langchain_openai import ChatOpenAI  # pip install langchain-openai

    return ChatOpenAI(model="gpt-4o-mini")


agent = create_deep_agent(model=chat_model(), system_prompt="You research, and write what you find into files.")
