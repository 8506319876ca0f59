"""The graphs that a server can run, from a ``langgraph.json`` or from objects at hand."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import logging
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast
from uuid import UUID, uuid5

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import StateGraph
from langgraph.pregel import Pregel

# The alias `ServerRuntime` is a union of these two, and only they can be made.
from langgraph_sdk.runtime import AccessContext, _ExecutionRuntime, _ReadRuntime

from runlane.agents.langgraph_json import GraphsFile, read_graphs_file
from runlane.errors import ConfigurationError, GraphLoadError, NotFound

log = logging.getLogger("runlane.agents")

#: Namespace of the ids of system assistants. Source: the LangGraph Server API, whose clients compute them too.
ASSISTANT_NAMESPACE: Final = UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")
_DEFAULT_NAME: Final = "LangGraph"

Graph = Pregel[Any, Any, Any, Any]


def system_assistant_id(graph_id: str) -> str:
    """Return the id of the assistant that every graph has from the start."""
    return str(uuid5(ASSISTANT_NAMESPACE, graph_id))


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphUse:
    """For what a graph is opened, so that a factory can prepare only what is needed.

    ``access`` is one of LangGraph's access contexts; ``context`` is that of the run,
    ``user`` a ``BaseUser`` if the server knows one.
    """

    access: AccessContext = "threads.create_run"
    config: RunnableConfig | None = None
    context: Any = None
    store: Any = None
    user: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One graph: compiled already, or made by a factory for each use."""

    description: str | None
    graph: Graph | None
    factory: Callable[..., Any] | None
    parameters: tuple[str, ...] = ()


def graph_name(graph: Graph, graph_id: str) -> str:
    """Return the name that *graph* was compiled with, else its id."""
    return graph_id if graph.name in ("", _DEFAULT_NAME) else graph.name


class Registry:
    """Graphs by id. A compiled graph is shared by all its runs; a factory is called for each use."""

    def __init__(self, entries: Mapping[str, _Entry]) -> None:
        self._entries = entries
        self._told: set[tuple[str, str]] = set()

    @classmethod
    def from_graphs(cls, graphs: Mapping[str, Any]) -> Registry:
        """Make a registry of compiled graphs, ``StateGraph`` builders and factories at hand.

        Raises:
            GraphLoadError: A value is none of these, or a builder does not compile.
        """
        return cls({graph_id: _entry(graph_id, repr(type(value)), value, None) for graph_id, value in graphs.items()})

    @property
    def graph_ids(self) -> tuple[str, ...]:
        return tuple(self._entries)

    def is_made(self, graph_id: str) -> bool:
        """Return whether a factory makes the graph, by the configuration that it is given.

        Raises:
            NotFound: There is no such graph.
        """
        return self._entry(graph_id).factory is not None

    def description(self, graph_id: str) -> str | None:
        """Return what the configuration says the graph is for.

        Raises:
            NotFound: There is no such graph.
        """
        return self._entry(graph_id).description

    def name(self, graph_id: str) -> str:
        """Return the name that the graph was compiled with, else its id.

        Raises:
            NotFound: There is no such graph.
        """
        graph = self._entry(graph_id).graph
        return graph_id if graph is None else graph_name(graph, graph_id)

    @asynccontextmanager
    async def open(self, graph_id: str, use: GraphUse | None = None) -> AsyncIterator[Graph]:
        """Give the graph for one use, and release what its factory holds afterwards.

        Raises:
            NotFound: There is no such graph.
            GraphLoadError: The factory returned something that is not a graph.
            Exception: What the factory itself raised.
        """
        entry = self._entry(graph_id)
        if entry.graph is not None:
            yield entry.graph
            return
        async with AsyncExitStack() as stack:
            yield await _made(graph_id, entry, use or GraphUse(), stack)

    def tell_replaced(self, graph_id: str, graph: Graph, *, store: bool) -> None:
        """Log, once for each graph, that the checkpointer or the *store* that *graph* was compiled with is not used."""
        own = {"checkpointer": isinstance(graph.checkpointer, BaseCheckpointSaver)}
        own["store"] = store and graph.store is not None
        for what in (name for name, found in own.items() if found and (graph_id, name) not in self._told):
            self._told.add((graph_id, what))
            log.warning(
                "graph.own_%s graph=%s why=%s",
                what,
                graph_id,
                f"its own {what} is not used: Runlane keeps that in its database; compile the graph without one.",
            )

    def _entry(self, graph_id: str) -> _Entry:
        try:
            return self._entries[graph_id]
        except KeyError:
            raise NotFound("graph", graph_id) from None


def load_registry(config_path: Path) -> Registry:
    """Import every graph that the ``langgraph.json`` at *config_path* names. Blocks; runs the user's code.

    Raises:
        ConfigurationError: The file cannot be used.
        GraphLoadError: A graph does not import or is not a graph; ``__cause__`` has the user's traceback.
    """
    file = read_graphs_file(config_path)
    file.apply()
    return Registry({graph_id: _read_entry(file, graph_id) for graph_id in file.graphs})


def check_graph(file: GraphsFile, graph_id: str) -> None:
    """Import a graph of *file* as a start would. Blocks; runs the user's code.

    Raises:
        GraphLoadError: As for :func:`load_registry`.
    """
    file.apply()
    _read_entry(file, graph_id)


