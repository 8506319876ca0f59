"""The recipes of the cookbook: their files are served, and their clients print what the pages say."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable

from server_kit import running_server

COOKBOOK = Path(__file__).parents[2] / "docs" / "cookbook"
PAGES = sorted(COOKBOOK.glob("*.md"))
FILE = re.compile(r"^<!-- file: (\S+) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CLIENT = re.compile(r"^<!-- client -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
REPLIES = re.compile(r"^<!-- replies: (.*?) -->$", re.MULTILINE | re.DOTALL)
ADDRESS = "http://127.0.0.1:2024"
#: The only file of a recipe that a test replaces: it asks a provider.
MODEL = "from server.test_cookbook import Scripted\n\nmodel = Scripted(replies={replies!r})\n"


class Scripted(BaseChatModel):
    """A model whose next message is the one that follows in a script, given how many it said in this conversation."""

    replies: list[dict[str, Any]]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> Runnable[LanguageModelInput, AIMessage]:
        return self

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        said = sum(isinstance(message, AIMessage) for message in messages)
        reply = AIMessage(id=f"reply-{said}", **{"content": "", **self.replies[said]})
        return ChatResult(generations=[ChatGeneration(message=reply)])


def recipes() -> list[Path]:
    """Return the pages with files; deep agents are served in an environment of their own, ``tests/clients``."""
    here = [page for page in PAGES if page.stem != "deep-agents" or find_spec("deepagents")]
    return [page for page in here if FILE.search(page.read_text())]


@pytest.mark.parametrize("page", recipes(), ids=lambda page: page.stem)
def test_a_recipe_prints_what_its_page_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text()
    monkeypatch.setattr(sys, "path", [*sys.path])  # to which the server adds the project
    monkeypatch.setenv("OPENAI_API_KEY", "unused")  # the server would keep what `.env` says for the tests that follow
    monkeypatch.delitem(sys.modules, "model", raising=False)  # of the recipe before
    for name, content in FILE.findall(text):
        (tmp_path / name).write_text(content)
    if replies := REPLIES.search(text):
        assert "init_chat_model" in (tmp_path / "model.py").read_text()
        (tmp_path / "model.py").write_text(MODEL.format(replies=json.loads(replies[1])))
    clients = CLIENT.findall(text)
    assert clients
    with running_server(f"sqlite:///{tmp_path}/runlane.db", tmp_path / "langgraph.json") as server:
        for code in clients:
            printed, names = io.StringIO(), dict[str, Any](__name__="client")
            with contextlib.redirect_stdout(printed):
                exec(compile(code.replace(ADDRESS, server.url), str(page), "exec"), names)
            names["client"].close()
            assert printed.getvalue().splitlines() == re.findall(r"#> (.*)$", code, re.MULTILINE)
