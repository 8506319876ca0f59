"""A ``langgraph.json`` becomes a registry of graphs, or an error that says what to change."""

from __future__ import annotations

import json
import os
import sys
import textwrap
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint
from langgraph.graph import END, START, StateGraph
from langgraph.pregel import Pregel
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from langgraph_sdk.runtime import ServerRuntime

from agent_kit import Desk
from runlane.agents.graph import GraphAgent
from runlane.agents.registry import GraphUse, Registry, load_registry, system_assistant_id
from runlane.errors import ConfigurationError, GraphLoadError, NotFound


class Counted(TypedDict, total=False):
    n: int


GRAPH = """
from typing import TypedDict
from langgraph.graph import END, START, StateGraph

class State(TypedDict, total=False):
    a: int

def builder():
    return StateGraph(State).add_node("n", lambda state: {"a": 1}).add_edge(START, "n").add_edge("n", END)

graph = builder().compile()
named = builder().compile(name="Researcher")
uncompiled = builder()
number = 42
"""


@pytest.fixture(autouse=True)
def _process_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what loading does to the process: paths, modules, variables."""
    modules, environment = set(sys.modules), dict(os.environ)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    os.environ.clear()
    os.environ.update(environment)


class Project:
    """A folder with a langgraph.json."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, path: str, text: str) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
        return file

    def load(self, document: Any = None, **keys: Any) -> Registry:
        self.write("langgraph.json", json.dumps(document if document is not None else {"dependencies": ["."], **keys}))
        return load_registry(self.folder / "langgraph.json")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    made.write("main_graphs.py", GRAPH)
    return made


async def answer(registry: Registry, graph_id: str, use: GraphUse | None = None) -> Any:
    async with registry.open(graph_id, use) as graph:
        return await graph.ainvoke({"a": 0})


async def test_graphs_are_found_by_file_by_module_and_with_a_description(project: Project) -> None:
    registry = project.load(
        graphs={
            "file": "./main_graphs.py:graph",
            "module": "main_graphs:graph",
            "described": {"path": "main_graphs.py:uncompiled", "description": "Does things."},
            "named": "./main_graphs.py:named",
        }
    )
    assert registry.graph_ids == ("file", "module", "described", "named")
    assert registry.description("described") == "Does things."
    assert registry.description("file") is None
    assert [registry.name(graph_id) for graph_id in registry.graph_ids] == ["file", "module", "described", "Researcher"]
    for graph_id in registry.graph_ids:
        assert await answer(registry, graph_id) == {"a": 1}


async def test_a_plain_graph_is_the_same_object_for_every_use(project: Project) -> None:
    registry = project.load(graphs={"a": "./main_graphs.py:graph", "b": "./main_graphs.py:uncompiled"})
    for graph_id in registry.graph_ids:
        async with registry.open(graph_id) as first, registry.open(graph_id) as second:
            assert first is second


def test_a_source_file_is_imported_once(project: Project) -> None:
    project.write("count.py", "import os\nos.environ['IMPORTS'] = os.environ.get('IMPORTS', '') + 'x'\n" + GRAPH)
    project.load(graphs={"a": "./count.py:graph", "b": "count.py:graph", "c": "count:graph"})
    assert os.environ["IMPORTS"] == "x"


async def test_files_of_one_name_in_two_folders_are_two_modules(project: Project) -> None:
    for number in (1, 2):
        project.write(f"agents{number}/same_name.py", GRAPH.replace('"a": 1', f'"a": {number}'))
    registry = project.load(graphs={"one": "./agents1/same_name.py:graph", "two": "./agents2/same_name.py:graph"})
    assert [await answer(registry, graph_id) for graph_id in ("one", "two")] == [{"a": 1}, {"a": 2}]


def test_a_file_may_have_the_name_of_an_installed_module(project: Project) -> None:
    project.write("json.py", GRAPH)
    project.load({"graphs": {"a": "./json.py:graph"}})
    assert hasattr(sys.modules["json"], "dumps")


async def test_a_file_in_a_package_may_import_its_neighbours(project: Project) -> None:
    project.write("src/my_agent/__init__.py", "")
    project.write("src/my_agent/parts.py", GRAPH)
    project.write("src/my_agent/main.py", "from .parts import graph\nfrom my_agent import parts\n")
    registry = project.load({"graphs": {"a": "./src/my_agent/main.py:graph"}})
    assert await answer(registry, "a") == {"a": 1}


