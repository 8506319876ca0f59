"""To which question of its thread an answer belongs, so that no other question ever gets it.

LangGraph gives an answer without an id to whatever asks next, and one with an id to the next question of the task that
asked: right while all goes well, wrong once an earlier attempt, or a run that was stopped, has used the answer. What
was used is read from what the tasks have written: a task stores its answers when it ends or asks again, and one whose
graph has a later checkpoint is over. Source: LangGraph's ``interrupt``, ``PregelLoop._first`` and ``_scratchpad``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.serde.types import INTERRUPT, RESUME, TASKS
from langgraph.types import Interrupt

from runlane.agents.subgraphs import Namespace, namespaces
from runlane.records import TaskWrites

#: What a task writes that has not finished.
_UNFINISHED: Final = frozenset({INTERRUPT, RESUME, "__error__", "__error_source_node__"})
_ID: Final = re.compile("[0-9a-f]{32}")
#: The task under which LangGraph stores what a command writes.
COMMAND_TASK_ID: Final = str(UUID(int=0))
#: Channels by which a node is next; how the paths of tasks begin that were triggered, and that a function has called.
_NODE: Final = "branch:to:"
_PULLED: Final = "~__pregel_pull, "
_CALLED: Final = "~__pregel_push, ~"


class Standing(Enum):
    """The state of an interrupt of a thread."""

    OPEN = auto()  # its task takes the answer by the question's id
    ASKED_ANEW = auto()  # the application has changed the state under it: its node asks again, under another id
    WITHOUT_ID = auto()  # a subgraph without checkpoints asked it, which LangGraph reaches by no id
    USED = auto()  # its task has taken an answer, and is over or has asked something else


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asking:
    """The interrupts of a task at one time, its answers so far, and its run."""

    ids: frozenset[str]
    answered: int
    run_id: str


@dataclass(slots=True)
class _Task:
    """The interrupts of one task in order, and the answers that it has taken."""

    path: str = ""
    asked: list[_Asking] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    finished_in: set[str] = field(default_factory=set)

    @property
    def waiting(self) -> frozenset[str]:
        return self.asked[-1].ids if self.asked and not self.finished_in else frozenset()

    def open_before(self, run_id: str) -> frozenset[str]:
        """Return what the task was asking before that run, whatever it has done since."""
        earlier = [one.ids for one in self.asked if one.run_id != run_id]
        return earlier[-1] if earlier and not self.finished_in - {run_id} else frozenset()

    def has_asked(self, question: str) -> bool:
        return any(question in one.ids for one in self.asked)

    def asks_again(self, question: str, run_id: str) -> bool:
        """Return whether the task has got its answer in that run and now asks something else under the same id.

        Tasks of older LangGraph versions do.
        """
        times = [one for one in self.asked if question in one.ids]
        earlier = [one.answered for one in times if one.run_id != run_id]
        return bool(earlier) and times[-1].run_id == run_id and times[-1].answered > earlier[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Graph:
    """One graph of a thread at the checkpoint where its tasks asked, which updates by the application may have
    *changed* since; ``next`` are the nodes that are next on top of those."""

    namespace: str
    saved: CheckpointTuple
    tasks: Mapping[str, _Task]
    next: Sequence[str]
    changed: bool

    @property
    def checkpoint_id(self) -> str:
        return str(self.saved.checkpoint["id"])

    @property
    def moved_on(self) -> bool:
        """Return whether it is working and has no open interrupt."""
        return bool(self.next) and not any(task.waiting for task in self.tasks.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Where a question stands: the graphs from the root to the one whose task has asked it."""

    standing: Standing
    path: Sequence[_Graph] = ()
    task_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """LangGraph's command for the answers that a run brings; *checked* says that all were asked for."""

    value: Any
    checked: bool = False


