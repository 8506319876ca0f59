"""A PgBouncer in front of a test's database, where one is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

MISSING = "PgBouncer is not installed; on Debian or Ubuntu: apt-get install pgbouncer"
PORT = 6432
CONFIGURATION = """
[databases]
{name} = user=runlane dbname={name} host={host}
[pgbouncer]
listen_port = {port}
unix_socket_dir = {directory}
auth_type = any
pool_mode = {mode}
default_pool_size = {servers}
max_client_conn = 200
logfile = {directory}/log
"""


@contextmanager
def pgbouncer(url: str, *, mode: str, servers: int = 3) -> Iterator[str]:
    """Give the address of the database at *url* through a pooler with so many connections to the server."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip(MISSING)
    name, host = urlsplit(url).path[1:], parse_qs(urlsplit(url).query)["host"][0]
    directory = Path(tempfile.mkdtemp(prefix="runlane-pgbouncer-", dir="/tmp"))
    identity = {}
    if os.geteuid() == 0:  # it refuses to run as root
        account = pwd.getpwnam("nobody")
        os.chown(directory, account.pw_uid, account.pw_gid)
        identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    settings = directory / "pgbouncer.ini"
    settings.write_text(
        CONFIGURATION.format(name=name, host=host, port=PORT, directory=directory, mode=mode, servers=servers)
    )
    with subprocess.Popen(
        [program, str(settings)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **identity
    ) as process:
        try:
            address = f"postgresql://runlane@/{name}?host={directory}&port={PORT}"
            _wait(address, directory / "log")
            yield address
        finally:
            process.terminate()
            process.wait(10)
            shutil.rmtree(directory, ignore_errors=True)


def _wait(address: str, log: Path) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            psycopg.connect(address, autocommit=True).close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise RuntimeError(log.read_text() if log.exists() else "PgBouncer does not start") from None
            time.sleep(0.02)
        else:
            return
