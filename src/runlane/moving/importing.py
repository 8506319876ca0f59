"""Importing what LangGraph's PostgreSQL checkpointer and store, and Aegra, have stored.

The source is read as of one instant, and nothing is written there. Each thread is one transaction with its history,
which checks that all of it is there. What is in the ledger already stays as it is, so an import can be repeated.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from uuid import UUID

from runlane.admission import THREAD_ID
from runlane.checkpoints.items import SEPARATOR, encode_value
from runlane.checkpoints.serializer import LedgerSerializer
from runlane.errors import CheckpointUnreadable, InvalidRequest, NotFound
from runlane.lifecycle import ThreadStatus
from runlane.moving import aegra
from runlane.moving.imported import ImportedThread, put_assistant, put_cron, put_items, put_thread
from runlane.moving.langgraph_rows import Converter
from runlane.moving.source import Source
from runlane.moving.state import ShownState, shown_state
from runlane.records import NO_OWNER, Json, ThreadTtl
from runlane.store.rows import microseconds
from runlane.store.statements import Driver, Row, Transaction

Kind = Literal["aegra", "langgraph-postgres"]
#: Is told how many threads are done, and how many there are.
Progress = Callable[[int, int], None]

NO_GRAPH: Final = "threads without a graph, so that the server cannot read their state: name it with --graph"
#: Items that one transaction stores.
BATCH: Final = 500
_MINUTE_US: Final = 60_000_000


@dataclass(slots=True, kw_only=True)
class ImportReport:
    """What was found and written, by kind, and what was not imported, by reason."""

    found: Counter[str] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)
    there: Counter[str] = field(default_factory=Counter)
    notes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


class Importer:
    """One import. Without a *driver* everything is read and converted, and nothing is written."""

    def __init__(
        self, source: Source, driver: Driver | None, *, owner: str = NO_OWNER, graph_id: str | None = None
    ) -> None:
        """Args:
        owner: Whose is what belongs to nobody in particular.
        graph_id: The graph of threads of which the source does not say it.
        """
        self._source = source
        self._driver = driver
        self._owner = owner
        self._graph_id = graph_id
        self._serde = LedgerSerializer()
        self._converter = Converter(self._serde)
        self.report = ImportReport()

    async def langgraph(self, progress: Progress) -> None:
        """Import the threads of LangGraph's checkpointer, and the items of its store if there is one.

        Raises:
            ConfigurationError: There are none of a known version.
        """
        self._source.check_checkpoints()
        thread_ids = self._source.threads()
        for done, thread_id in enumerate(thread_ids):
            progress(done, len(thread_ids))
            await self._thread(thread_id, None, None)
        progress(1, 1)
        await self._items(lambda prefix: (self._owner, prefix))

    async def aegra(self, progress: Progress) -> None:
        """Import assistants, threads, items and crons of Aegra.

        Raises:
            ConfigurationError: There are none of a known version.
        """
        self._source.check_checkpoints()
        self._source.check_aegra()
        assistants = {row["assistant_id"]: row for row in self._source.table("assistant")}
        await self._assistants(assistants)
        ttls = {row["thread_id"]: aegra.ttl_of(row) for row in self._optional("thread_ttl")}
        rows = list(self._source.table("thread"))
        for done, row in enumerate(rows):
            progress(done, len(rows))
            if row.get("is_ephemeral"):
                self._leave_out("threads", "thread of a stateless run", row["thread_id"])
            else:
                await self._thread(row["thread_id"], row, ttls.get(row["thread_id"]))
        progress(1, 1)
        listed = {row["thread_id"] for row in rows}
        for thread_id in self._source.threads():
            if thread_id not in listed:
                self._leave_out("threads", "checkpoints of a thread that Aegra does not list", thread_id)
        await self._items(lambda prefix: aegra.item_address(prefix, self._owner))
        await self._crons(assistants, {row["thread_id"]: row for row in rows})
        for row in self._optional("runs"):
            active = row["status"] in ("pending", "running")
            reason = "active run: start it again" if active else "ended run: its thread has its result"
            self._leave_out("runs", reason, row["run_id"])

    async def _thread(self, thread_id: str, row: Row | None, ttl: ThreadTtl | None) -> None:
        self.report.found["threads"] += 1
        if THREAD_ID.match(thread_id) is None:
            self._leave_out("threads", "an id that is not 1 to 64 letters, digits, '_' or '-'", thread_id)
            return
        try:
            thread = self._imported(thread_id, row, ttl)
        except CheckpointUnreadable as error:
            self._leave_out("threads", str(error), thread_id)
            return
        rows = len(thread.history.checkpoints)
        self.report.found["checkpoints"] += rows
        if not _is_uuid(thread_id):
            self.report.notes["threads that only the library reaches: their ids are no UUIDs"].append(thread_id)
        if self._driver is None:
            return
        made = await self._driver.write(put_thread(thread))
        counts = self.report.written if made else self.report.there
        counts["threads"] += 1
        counts["checkpoints"] += rows

    def _imported(self, thread_id: str, row: Row | None, ttl: ThreadTtl | None) -> ImportedThread:
        history = self._converter.rows(self._source.thread(thread_id))
        shown = shown_state(history, self._serde)
        metadata = self._metadata(shown, {} if row is None else row["metadata_json"] or {})
        if history.checkpoints and "graph_id" not in metadata:
            self.report.notes[NO_GRAPH].append(thread_id)
        status = ThreadStatus.IDLE if row is None else aegra.status_of(row)
        return ImportedThread(
            thread_id=thread_id,
            owner=self._owner if row is None else aegra.owner_of(row["user_id"], self._owner),
            status=ThreadStatus.INTERRUPTED if shown.interrupts else status,
            metadata=metadata,
            values=shown.values,
            interrupts=shown.interrupts,
            created_at=shown.first_at if row is None else aegra.instant_of(row["created_at"]),
            updated_at=shown.last_at if row is None else aegra.instant_of(row["updated_at"]),
            ttl=ttl,
            history=history,
        )

    def _metadata(self, shown: ShownState, said: Json) -> Json:
        """Return what the source has *said* of a thread, with the graph as far as it is known."""
        graph_id = said.get("graph_id") or self._graph_id or shown.metadata.get("graph_id")
        return said if graph_id is None else {**said, "graph_id": graph_id}

    async def _assistants(self, assistants: Mapping[str, Row]) -> None:
        versions: dict[str, list[Row]] = defaultdict(list)
        for version in self._optional("assistant_versions"):
            versions[version["assistant_id"]].append(version)
        for assistant_id, row in assistants.items():
            self.report.found["assistants"] += 1
            if aegra.is_of_graph(row):
                self._leave_out("assistants", "of a graph: the server makes its own, with the same id", assistant_id)
                continue
            columns = [aegra.version_columns(version, row) for version in versions[assistant_id]]
            await self._write("assistants", put_assistant(aegra.assistant_columns(row, self._owner), columns))

    async def _items(self, address: Callable[[str], tuple[str, str]]) -> None:
        batch: list[Row] = []
        for row in self._optional("store"):
            self.report.found["items"] += 1
            owner, prefix = address(row["prefix"])
            try:
                batch.append(_item(row, owner, prefix))
            except InvalidRequest as error:
                self._leave_out("items", str(error), f"{row['prefix']}/{row['key']}")
            if len(batch) == BATCH:
                await self._put_items(batch)
                batch = []
        await self._put_items(batch)

    async def _put_items(self, batch: list[Row]) -> None:
        if self._driver is not None and batch:
            written = await self._driver.write(put_items(batch))
            self.report.written["items"] += written
            self.report.there["items"] += len(batch) - written

    async def _crons(self, assistants: Mapping[str, Row], threads: Mapping[str, Row]) -> None:
        for row in self._optional("crons"):
            self.report.found["crons"] += 1
            thread = threads.get(row["thread_id"])
            thread_owner = None if thread is None else aegra.owner_of(thread["user_id"], self._owner)
            try:
                target, plan = aegra.cron_of(row, assistants[row["assistant_id"]], thread_owner, self._owner)
                await self._write("crons", put_cron(row["cron_id"], target, plan))
            except (InvalidRequest, NotFound) as error:
                self._leave_out("crons", str(error), row["cron_id"])

    async def _write(self, kind: str, transaction: Transaction[bool]) -> None:
        if self._driver is None:
            transaction.close()
            return
        counts = self.report.written if await self._driver.write(transaction) else self.report.there
        counts[kind] += 1

    def _optional(self, table: str) -> Iterable[Row]:
        return self._source.table(table) if self._source.has(table) else ()

    def _leave_out(self, kind: str, reason: str, name: str) -> None:
        self.report.left_out[f"{kind}: {reason}"].append(name)


def _item(row: Row, owner: str, prefix: str) -> Row:
    minutes, expires_at = row.get("ttl_minutes"), row.get("expires_at")
    return {
        "owner": owner,
        "namespace": prefix + SEPARATOR,
        "key": row["key"],
        "value": encode_value(row["value"]),
        "created_at": microseconds(aegra.instant_of(row["created_at"])),
        "updated_at": microseconds(aegra.instant_of(row["updated_at"])),
        "ttl_us": None if minutes is None else minutes * _MINUTE_US,
        "expires_at": None if expires_at is None else microseconds(aegra.instant_of(expires_at)),
    }


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