def test_the_environment_is_set_before_the_graphs_are_imported_and_the_process_wins(project: Project) -> None:
    os.environ["ALREADY"] = "process"
    project.write("reads_env.py", "import os\nassert os.environ['FROM_FILE'] == 'a b'\n" + GRAPH)
    project.write(".env", "# a comment\nexport FROM_FILE='a b'\nALREADY=file\n")
    project.load(graphs={"a": "./reads_env.py:graph"}, env=".env")
    assert os.environ["ALREADY"] == "process"
    project.load(graphs={"a": "./reads_env.py:graph"}, env={"NUMBER": 1})
    assert os.environ["NUMBER"] == "1"


def test_packaging_keys_and_empty_values_are_accepted(project: Project) -> None:
    registry = project.load(
        graphs={"a": "main_graphs:graph"},
        python_version="3.12",
        dockerfile_lines=["RUN true"],
        pip_config_file="p",
        image_distro="wolfi",
        node_version="20",
        store=None,
        http={},
        **{"$schema": "x"},
    )
    assert list(registry.graph_ids) == ["a"]


@pytest.mark.parametrize("key", ["ui", "encryption", "priority", "disable_persistence"])
def test_a_key_that_is_not_honoured_is_refused_by_name(project: Project, key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'{key}' is not supported yet: remove it"):
        project.load(graphs={"a": "main_graphs:graph"}, **{key: {"x": 1}})


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([], "expected an object, found list"),
        ({}, "'graphs' must name at least one"),
        ({"graphs": {}}, "'graphs' must name at least one"),
        ({"graphs": {"a": "no_colon.py"}}, "graphs.a must be"),
        ({"graphs": {"a": {"description": "x"}}}, "graphs.a must be"),
        ({"graphs": {"a": 1}}, "graphs.a must be"),
        ({"graphs": {"a": {"path": "x:y", "descripton": "x"}}}, "unknown key 'descripton' in graphs.a"),
        ({"graphs": {"a": "./a.ts:graph"}}, "JavaScript"),
        ({"graphs": {"a": "x:y"}, "grpahs": 1}, "unknown key 'grpahs'"),
        ({"graphs": {"a": "x:y"}, "dependencies": "."}, "'dependencies' must be a list"),
        ({"graphs": {"a": "x:y"}, "dependencies": ["./missing"]}, "'./missing' is not a folder"),
        ({"graphs": {"a": "x:y"}, "env": "missing.env"}, "'missing.env' does not exist"),
        ({"graphs": {"a": "x:y"}, "env": [1]}, "'env' must be"),
    ],
)
def test_a_wrong_configuration_says_what_is_wrong(project: Project, document: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        project.load(document)


def test_a_missing_file_and_bad_json_are_told_apart(project: Project) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        load_registry(project.folder / "langgraph.json")
    file = project.write("langgraph.json", '{\n  "graphs": {\n    "a": "x:y",\n  }\n}')
    with pytest.raises(ConfigurationError, match=r"langgraph\.json:\d+:\d+: not valid JSON"):
        load_registry(file)


@pytest.mark.parametrize(
    ("source", "spec", "says"),
    [
        ("1 / 0", "./broken.py:graph", "ZeroDivisionError: division by zero"),
        ("import not_installed_anywhere", "./broken.py:graph", "ModuleNotFoundError"),
        ("raise SystemExit(3)", "./broken.py:graph", "SystemExit: 3"),
        ("def (", "./broken.py:graph", "SyntaxError"),
        (GRAPH, "./broken.py:missing", "no 'missing'; its graphs are: graph, named, uncompiled"),
        (GRAPH, "./broken.py:number", "it is of type int, not a graph"),
        (GRAPH, "./nowhere.py:graph", "FileNotFoundError"),
        (GRAPH, "not_a_module:graph", "ModuleNotFoundError"),
        (
            "from langgraph.graph import StateGraph\ngraph = StateGraph(dict).add_edge('x', 'y')",
            "broken:graph",
            "ValueError",
        ),
        ("def graph(a, b, c): ...", "broken:graph", "at most a RunnableConfig and a ServerRuntime"),
    ],
)
def test_a_graph_that_does_not_load_is_named_with_the_reason(
    project: Project, source: str, spec: str, says: str
) -> None:
    project.write("broken.py", source)
    with pytest.raises(GraphLoadError, match=says) as caught:
        project.load(graphs={"mine": spec})
    assert (caught.value.graph_id, caught.value.spec) == ("mine", spec)


def test_the_users_own_traceback_is_the_cause(project: Project) -> None:
    project.write("broken.py", "def f():\n    1 / 0\nf()")
    with pytest.raises(GraphLoadError) as caught:
        project.load(graphs={"mine": "./broken.py:graph"})
    cause = caught.value.__cause__
    assert isinstance(cause, ZeroDivisionError)
    assert cause.__traceback__ is not None
    frames = []
    step = cause.__traceback__
    while step is not None:
        frames.append(step.tb_frame.f_code.co_filename)
        step = step.tb_next  # type: ignore[assignment]  # None at the end
    assert frames[-1] == str(project.folder / "broken.py")


# ---------------------------------------------------------------------------------------------------------- factories


class State(TypedDict, total=False):
    a: int


def made(a: int = 1) -> StateGraph[Any]:
    return StateGraph(State).add_node("n", lambda state: {"a": a}).add_edge(START, "n").add_edge("n", END)


CONFIG: RunnableConfig = {"configurable": {"a": 7}}


def plain() -> Any:
    return made(7)


async def async_plain() -> Any:
    return made(7).compile()


def of_config(config: RunnableConfig) -> Any:
    return made(config["configurable"]["a"])


def of_anything(c: Any) -> Any:
    return made(c["configurable"]["a"])


async def of_runtime(runtime: ServerRuntime[Any]) -> Any:
    execution = runtime.execution_runtime
    return made(execution.context["a"] if execution is not None else 0)


def of_both(r: ServerRuntime, config: RunnableConfig) -> Any:
    assert r.access_context == "threads.create_run"
    return made(config["configurable"]["a"])


@asynccontextmanager
async def async_manager(config: RunnableConfig) -> AsyncIterator[Any]:
    yield made(config["configurable"]["a"])


@contextmanager
def manager() -> Iterator[Any]:
    yield made(7)


@pytest.mark.parametrize(
    "factory", [plain, async_plain, of_config, of_anything, of_runtime, of_both, async_manager, manager]
)
async def test_a_factory_of_every_form_makes_a_graph_for_each_use(factory: Any) -> None:
    registry = Registry.from_graphs({"g": factory})
    use = GraphUse(config=CONFIG, context={"a": 7})
    assert await answer(registry, "g", use) == {"a": 7}
    async with registry.open("g", use) as first, registry.open("g", use) as second:
        assert first is not second


async def test_a_factory_that_is_opened_to_read_has_no_execution_runtime() -> None:
    registry = Registry.from_graphs({"g": of_runtime})
    assert await answer(registry, "g", GraphUse(access="threads.read", context={"a": 7})) == {"a": 0}


async def test_what_a_factory_holds_is_released_after_the_use_even_if_it_failed() -> None:
    released: list[str] = []

    @asynccontextmanager
    async def holding() -> AsyncIterator[Any]:
        try:
            yield made()
        finally:
            released.append("x")

    registry = Registry.from_graphs({"g": holding})
    with pytest.raises(ZeroDivisionError):
        async with registry.open("g"):
            raise ZeroDivisionError
    assert released == ["x"]


async def test_a_factory_that_makes_no_graph_is_an_error_and_its_own_error_comes_out_as_it_is() -> None:
    registry = Registry.from_graphs({"none": lambda: None, "fails": lambda: 1 / 0})
    with pytest.raises(GraphLoadError, match="returned NoneType"):
        await answer(registry, "none")
    with pytest.raises(ZeroDivisionError):
        await answer(registry, "fails")


def test_a_functional_entrypoint_is_a_graph() -> None:
    @entrypoint()
    def flow(value: int) -> int:
        return value

    assert isinstance(flow, Pregel)
    assert Registry.from_graphs({"flow": flow}).graph_ids == ("flow",)


async def test_an_unknown_graph_is_not_found() -> None:
    registry = Registry.from_graphs({"g": made()})
    with pytest.raises(NotFound):
        registry.description("other")
    with pytest.raises(NotFound):
        await answer(registry, "other")


def test_system_assistants_have_the_ids_that_clients_compute() -> None:
    namespace = uuid.UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")
    assert system_assistant_id("agent") == str(uuid.uuid5(namespace, "agent"))


async def test_a_graph_with_a_checkpointer_and_a_store_of_its_own_is_told_once_that_they_are_not_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    own, store = InMemorySaver(), InMemoryStore()

    async def remember(state: Counted, store: BaseStore) -> dict[str, Any]:
        await store.aput(("n",), "k", {"v": 1})
        return {"n": state.get("n", 0) + 1}

    builder = StateGraph(Counted).add_node("remember", remember).add_edge(START, "remember")
    registry = Registry.from_graphs({"own": builder.compile(checkpointer=own, store=store), "none": builder.compile()})
    for graph_id in ("own", "none", "own"):
        at = Desk(GraphAgent(registry, graph_id), store=InMemoryStore())
        for _ in range(2):
            await at.run(input={})
        assert await at.checkpoints() > 0
        assert (await at.store.aget(("n",), "k")) is not None
    assert [saved async for saved in own.alist(None)] == []
    assert await store.aget(("n",), "k") is None
    told = [record.getMessage().partition(" why=")[0] for record in caplog.records]
    assert told == ["graph.own_checkpointer graph=own", "graph.own_store graph=own"]
