"""Fixtures that every kind of test may ask for."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest

from postgres_cluster import PostgresCluster

# The contract suites live in the package; their assertions shall explain themselves as those of a test do.
pytest.register_assert_rewrite("runlane.testing")


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


@pytest.fixture(scope="module")
def durable_cluster() -> Iterator[PostgresCluster]:
    """Give a server of this module's own, to be crashed: its database ``ledger`` keeps what it said it committed."""
    with PostgresCluster() as cluster:
        with psycopg.connect(cluster.dsn, autocommit=True) as connection:
            connection.execute("CREATE DATABASE ledger")
            connection.execute("ALTER DATABASE ledger SET synchronous_commit = on")
        yield cluster
