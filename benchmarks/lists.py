"""Measure what the console's lists ask of the server beside many runs, as an operator and as an owner.

Makes runs, threads, crons, deliveries of webhooks, acts of operators, items, assistants, views and workers by SQL,
straight into the tables; then asks the server's application, in this process and without a network, what the pages ask
(console/src/pages), and prints milliseconds. An owner of half of all asks, and one of a thousandth.

    python benchmarks/lists.py --runs 1000000             # an SQLite file in a temporary folder
    python benchmarks/lists.py --runs 1000000 --postgres  # a PostgreSQL server of its own
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, TypedDict

import httpx
from filling import analyse, batches, filled, in_batches, main, number_of, numbered, timed, with_threads
from langgraph.graph import START, StateGraph
from totals import USAGE, count_all, fill_totals

from runlane.agents.registry import Registry
from runlane.server.app import create_app
from runlane.server.auth.keys import new_key
from runlane.settings import Settings
from runlane.store.ledger import RunStore
from runlane.store.rows import microseconds
from runlane.store.statements import Driver, Transaction

#: What there is, whatever the number of runs; of it, the first owner has half.
ASKING, WAITING, WORKERS = 1_000, 5_000, 20
CRONS, DELIVERIES, ACTS, ITEMS, ASSISTANTS, VERSIONS, VIEWS = 10_000, 100_000, 100_000, 100_000, 1_000, 50, 100
OWNERS, GRAPHS, BUILDS, MODELS, FAILS, DAYS = 1_000, 5, 30, 3, 50, 30
RUNS_OF_THREAD: Final = 5
BIG, SMALL, OPERATOR = "owner-0", "owner-17", "ann"
HOUR_US: Final = 3_600_000_000


def _id(kind: int, number: str) -> str:
    """Return the SQL of a UUID."""
    return f"'{kind:08}-0000-4000-8000-' || substr(CAST(1000000000000 + {number} AS TEXT), 2)"


def _owner(number: str) -> str:
    return f"CASE WHEN {number} % 2 = 0 THEN '{BIG}' ELSE 'owner-' || ({number} / 2 % {OWNERS - 1} + 1) END"


def _graph(number: str) -> str:
    return f"'graph-' || ({number} / 3 % {GRAPHS})"


def _metadata(thread: str) -> str:
    return f"""'{{"graph_id":"' || {_graph(thread)} || '","assistant_id":"' || {_id(2, f"{thread} % 100")}
        || '","user":"u' || {thread} || '"}}'"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """The SQL of what a run has that is the number *run* of all, and belongs to the thread with the number *thread*."""

    run: str
    thread: str

    @property
    def asks(self) -> str:
        """Whether it is the last run of its thread, and waits for a person."""
        return f"({self.thread} % :each = 1 AND {self.run} >= :total - :threads)"

    @property
    def failed(self) -> str:
        return f"({self.run} % {FAILS} = 0 AND NOT {self.asks})"

    @property
    def ended_at(self) -> str:
        return f":begun + {self.run} * :every"

    @property
    def error(self) -> str:
        kind = f"substr('abcdefghijklmnopqrst', CAST({self.run} / {FAILS} % 20 + 1 AS INTEGER), 1)"
        return f"""CASE WHEN {self.failed} THEN '{{"error":"ValueError","message":"failure of kind ' || {kind}
            || ' for user ' || {self.run} || '"}}' END"""


_RUN: Final = _Run(run="n", thread="(n % :threads)")
#: The last run of a thread.
_LAST: Final = _Run(run="(:total - :threads + n)", thread="n")
_AT: Final = _RUN.ended_at
FILL_RUNS: Final = numbered(
    "runs",
    "run_id, thread_id, owner, graph_id, assistant_id, build, status, end_reason, worker_id, attempt, start_order, "
    "multitask_strategy, on_disconnect, metadata, kwargs, usage, error, not_before, created_at, updated_at, "
    "started_at, ended_at, model_name, counted, log_purged",
    f"""{_id(0, "n")}, {_id(1, _RUN.thread)}, {_owner(_RUN.thread)}, {_graph(_RUN.thread)},
    {_id(2, f"{_RUN.thread} % 100")}, 'build-' || (n * {BUILDS} / :total),
    CASE WHEN {_RUN.failed} THEN 'error' ELSE 'success' END,
    CASE WHEN {_RUN.asks} THEN 'paused' WHEN {_RUN.failed} THEN 'failed' ELSE 'completed' END,
    'worker-' || (n % {WORKERS}), 1, n + 1, 'enqueue', 'cancel', {_metadata(_RUN.thread)}, '{{}}', {USAGE},
    {_RUN.error}, {_AT} - 2000000, {_AT} - 2000000, {_AT}, {_AT} - 1900000, {_AT}, 'model-' || (n % {MODELS}),
    CASE WHEN {_RUN.failed} THEN 0 ELSE 1 END, 1""",
)
_MESSAGE: Final = "x" * 500
FILL_THREADS: Final = numbered(
    "threads",
    "thread_id, owner, status, settled, metadata, config, state_values, interrupts, error, created_at, updated_at, "
    "state_updated_at",
    f"""{_id(1, "n")}, {_owner("n")},
    CASE WHEN {_LAST.asks} THEN 'interrupted' WHEN {_LAST.failed} THEN 'error' ELSE 'idle' END, 'idle',
    {_metadata("n")}, '{{}}', '{{"messages":[{{"type":"human","content":"message ' || n || ' {_MESSAGE}"}}]}}',
    CASE WHEN {_LAST.asks} THEN '{{"task":[{{"id":"' || n || '","value":{{"question":"Send it?"}}}}]}}' ELSE '{{}}' END,
    {_LAST.error}, :begun + n * :every, {_LAST.ended_at}, {_LAST.ended_at}""",
)
FILL_WAITING: Final = numbered(
    "runs",
    "run_id, thread_id, owner, graph_id, assistant_id, status, multitask_strategy, on_disconnect, metadata, kwargs, "
    "not_before, created_at, updated_at",
    f"""{_id(3, "n")}, {_id(4, "n")}, {_owner("n")}, {_graph("n")}, {_id(2, "0")}, 'pending', 'enqueue', 'cancel',
    '{{}}', '{{}}', :now + n, :now + n, :now + n""",
)
FILL_BUSY_THREADS: Final = numbered(
    "threads",
    "thread_id, owner, status, settled, metadata, config, interrupts, created_at, updated_at, state_updated_at",
    f"{_id(4, 'n')}, {_owner('n')}, 'busy', 'idle', '{{}}', '{{}}', '{{}}', :now + n, :now + n, :now + n",
)
#: They have no lease that could end.
FILL_WORKERS: Final = numbered(
    "workers",
    "worker_id, beats, lease_us, expires_at, build, capacity, started_at, host, pid, version",
    f"'worker-' || n, 1, {HOUR_US * 100}, :now + {HOUR_US * 100}, 'build-{BUILDS - 1}', 10, :now, 'host', n, '1'",
)
FILL_CRONS: Final = numbered(
    "crons",
    "cron_id, owner, permissions, assistant_id, assistant_owner, schedule, payload, metadata, missed, overlap, "
    "enabled, next_run_at, last_run_id, recent_run_ids, revision, created_at, updated_at",
    f"""{_id(5, "n")}, {_owner("n")}, '[]', {_id(2, "0")}, '', '0 0 * * *', '{{}}', '{{}}', 'skip', 'skip',
    CASE WHEN n % 10 = 0 THEN 0 ELSE 1 END, CASE WHEN n % 10 = 0 THEN NULL ELSE :now + {HOUR_US} * 20 END,
    {_id(0, "n")}, '["' || {_id(0, "n")} || '","' || {_id(0, "(n + 1)")} || '"]', 1, :now - n * 1000,
    :now - n * 1000""",
)
FILL_DELIVERIES: Final = numbered(
    "webhook_deliveries",
    "run_id, thread_id, owner, metadata, url, host, run, omitted, status, attempts, tries, next_at, created_at, "
    "ended_at",
    f"""{_id(0, "n")}, {_id(1, "n")}, {_owner("n")}, '{{}}', 'https://hooks.example/told', 'hooks.example',
    '{{"about":"{_MESSAGE}"}}', '[]',
    CASE WHEN n % 1000 = 5 THEN 'pending' WHEN n % 100 = 1 THEN 'failed' ELSE 'delivered' END, 1, 1,
    :now + {HOUR_US} * 20, :now - ({DELIVERIES} - n) * 100000,
    CASE WHEN n % 1000 = 5 THEN NULL ELSE :now - ({DELIVERIES} - n) * 100000 END""",
)
FILL_ATTEMPTS: Final = numbered(
    "webhook_attempts",
    "run_id, number, sent_at, duration_us, status_code",
    f"{_id(0, 'n')}, 1, :now, 1000, 200",
)
FILL_ACTS: Final = numbered(
    "audit",
    "audit_id, recorded_at, actor, key_id, action, route, subject, status",
    f"""CAST(:audit_id AS TEXT) || {number_of("", "n")}, :now - {HOUR_US}, 'operator-' || (n % 7), 'key',
    CASE WHEN n % 10000 = 3 THEN 'keys.read' ELSE 'threads.cancel' END, 'POST /runs/cancel',
    '{{"run_id":"' || {_id(0, "n")} || '"}}', 200""",
)
FILL_ITEMS: Final = numbered(
    "store_items",
    "owner, namespace, key, value, created_at, updated_at",
    f"{_owner('n')}, 'users.u' || (n / 100) || '.', 'key-' || n, :value, :now - n, :now - n",
)
FILL_ASSISTANTS: Final = numbered(
    "assistants",
    "assistant_id, owner, version, graph_id, name, config, context, metadata, created_at, updated_at",
    f"""{_id(2, "n")}, {_owner("n")}, {VERSIONS}, {_graph("n")}, 'Assistant ' || n, '{{}}', '{{}}', '{{}}',
    :now - n, :now - n""",
)
FILL_VERSIONS: Final = numbered(
    "assistant_versions",
    "assistant_id, version, graph_id, name, config, context, metadata, created_at",
    f"""{_id(2, f"n / {VERSIONS}")}, n % {VERSIONS} + 1, {_graph(f"(n / {VERSIONS})")}, 'Assistant', '{{}}', '{{}}',
    '{{}}', :now""",
)
FILL_VIEWS: Final = numbered(
    "saved_views",
    "by_operator, owner, page, name, query, shared, revision, updated_at",
    f"""CASE WHEN n % 1000 = 0 THEN 1 ELSE 0 END, 'owner-' || (n / {VIEWS}),
    CASE WHEN n % 2 = 0 THEN 'runs' ELSE 'threads' END, 'View ' || n, 'status=error',
    CASE WHEN n % 1000 = 0 THEN 1 ELSE 0 END, 1, :now""",
)


#: How many there are of what is no run.
OTHERS: Final = {
    FILL_CRONS: CRONS,
    FILL_DELIVERIES: DELIVERIES,
    FILL_ATTEMPTS: DELIVERIES,
    FILL_ACTS: ACTS,
    FILL_ITEMS: ITEMS,
    FILL_ASSISTANTS: ASSISTANTS,
    FILL_VERSIONS: ASSISTANTS * VERSIONS,
    FILL_VIEWS: OWNERS * VIEWS,
}
VALUE: Final = json.dumps({"rain": False, "text": "x" * 200}).encode()
#: What the pages select, and how they sort.
SUMMARY: Final = (
    "thread_id",
    "created_at",
    "updated_at",
    "state_updated_at",
    "metadata",
    "status",
    "interrupts",
    "error",
)
NEWEST_CHANGE: Final = {"sort_by": "updated_at", "sort_order": "desc"}
PRICES: Final = '["model-0"]\ninput = 3.0\noutput = 15.0\n'
NOWHERE: Final = "00000000-0000-4000-8000-000000000000"
SCOPES: Final = ("admin", "payload:read")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """How large it is, and when its last run ended."""

    runs: int
    now: int = field(default_factory=lambda: microseconds(datetime.now(UTC)))

    @property
    def threads(self) -> int:
        return max(2, self.runs // RUNS_OF_THREAD)

    def params(self) -> dict[str, int]:
        every = DAYS * 24 * HOUR_US // self.runs
        return {
            "total": self.runs,
            "threads": self.threads,
            "each": max(2, self.threads // ASKING),
            "every": every,
            "begun": self.now - every * self.runs,
        }


async def fill(driver: Driver, ledger: Ledger) -> None:
    """Make all but what waits, which a server that starts would execute."""
    size = ledger.params()
    for batch in batches(FILL_RUNS, ledger.runs, **size):
        await driver.write(batch)
    await driver.write(with_threads(driver, in_batches(FILL_THREADS, ledger.threads, **size)))
    await driver.write(fill_totals(ledger.now))
    for one, number in OTHERS.items():
        await driver.write(
            in_batches(one, number, now=ledger.now, value=VALUE, audit_id=f"{ledger.now - HOUR_US:014x}")
        )
    await count_all(RunStore(driver))
    await analyse(driver)


async def fill_waiting(driver: Driver, ledger: Ledger) -> None:
    def waiting() -> Transaction[None]:
        yield from in_batches(FILL_WORKERS, WORKERS, now=ledger.now)
        yield from in_batches(FILL_BUSY_THREADS, WAITING, now=ledger.now)
        yield from in_batches(FILL_WAITING, WAITING, now=ledger.now)

    await driver.write(waiting())
    await analyse(driver)


class State(TypedDict, total=False):
    messages: list[Any]


@asynccontextmanager
async def serving(database: str, ledger: Ledger) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """Give clients of the server, by who asks. Its one slot is taken, so that it executes nothing that waits."""
    begun = threading.Event()

    async def sleep(state: State) -> State:
        begun.set()
        await asyncio.sleep(86_400)
        return state

    graph = StateGraph(State).add_node("sleep", sleep).add_edge(START, "sleep")
    graphs = {f"graph-{number}": graph.compile() for number in range(GRAPHS)}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        keys, prices = folder / "keys", folder / "prices.toml"
        prices.write_text(PRICES)
        given = {BIG: new_key(BIG, keys), SMALL: new_key(SMALL, keys), OPERATOR: new_key(OPERATOR, keys, scopes=SCOPES)}
        settings = Settings(
            database=database, api_keys=str(keys), prices=str(prices), max_concurrent_runs=1, drain_grace_s=0
        )
        app = create_app(None, settings, registry=Registry.from_graphs(graphs), loopback=True)
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx.ASGITransport(app.state.front)
        clients = {
            name: await stack.enter_async_context(
                httpx.AsyncClient(
                    transport=transport, base_url="http://server", headers={"x-api-key": key}, timeout=600
                )
            )
            for name, key in given.items()
        }
        thread = (await clients[BIG].post("/threads", json={})).json()["thread_id"]
        run = (
            await clients[BIG].post(
                f"/threads/{thread}/runs", json={"assistant_id": "graph-0", "input": {"messages": ["hello"]}}
            )
        ).json()["run_id"]
        await asyncio.to_thread(begun.wait)
        await fill_waiting(app.state.service.store.driver, ledger)
        yield clients
        await clients[BIG].post(f"/threads/{thread}/runs/{run}/cancel", params={"wait": "true"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request of a page; *deep* is what it has more where somebody has asked for more, again and again."""

    page: str
    route: str
    body: Mapping[str, Any] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    deep: Mapping[str, Any] | None = None


