"""Real processes that embed the library on one PostgreSQL ledger, their readers, and what must be true of both."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acceptance.kit import RUN_LIMIT_S, Program, env_of
from runlane.lifecycle import RunStatus
from runlane.records import ANY_OWNER, RunRecord, StreamEvent
from runlane.store.drivers.postgres import open_postgres
from runlane.store.ledger import RunStore

SCRIPT = Path(__file__).parent / "library_process.py"


class Library(Program):
    """A process of ``library_process.py``."""

    READY = "library.ready"

    def __init__(self, folder: Path, url: str, **settings: Any) -> None:
        env = env_of({"database": url, **settings})
        super().__init__([sys.executable, "-P", str(SCRIPT)], env, effects=folder / "effects", takes_input=True)
        self._numbers = itertools.count()
        self._answers: dict[int, asyncio.Queue[Any]] = {}

    async def _tell(self, line: str | None) -> None:
        if line is not None and line.startswith("["):
            number, what = json.loads(line)
            self._answers[number].put_nowait(what)
            return
        await super()._tell(line)
        if line is None:
            for answers in self._answers.values():
                answers.put_nowait(None)

    def request(self, what: str, **arguments: Any) -> asyncio.Queue[Any]:
        """Ask the process for something, and return the queue of its answers; ``None`` says that it has ended."""
        assert self._process is not None
        assert self._process.stdin is not None
        number = next(self._numbers)
        self._answers[number] = answers = asyncio.Queue()
        self._process.stdin.write(json.dumps({"do": what, "number": number, **arguments}).encode() + b"\n")
        return answers

    async def ask(self, what: str, **arguments: Any) -> Any:
        """Ask the process for something and return its answer."""
        async with asyncio.timeout(RUN_LIMIT_S):
            answer = await self.request(what, **arguments).get()
        assert answer is not None, f"the process has ended: {self.log}"
        return answer

    async def close(self) -> None:
        """Let the process end by itself; it must do so without an error."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert await self.ended() == 0, self.log


@dataclass(slots=True)
class Viewer:
    """Follows the stream of a run through one process and, once that has ended, from there on through *other*."""

    run_id: str
    library: Library
    other: Library
    items: list[dict[str, Any]] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def follow(self) -> None:
        """Read the stream to its end."""
        answers = self.library.request("watch", run_id=self.run_id, after=self.last)
        while not self.ended:
            item = await answers.get()
            if item is None:
                answers = self.other.request("watch", run_id=self.run_id, after=self.last)
                continue
            async with self.news:
                self.items.append(item)
                self.news.notify_all()

    @property
    def last(self) -> int:
        return self.items[-1]["seq"] if self.items else 0

    @property
    def ended(self) -> bool:
        return bool(self.items) and self.items[-1]["name"] == "end"

    @property
    def kept(self) -> int:
        """The last step that was seen to be kept."""
        return max((item["data"]["step"] for item in self.items if item["name"] == "kept"), default=0)

    @property
    def attempt(self) -> int:
        """The last attempt that was seen to begin."""
        return max((item["data"]["attempt"] for item in self.items if item["name"] == "metadata"), default=0)

    async def sees(self, condition: Callable[[], bool]) -> None:
        """Wait until *condition* holds of what was seen, or the stream is over."""
        async with asyncio.timeout(RUN_LIMIT_S), self.news:
            await self.news.wait_for(lambda: condition() or self.ended)


class Ledger:
    """What the processes share, seen from outside of them: the database, and the file of effects."""

    def __init__(self, store: RunStore, effects: Path) -> None:
        self.store, self._effects = store, effects

    async def run(self, run_id: str) -> RunRecord:
        return await self.store.runs.get(run_id, owner=ANY_OWNER)

    async def log(self, run: RunRecord) -> list[StreamEvent]:
        """Return all events of a run."""
        events: list[StreamEvent] = []
        while page := await self.store.events.read(run.seq, after=events[-1].seq if events else 0):
            events.extend(page)
        return events

    async def rows(self, run_ids: Iterable[str]) -> list[Any]:
        """Return all that there is of these runs and their threads."""
        runs = [await self.run(run_id) for run_id in run_ids]
        threads = [await self.store.threads.get(run.thread_id, owner=ANY_OWNER) for run in runs]
        return [runs, threads, [await self.log(run) for run in runs]]

    def traces(self) -> list[tuple[str, str, int]]:
        """Return what the agents did, in the order in which they did it: name of a run, what, number of the attempt."""
        lines = (line.split() for line in self._effects.read_text().splitlines())
        return [(name, what, int(attempt)) for name, what, attempt in lines]

    def check_lane(self, names: Sequence[str]) -> None:
        """Check that the runs of a thread, in the order of their admission, executed one after the other."""
        executing: set[str] = set()
        turns = []
        for name, what, _ in self.traces():
            if name in names and what == "enter":
                assert not executing, f"{name} was begun while {executing} executed"
                executing.add(name)
                turns.append(names.index(name))
            elif name in names and what == "leave":
                executing.remove(name)
        assert turns == sorted(turns), f"not in the order of admission: {turns}"

    async def check_run(self, run_id: str, viewers: Sequence[Viewer]) -> int:
        """Check a run that was to make all its steps, and its streams; return how many steps were started twice."""
        run = await self.run(run_id)
        assert run.status is RunStatus.SUCCESS, run
        log = await self.log(run)
        assert [event.seq for event in log] == list(range(1, len(log) + 1)), log
        shown = [{"seq": event.seq, "name": event.name, "data": json.loads(event.data)} for event in log]
        attempts = [event["data"]["attempt"] for event in shown]
        assert attempts == sorted(attempts), f"an attempt wrote after the next one had begun: {shown}"
        kept = {event["data"]["step"]: event["data"]["attempt"] for event in shown if event["name"] == "kept"}
        given = run.kwargs["input"]
        assert [event["data"]["step"] for event in shown if event["name"] == "kept"] == list(
            range(1, given["steps"] + 1)
        )
        starts = [
            (int(what), attempt) for name, what, attempt in self.traces() if name == given["name"] and what.isdigit()
        ]
        assert {step for step, _ in starts} == set(kept)
        for step, attempt in starts:
            assert attempt <= kept[step], (
                f"attempt {attempt} made step {step} again, which {kept[step]} had kept: {starts}"
            )
        end = {"seq": len(log) + 1, "name": "end", "data": {"status": "success"}}
        for viewer in viewers:
            assert viewer.items == [*shown, end], "the stream had a gap, a repetition or another end"
        return len(starts) - len(kept)


@dataclass(frozen=True, slots=True)
class Two:
    """Two processes on one ledger, and a view of it."""

    ledger: Ledger
    first: Library
    second: Library

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Let both go on after the block, and show their logs if it fails."""
        try:
            yield
        except BaseException:
            for library in (self.first, self.second):
                library.send(signal.SIGCONT)
                sys.stdout.write(f"{library.log}\n\n")
            raise


@asynccontextmanager
async def two_libraries(folder: Path, url: str, **settings: Any) -> AsyncIterator[Two]:
    """Give two processes that were started at once on an empty database, and end by themselves."""
    async with Library(folder, url, **settings) as first, Library(folder, url, **settings) as second:
        await asyncio.gather(first.start(), second.start())
        driver = await open_postgres(url)
        yield Two(Ledger(RunStore(driver), first.effects), first, second)
        await driver.aclose()
        await asyncio.gather(first.close(), second.close())