class Questions:
    """The questions of a thread, as they stood before a run and as they stand now."""

    def __init__(self, saver: Any, thread_id: str, run_id: str) -> None:
        self._saver = saver
        self._thread_id = thread_id
        self._run_id = run_id
        self._namespaces: list[Namespace] | None = None

    async def resume(self, at: RunnableConfig, value: Any, *, strict: bool = False) -> Resume:
        """Return what is left of the answers in *value* for the checkpoint that *at* addresses.

        What LangGraph refuses (several open questions and no id, and if *strict* ids that nobody asked) is returned as
        it is. A task that failed after it had taken an answer takes the new one in its place.
        """
        root = await self._graph("", at)
        if root is None:
            return Resume(value=value)
        before = {question for task in root.tasks.values() for question in task.open_before(self._run_id)}
        by_id = isinstance(value, dict) and all(_ID.fullmatch(key) for key in value)
        refused = by_id and strict and (not value or not value.keys() <= before)
        if refused or (not by_id and len(before) > 1):
            return Resume(value=value)
        left: dict[str, Any] = {}
        for question, answer in (value if by_id else dict.fromkeys(before, value)).items():
            found = await self._find(root, question)
            if found.standing in (Standing.ASKED_ANEW, Standing.WITHOUT_ID) and before == {question}:
                if found.standing is Standing.WITHOUT_ID or not await self._has_answered():
                    return Resume(value=answer, checked=True)
            elif found.standing is not Standing.USED:
                await self._take_back(found)
                left[question] = answer
        return Resume(value=left, checked=True)

    async def waits(self, at: RunnableConfig) -> bool:
        """Return whether a question that the thread shows has not been answered yet."""
        root = await self._graph("", at)
        shown = set() if root is None else {question for task in root.tasks.values() for question in task.waiting}
        for question in shown:
            assert root is not None
            if (await self._find(root, question)).standing is not Standing.USED:
                return True
        return False

    async def _find(self, root: _Graph, question: str) -> _Found:
        path, below = [root], [root]
        while deeper := [one for one in below if any(task.has_asked(question) for task in one.tasks.values())]:
            path.append(deeper[0])
            asking = [task_id for task_id, task in deeper[0].tasks.items() if task.has_asked(question)]
            below = await self._below(deeper[0], asking)
        path = path[1:]
        if not path:
            return _Found(standing=Standing.OPEN)  # nobody shows it: LangGraph finds out
        # a task that another one has called stands below it in the same graph
        task_id = max(asking, key=lambda one: len(path[-1].tasks[one].path))
        standing = await self._standing(path, below, task_id, question)
        return _Found(standing=standing, path=path, task_id=task_id)

    async def _standing(self, path: Sequence[_Graph], below: Sequence[_Graph], task_id: str, question: str) -> Standing:
        task = path[-1].tasks[task_id]
        if question not in task.waiting or task.asks_again(question, self._run_id):
            return Standing.USED
        if any(graph.changed for graph in path):
            return Standing.ASKED_ANEW if _is_asked_anew(path, task) else Standing.USED
        if _is_own(path[-1], task_id, question):
            return Standing.OPEN
        if any(graph.moved_on for graph in below) or await self._was_asked_in(below, question):
            return Standing.USED
        return Standing.WITHOUT_ID

    async def _take_back(self, found: _Found) -> None:
        """Take back an answer that the asking task has taken and stored, and not finished with."""
        if not found.path:
            return
        graph, task = found.path[-1], found.path[-1].tasks[found.task_id]
        kept = task.answers[: task.asked[-1].answered]
        if len(kept) < len(task.answers):
            await self._saver.aput_writes(graph.saved.config, [(RESUME, kept)], found.task_id, task.path)

    async def _has_answered(self) -> bool:
        """Return whether a task has taken an answer in this run."""
        calls = await self._saver.written_by(self._thread_id, self._run_id)
        return any(channel == RESUME for call in calls for channel, _ in call.writes)

    async def _was_asked_in(self, graphs: Sequence[_Graph], question: str) -> bool:
        for graph in graphs:
            tasks = _tasks(await self._saver.written(self._thread_id, graph.namespace))
            if any(task.has_asked(question) for task in tasks.values()):
                return True
        return False

    async def _below(self, graph: _Graph, task_ids: Collection[str]) -> list[_Graph]:
        """Return the subgraphs that these tasks of *graph* have called."""
        if self._namespaces is None:
            self._namespaces = await namespaces(self._saver, self._thread_id)
        above = Namespace(text=graph.namespace).nodes
        found = []
        for namespace in self._namespaces:
            remembered = namespace.remembered and namespace.nodes[:-1] == above
            if not remembered and not any(_is_called_by(task_id, namespace.text) for task_id in task_ids):
                continue
            at = {"thread_id": self._thread_id, "checkpoint_ns": namespace.text}
            one = await self._graph(namespace.text, {"configurable": at})
            around = {} if one is None else one.saved.metadata.get("parents") or {}
            if one is not None and (not remembered or around.get(graph.namespace) == graph.checkpoint_id):
                found.append(one)
        return found

    async def _graph(self, namespace: str, at: RunnableConfig) -> _Graph | None:
        head = saved = await self._saver.aget_tuple(at)
        while saved is not None:
            tasks = _tasks(await self._saver.written(self._thread_id, namespace, saved.checkpoint["id"]))
            asked = any(task.asked for task in tasks.values())
            if asked or saved.parent_config is None or saved.metadata.get("source") not in ("update", "fork"):
                changed = saved is not head
                return _Graph(namespace=namespace, saved=saved, tasks=tasks, next=_next(head), changed=changed)
            saved = await self._saver.aget_tuple(saved.parent_config)
        return None