def _read_entry(file: GraphsFile, graph_id: str) -> _Entry:
    spec = file.graphs[graph_id]
    return _entry(graph_id, spec.path, _import(file, graph_id, spec.path), spec.description)


def _import(file: GraphsFile, graph_id: str, spec: str) -> Any:
    """Return the object that *spec* names, importing its module unless it is already."""
    where, _, name = spec.rpartition(":")
    try:
        module = _import_module(file, where)
    except (Exception, SystemExit) as exc:  # the user's code may raise anything, and it is reported as theirs
        raise GraphLoadError(graph_id, spec, f"{type(exc).__name__}: {exc}") from exc
    try:
        return getattr(module, name)
    except AttributeError:
        graphs = [key for key, value in vars(module).items() if isinstance(value, (Pregel, StateGraph))]
        hint = f"; its graphs are: {', '.join(graphs)}" if graphs else ""
        raise GraphLoadError(graph_id, spec, f"the module has no {name!r}{hint}") from None


def import_object(file: GraphsFile, key: str, spec: str) -> Any:
    """Return the object that *spec* (``path.py:name`` or ``package.module:name``) names, importing its module once.

    Raises:
        ConfigurationError: There is no such object; it names *key*. ``__cause__`` has the user's own traceback.
    """
    where, _, name = spec.rpartition(":")
    try:
        return getattr(_import_module(file, where), name)
    except (Exception, SystemExit) as exc:  # as above
        why = f"{type(exc).__name__}: {exc}"
        raise ConfigurationError(f"{file.path}: {key} {spec!r} cannot be used: {why}") from exc


def _import_module(file: GraphsFile, where: str) -> ModuleType:
    if where.endswith(".py") or "/" in where:
        return _import_file((file.folder / where).resolve())
    return importlib.import_module(where)


def _import_file(path: Path) -> ModuleType:
    """Import a source file once, under the name by which its neighbours import it where that name is free."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    root, name = path.parent, path.stem
    while (root / "__init__.py").exists():
        root, name = root.parent, f"{root.name}.{name}"
    if str(root) not in sys.path:
        sys.path.append(str(root))
    importlib.invalidate_caches()
    found = importlib.util.find_spec(name)
    if found is not None and found.origin is not None and Path(found.origin).resolve() == path:
        return importlib.import_module(name)
    unique = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    return sys.modules[unique] if unique in sys.modules else _load(unique, path)


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python source file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _entry(graph_id: str, spec: str, value: Any, description: str | None) -> _Entry:
    if isinstance(value, (Pregel, StateGraph)):
        return _Entry(description=description, graph=_compiled(graph_id, spec, value), factory=None)
    if not callable(value):
        raise GraphLoadError(
            graph_id, spec, f"it is of type {type(value).__name__}, not a graph or a function that makes one"
        )
    return _Entry(
        description=description, graph=None, factory=value, parameters=_factory_parameters(graph_id, spec, value)
    )


def _compiled(graph_id: str, spec: str, value: Any) -> Graph:
    if isinstance(value, StateGraph):
        try:
            return cast(Graph, value.compile())
        except Exception as exc:  # whatever is wrong with the user's graph is reported as theirs
            raise GraphLoadError(graph_id, spec, f"{type(exc).__name__}: {exc}") from exc
    if isinstance(value, Pregel):
        return value
    raise GraphLoadError(graph_id, spec, f"its factory returned {type(value).__name__}, not a graph")


def _factory_parameters(graph_id: str, spec: str, factory: Callable[..., Any]) -> tuple[str, ...]:
    """Return what each required parameter of *factory* wants: ``config`` or ``runtime``."""
    required = [
        parameter
        for parameter in inspect.signature(factory).parameters.values()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and (parameter.default is parameter.empty or _wants_runtime(parameter) or parameter.name == "config")
    ]
    if len(required) > 2 or any(parameter.kind is parameter.KEYWORD_ONLY for parameter in required):
        raise GraphLoadError(
            graph_id, spec, "a graph factory takes at most a RunnableConfig and a ServerRuntime, by position"
        )
    return tuple("runtime" if _wants_runtime(parameter) else "config" for parameter in required)


def _wants_runtime(parameter: inspect.Parameter) -> bool:
    return parameter.name == "runtime" or "ServerRuntime" in str(parameter.annotation)


async def _made(graph_id: str, entry: _Entry, use: GraphUse, stack: AsyncExitStack) -> Graph:
    """Call the factory of *entry*; what it opened stays open on *stack*."""
    factory = cast(Callable[..., Any], entry.factory)
    config = {**(use.config or {}), "configurable": (use.config or {}).get("configurable") or {}}
    arguments = {"config": config, "runtime": _server_runtime(use)}
    made = factory(*(arguments[name] for name in entry.parameters))
    if inspect.isawaitable(made):
        made = await made
    if isinstance(made, AbstractAsyncContextManager):
        made = await stack.enter_async_context(made)
    elif isinstance(made, AbstractContextManager):
        made = stack.enter_context(made)
    return _compiled(graph_id, getattr(factory, "__qualname__", repr(factory)), made)


def _server_runtime(use: GraphUse) -> Any:
    if use.access == "threads.create_run":
        return _ExecutionRuntime(access_context=use.access, user=use.user, store=use.store, context=use.context)
    return _ReadRuntime(access_context=use.access, user=use.user, store=use.store)
