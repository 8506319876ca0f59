"""Fixtures that every kind of test may ask for."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from postgres_cluster import PostgresCluster, PostgresUnavailable, chosen_binaries
from runlane.store.backends import migrate_postgres

# The contract suites live in the package; their assertions shall explain themselves as those of a test do.
pytest.register_assert_rewrite("runlane.testing")

#: The names of the databases that :func:`new_postgres_ledger` made, and that are still there, and
#: the address of their cluster.
LEDGERS = pytest.StashKey[dict[str, str]]()


def kind_of(nodeid: str) -> str:
    """Return the kind of a test: the folder below ``tests`` that it is in."""
    parts = Path(nodeid.partition("::")[0]).parts
    return parts[1] if len(parts) > 2 else parts[0]


def pytest_report_header() -> str:
    """Say which PostgreSQL the tests use, and why."""
    try:
        return str(chosen_binaries())
    except PostgresUnavailable as error:
        return f"PostgreSQL: {error}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how long each kind of test took, its set-up included."""
    seconds: Counter[str] = Counter()
    tests: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[kind_of(report.nodeid)] += report.duration
                tests[kind_of(report.nodeid)] += report.when == "call"
    if len(seconds) > 1:
        terminalreporter.section("time of each kind")
        for kind, taken_s in seconds.most_common():
            terminalreporter.write_line(f"{taken_s:7.1f} s  {kind} ({tests[kind]} tests)")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Undo what a test's command line did to logging: its handlers write to a stream that is closed with the test."""
    before = logging.root.handlers[:]
    level = logging.root.level
    yield
    added = [handler for handler in logging.root.handlers if handler not in before]
    for handler in added:
        if type(handler).__module__.partition(".")[0] != "_pytest":
            logging.root.removeHandler(handler)
    logging.root.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[PostgresCluster]:
    """Give a private PostgreSQL server, started for the first test that asks and stopped at the end."""
    with PostgresCluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def postgres_dsn(postgres_cluster: PostgresCluster) -> str:
    """Give the address of the cluster's maintenance database, shared by all tests."""
    return postgres_cluster.dsn


@pytest.fixture
def postgres_url(postgres_cluster: PostgresCluster) -> Iterator[str]:
    """Give the address of a fresh, empty database of this test alone."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgres_cluster.dsn, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield postgres_cluster.url(name)
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def new_postgres_ledger(pytestconfig: pytest.Config, postgres_cluster: PostgresCluster) -> Callable[[], str]:
    """Give a maker of databases that have the schema and nothing else; they go with the module, or its last user."""
    template = f"template_{uuid4().hex}"
    with psycopg.connect(postgres_cluster.dsn, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{template}"')
    migrate_postgres(postgres_cluster.url(template))
    made = pytestconfig.stash.setdefault(LEDGERS, {})

    def new() -> str:
        name = f"ledger_{uuid4().hex}"
        with psycopg.connect(postgres_cluster.dsn, autocommit=True) as connection:
            copied = "STRATEGY FILE_COPY" if connection.info.server_version >= 150000 else ""  # a quarter of the time
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" {copied}'.encode())
        made[name] = postgres_cluster.dsn
        return postgres_cluster.url(name)

    return new


@pytest.fixture(scope="module", autouse=True)
def _unused_ledgers_go(pytestconfig: pytest.Config) -> Iterator[None]:
    """Drop the databases that a module's tests made: hundreds of them would be gigabytes, all of them to be written."""
    yield
    made = pytestconfig.stash.get(LEDGERS, {})
    for dsn in set(made.values()):
        with psycopg.connect(dsn, autocommit=True) as connection:
            used = {name for (name,) in connection.execute("SELECT datname FROM pg_stat_activity")}
            for name in made.keys() - used:  # those in use belong to a server that the session's tests share
                connection.execute(f'DROP DATABASE "{name}"'.encode())
                del made[name]


@pytest.fixture(scope="module")
def durable_cluster() -> Iterator[PostgresCluster]:
    """Give a server of this module's own, to be crashed: its database ``ledger`` keeps what it said it committed."""
    with PostgresCluster() as cluster:
        with psycopg.connect(cluster.dsn, autocommit=True) as connection:
            connection.execute("CREATE DATABASE ledger")
            connection.execute("ALTER DATABASE ledger SET synchronous_commit = on")
        yield cluster