def asked_by_all(ledger: Ledger) -> Iterator[Asked]:
    """Yield what the pages of owners and of operators ask."""
    params, day = ledger.params(), datetime.fromtimestamp(ledger.now / 1_000_000, UTC) - timedelta(days=1)
    runs = partial(Asked, route="POST /runs/search", deep={"after": str(ledger.runs // 10)})
    for name, where in {
        "all": {},
        "active": {"status": ["pending", "running"]},
        "failed": {"status": ["error", "timeout"]},
        "waiting for a person": {"end_reason": ["paused"]},
        "cancelled": {"end_reason": ["user_cancel", "rolled_back"]},
        "waits:lane": {"waits_for": "run"},
        "graph": {"graph_id": "graph-3"},
        "assistant": {"assistant_id": "00000002-0000-4000-8000-000000000017"},
        "version": {"build": "build-3"},
        "worker": {"worker_id": "worker-3"},
        "age:>1d": {"until": day.isoformat()},
        "age:<1d": {"since": day.isoformat()},
        "tokens:>50k": {"min_tokens": 50_000},
        "cost:>1": {"min_cost": 1},
        "text": {"text": "no such text"},
    }.items():
        yield runs(page=f"runs, {name}", body={**where, "limit": 100})
    threads = partial(Asked, route="POST /threads/search")
    newest = {"sort_by": "updated_at", "sort_order": "desc", "limit": 100, "select": SUMMARY, "after": ""}
    for name, where in {
        "all": {},
        "busy": {"status": "busy"},
        "waiting for a person": {"status": "interrupted"},
        "failed": {"status": "error"},
        "graph": {"metadata": {"graph_id": "graph-3"}},
        "assistant": {"metadata": {"assistant_id": "00000002-0000-4000-8000-000000000017"}},
        "metadata": {"metadata": {"user": "u17"}},
        "metadata that none has": {"metadata": {"user": "none"}},
        "sort:created": {"sort_by": "created_at"},
        "graph, sort:created": {"sort_by": "created_at", "metadata": {"graph_id": "graph-3"}},
        "failed, sort:created": {"sort_by": "created_at", "status": "error"},
    }.items():
        begun = params["begun"] + params["every"] * ledger.threads // 10
        place = begun if "created" in name else begun + params["every"] * (ledger.runs - ledger.threads)
        yield threads(page=f"threads, {name}", body={**newest, **where}, deep={"after": f"{place}.x"})
    thread = f"00000001-0000-4000-8000-{ledger.threads // 2:012}"
    yield Asked(page="thread, its runs", route="POST /runs/search", body={"thread_id": thread, "limit": 100})
    yield threads(page="thread, itself", body={"ids": [thread], "limit": 1, "select": SUMMARY})
    yield Asked(page="inbox", route="POST /interrupts/search", body={"limit": 50})
    yield Asked(page="inbox, the most of a page", route="POST /interrupts/search", body={"limit": 200})
    yield Asked(page="inbox, answered last", route="POST /interrupts/answered", body={"limit": 5})
    yield Asked(
        page="assistants", route="POST /assistants/search", body={**NEWEST_CHANGE, "limit": 100}, deep={"limit": 1000}
    )
    yield Asked(
        page="assistants, graph",
        route="POST /assistants/search",
        body={**NEWEST_CHANGE, "graph_id": "graph-3", "limit": 100},
    )
    yield Asked(
        page="assistants, name", route="POST /assistants/search", body={**NEWEST_CHANGE, "name": "17", "limit": 100}
    )
    for name, where in {"all": {}, "on": {"enabled": True}, "paused": {"enabled": False}}.items():
        yield Asked(
            page=f"crons, {name}",
            route="POST /runs/crons/search",
            body={**where, "limit": 50},
            deep={"offset": CRONS // 3},
        )
    newest_runs = [f"00000000-0000-4000-8000-{number:012}" for number in range(0, 2500, 10)]
    yield Asked(page="crons, outcomes", route="POST /runs/search", body={"run_ids": newest_runs, "limit": 250})
    place = f"{ledger.now - 2 * DELIVERIES // 3 * 100_000}.00000000-0000-4000-8000-000000000000"
    for status in ("", "failed", "pending", "delivered"):
        query = {"limit": 50, **({"delivery_status": status} if status else {})}
        yield Asked(page=f"webhooks, {status or 'all'}", route="GET /webhooks", query=query, deep={"after": place})
    yield Asked(page="views", route="GET /views", query={"page": "runs"})
    yield Asked(page="me", route="GET /me")


def asked_by_owners(ledger: Ledger) -> Iterator[Asked]:
    since = datetime.fromtimestamp(ledger.now / 1_000_000, UTC) - timedelta(days=1)
    active = {"status": ["pending", "running"], "limit": 100}
    yield Asked(page="overview, active", route="POST /runs/search", body=active)
    yield Asked(page="overview, last", route="POST /runs/search", body={"limit": 10})
    failures = {"status": ["error", "timeout"], "since": since.isoformat(), "limit": 100}
    yield Asked(page="overview, failures", route="POST /runs/search", body=failures)
    yield Asked(page="overview, failed threads", route="POST /threads/count", body={"status": "error"})
    yield Asked(page="overview, asking", route="POST /threads/count", body={"status": "interrupted"})
    yield Asked(page="overview, undelivered", route="GET /webhooks", query={"delivery_status": "failed", "limit": 100})
    titles = {"limit": 50, "select": ["thread_id", "metadata"], "extract": {"first": "values.messages[0]"}}
    ids = [f"00000001-0000-4000-8000-{number:012}" for number in range(0, 100, 2)]
    yield Asked(page="threads, titles", route="POST /threads/search", body={**titles, "ids": ids})
    yield Asked(
        page="store, namespaces", route="POST /store/namespaces", body={"prefix": [], "max_depth": 1, "limit": 500}
    )
    below = {"prefix": ["users"], "max_depth": 2, "limit": 500}
    yield Asked(page="store, namespaces below", route="POST /store/namespaces", body=below)
    for name, prefix in (("all", []), ("a namespace", ["users", "u0"])):
        items = {"namespace_prefix": prefix, "limit": 101, "refresh_ttl": False}
        yield Asked(page=f"store, {name}", route="POST /store/items/search", body=items, deep={"limit": 1000})
    yield Asked(
        page="store, filter",
        route="POST /store/items/search",
        body={**items, "namespace_prefix": [], "filter": {"rain": True}},
    )


def asked_by_operators(ledger: Ledger) -> Iterator[Asked]:
    month = datetime.fromtimestamp(ledger.now / 1_000_000, UTC) - timedelta(days=DAYS - 1)
    yield Asked(
        page="runs, owner",
        route="POST /runs/search",
        body={"owner": BIG, "limit": 100},
        deep={"after": str(ledger.runs // 10)},
    )
    yield Asked(page="overview", route="GET /operator/overview")
    yield Asked(page="overview, failures", route="GET /operator/failures", query={"limit": 20})
    yield Asked(
        page="overview, new failures",
        route="GET /operator/failures",
        query={"limit": 20, "build": f"build-{BUILDS - 1}"},
    )
    yield Asked(page="overview, builds", route="GET /operator/totals", query={"by": "build"})
    yield Asked(page="overview, oldest waiting", route=f"GET /runs/00000003-0000-4000-8000-{0:012}/explain")
    yield Asked(page="workers", route="GET /operator/workers")
    yield Asked(page="limits", route="GET /operator/limits")
    yield Asked(page="doctor", route="GET /operator/doctor")
    yield Asked(page="settings", route="GET /operator/settings")
    for by in ("model", "graph", "owner", "build", "day"):
        query = {"by": by, "since": month.isoformat(), "daily": True, "limit": 50}
        yield Asked(page=f"usage by {by}", route="GET /operator/totals", query=query)
    deep = {"before": f"{ledger.now - HOUR_US:014x}{ACTS // 10:08}"}
    for name, where in {
        "all": {},
        "who": {"actor": "operator-3"},
        "did, rare": {"action": "keys.read"},
        "nobody": {"actor": "nobody"},
    }.items():
        yield Asked(page=f"audit, {name}", route="GET /audit", query={**where, "limit": 50}, deep=deep)
    yield Asked(page="audit, keys", route="GET /keys")


async def report(clients: Mapping[str, httpx.AsyncClient], ledger: Ledger, rounds: int) -> None:
    print(f"| {'page':30} | asked by | place | rows | median ms |  worst ms | median CPU ms |")
    print("|---|---|---|--:|--:|--:|--:|")
    for name, client in clients.items():
        more = asked_by_operators if name == OPERATOR else asked_by_owners
        for asked in (*asked_by_all(ledger), *more(ledger)):
            for place, deep in (("first", {}), ("deep", asked.deep)):
                if deep is not None:
                    times, answer = await timed(partial(ask, client, asked, deep), rounds)
                    found = answer.json()
                    rows = len(found) if isinstance(found, list) else ""
                    print(f"| {asked.page:30} | {name:8} | {place:5} | {rows:4} | {times} |", flush=True)


async def ask(client: httpx.AsyncClient, asked: Asked, more: Mapping[str, Any]) -> httpx.Response:
    """Send a request as the console does, which reads payload only where it is searched for."""
    method, _, path = asked.route.partition(" ")
    given = {"json": {**asked.body, **more}} if asked.body else {"params": {**asked.query, **more}}
    of_payload = "text" in asked.body or "user" in asked.body.get("metadata", {})
    headers = {} if of_payload else {"Runlane-Payload": "omit"}
    answer = await client.request(method, path, headers=headers, **given)
    if answer.status_code != 200:
        raise RuntimeError(f"{asked.page}: {answer.status_code} {answer.text}")
    return answer


async def measure(database: str, runs: int, rounds: int) -> None:
    ledger = Ledger(runs=runs)
    async with filled(database, runs, "runs", partial(fill, ledger=ledger)):
        pass
    async with serving(database, ledger) as clients:
        await report(clients, ledger, rounds)


if __name__ == "__main__":
    main(__doc__, "runs", measure)