def _tasks(calls: Sequence[TaskWrites]) -> dict[str, _Task]:
    """Return the tasks that made *calls* of put_writes, by their ids."""
    tasks: dict[str, _Task] = {}
    for call in calls:
        if call.task_id == COMMAND_TASK_ID:
            continue
        task = tasks.setdefault(call.task_id, _Task(path=call.task_path))
        written = dict(call.writes)
        answers = written.get(RESUME, [])
        if RESUME in written:
            task.answers = answers if isinstance(answers, list) else [answers]
        if INTERRUPT in written:
            asked = written[INTERRUPT] if isinstance(written[INTERRUPT], (list, tuple)) else [written[INTERRUPT]]
            ids = frozenset(one.id for one in asked)
            number = len(task.answers) if RESUME in written else 0
            task.asked.append(_Asking(ids=ids, answered=number, run_id=call.run_id))
        if not written.keys() <= _UNFINISHED:
            task.finished_in.add(call.run_id)
    return tasks


def _next(saved: CheckpointTuple) -> list[str]:
    """Return the nodes that are next at a checkpoint, with an empty name for each task that was sent."""
    values = saved.checkpoint["channel_values"]
    return [name.removeprefix(_NODE) for name in values if name.startswith(_NODE)] + [""] * len(values.get(TASKS) or ())


def _is_asked_anew(path: Sequence[_Graph], task: _Task) -> bool:
    """Return whether the first thing to be asked, after updates by the application, is what *task* had asked first."""
    *around, graph = path
    alone = all(len(one.next) == 1 for one in path) and task.path == _PULLED + graph.next[0]
    return alone and not any(one.changed for one in around) and task.asked[-1].answered == 0


def _is_own(graph: _Graph, task_id: str, question: str) -> bool:
    """Return whether a task has asked *question* itself, and no graph without checkpoints that it has called."""
    task = graph.tasks[task_id]
    if task.path.startswith(_CALLED):
        return True  # a task of the functional API, whose name is not stored
    if task.path.startswith(_PULLED):
        names = {task.path.removeprefix(_PULLED)}
    else:
        names = {sent.node for sent in graph.saved.checkpoint["channel_values"].get(TASKS) or ()}
    prefix = f"{graph.namespace}|" if graph.namespace else ""
    places = [f"{prefix}{name}:{task_id}" for name in names]
    numbered = [f"{place}|{number}" for place in places for number in range(1, len(task.answers) + 1)]
    return any(Interrupt.from_ns(None, place).id == question for place in (*places, *numbered))


def _is_called_by(task_id: str, namespace: str) -> bool:
    """Return whether the graph in *namespace* was called by the task, and by no graph that the task has called."""
    parts = namespace.split("|")
    at = next((index for index, part in enumerate(parts) if part.endswith(f":{task_id}")), None)
    return at is not None and all(part.isdigit() for part in parts[at + 1 :])
