"""Processes that reach PostgreSQL over TLS only, with a password, and verify who answers."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import psycopg
import pytest

from ledger_kit import ledger_connection
from postgres_cluster import PostgresCluster
from run_kit import Scripted, ended, opened, settings, soon
from runlane.dispatch.shared import SharedDispatch
from runlane.errors import StoreUnavailable
from runlane.lifecycle import RunStatus
from runlane.records import StreamEnd
from runlane.store.backends import migrate_postgres

PASSWORD = "a word that nothing tells"


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("tls") / "known.crt")


def certificate(place: Path) -> Path:
    """Make a certificate of this machine's address that has signed itself, and its key beside it."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl that could make a certificate")
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=ledger", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    files = ["-keyout", str(place.with_suffix(".key")), "-out", str(place)]
    subprocess.run([*request, *names, *files], check=True, capture_output=True)
    return place


@pytest.fixture(scope="module")
def secured(durable_cluster: PostgresCluster, known: Path) -> PostgresCluster:
    """Give a server that lets nobody in from the network but over TLS and with the password."""
    data = durable_cluster.data
    for file in (known, known.with_suffix(".key")):
        copy = Path(shutil.copyfile(file, data / file.name))
        os.chown(copy, data.stat().st_uid, data.stat().st_gid)
        copy.chmod(0o600)
    with psycopg.connect(durable_cluster.url("ledger"), autocommit=True) as connection:
        connection.execute(f"ALTER ROLE runlane PASSWORD '{PASSWORD}'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        durable_cluster.port = free.getsockname()[1]
    with (data / "postgresql.conf").open("a") as configuration:
        configuration.write(f"port = {durable_cluster.port}\nlisten_addresses = '127.0.0.1'\n")
        configuration.write(f"ssl = on\nssl_cert_file = '{known.name}'\nssl_key_file = '{known.stem}.key'\n")
    (data / "pg_hba.conf").write_text("local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n")
    durable_cluster.restart()
    return durable_cluster


def over_tls(server: PostgresCluster, tls: str, *, password: str = PASSWORD) -> str:
    return f"postgresql://runlane:{password.replace(' ', '%20')}@127.0.0.1:{server.port}/ledger?sslmode={tls}"


async def test_every_connection_of_two_processes_is_encrypted(secured: PostgresCluster, known: Path) -> None:
    url = over_tls(secured, f"verify-full&sslrootcert={known}")
    migrate_postgres(url)
    agent, given = Scripted(events=[("said", {"number": 1})]), settings(database=url)
    async with (
        opened(settings=given, new_dispatch=SharedDispatch) as here,
        opened(settings=given, new_dispatch=SharedDispatch) as there,
    ):
        run = await here.runs.create("t", agent=agent)
        await soon(agent.started.wait())
        with ledger_connection(secured.url("ledger")) as connection:
            sessions = connection.execute(
                """SELECT application_name, ssl FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
                   WHERE datname = 'ledger' AND pid <> pg_backend_pid()"""
            ).fetchall()
        assert len({name for name, _ in sessions}) > 1, "of the ledger, of notifications and of permits"
        assert {encrypted for _, encrypted in sessions} == {True}
        agent.go.set()
        seen = [item async for item in there.streams.subscribe(run.run_id)]
        assert isinstance(seen[-1], StreamEnd)
        assert (await ended(there, run)).status is RunStatus.SUCCESS


async def test_a_server_that_cannot_be_trusted_is_told_nothing(
    secured: PostgresCluster, tmp_path: Path, known: Path
) -> None:
    other = certificate(tmp_path / "other.crt")
    reasons = {
        over_tls(secured, f"verify-full&sslrootcert={other}"): "certificate verify failed",
        over_tls(secured, f"verify-full&sslrootcert={tmp_path}/none.crt"): "does not exist",
        over_tls(secured, "disable"): "no encryption",
        over_tls(secured, f"verify-full&sslrootcert={known}", password="wrong"): "password authentication failed",
    }
    for url, reason in reasons.items():
        with pytest.raises(StoreUnavailable, match=reason) as refused:
            migrate_postgres(url)
        assert PASSWORD not in str(refused.value)
        assert "\n" not in str(refused.value)
