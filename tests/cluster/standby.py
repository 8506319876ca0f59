"""A PostgreSQL server with a standby that takes its place, and a disk that can be full."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psycopg

from postgres_cluster import PostgresCluster

#: Both servers have their sockets in one directory.
PORTS = (5432, 5433)
#: A disk that is large enough.
DISK_BYTES = 8 * 2**30
FOLLOWS_WITHIN_S = 30.0
#: Of a file system that is in use, each may come too late for what it has.
TRIES = 100
FOLLOW = """
port = {port}
wal_retrieve_retry_interval = 100ms
hot_standby = on
"""


@dataclass(kw_only=True)
class PostgresPair(PostgresCluster):
    """Two servers: what is committed on the one is on the other too, which can take its place.

    The database ``ledger`` is in a file system of its own where this process may mount one, so that its disk can be
    full while the log of the server still has room.
    """

    has_disk: bool = field(default=False, init=False)
    _disks: dict[int, Path] = field(default_factory=dict, init=False)

    @property
    def data(self) -> Path:
        return self.directory / ("data" if self.port == PORTS[0] else "data-of-the-other")

    @property
    def _other(self) -> int:
        return PORTS[1] if self.port == PORTS[0] else PORTS[0]

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self._make_disks()
            with psycopg.connect(self.dsn, autocommit=True) as connection:
                space = ""
                if self.has_disk:
                    connection.execute(f"CREATE TABLESPACE disk LOCATION '{self._disks[self.port]}'".encode())
                    space = "TABLESPACE disk"
                connection.execute(f"CREATE DATABASE ledger {space}".encode())
                connection.execute("ALTER DATABASE ledger SET synchronous_commit = on")
            self.follow()
        except BaseException:
            self._stop()
            raise
        return self

    def _stop(self) -> None:
        for port in PORTS:
            self.port = port
            if port != PORTS[0] and (self.data / "postmaster.pid").exists():
                self._control("stop", "--mode=immediate")
        self.port = PORTS[0]
        for disk in self._disks.values():
            subprocess.run(["umount", "--lazy", disk.parent], check=False, stderr=subprocess.DEVNULL)
        super()._stop()

    # The standby

    def follow(self) -> None:
        """Make the server that is not used a standby, from what the other one has."""
        port, first = self.port, self.port
        try:
            self.port = self._other
            with suppress(FileNotFoundError):
                shutil.rmtree(self.data)
            call = [self._programs / "pg_basebackup", f"--host={self.directory}", f"--port={first}"]
            call += [
                "--username=runlane",
                "--write-recovery-conf",
                "--checkpoint=fast",
                "--no-sync",
                f"--pgdata={self.data}",
            ]
            if self.has_disk:
                self._empty(self._disks[self.port])
                call.append(f"--tablespace-mapping={self._disks[first]}={self._disks[self.port]}")
            self._run(call)
            with (self.data / "postgresql.conf").open("a") as configuration:
                configuration.write(FOLLOW.format(port=self.port))
            self.start()
        finally:
            self.port = port
        self._set_standby("*")
        self._wait_for_standby()

    def fail_over(self) -> None:
        """Crash the server, and have its standby take its place; nothing that was committed is lost."""
        self.stop()
        self.port = self._other
        self._control("promote")
        self._set_standby("")  # nobody follows yet, and nobody waits for it

    def _set_standby(self, name: str) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'".encode())
            connection.execute("SELECT pg_reload_conf()")

    def _wait_for_standby(self) -> None:
        until = time.monotonic() + FOLLOWS_WITHIN_S
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            while connection.execute("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'").fetchone() is None:
                assert time.monotonic() < until, (self.directory / "log").read_text()
                time.sleep(0.05)

    # The disk

    def fill_disk(self) -> None:
        """Leave no room for another page of the ledger."""
        for _ in range(TRIES):
            found = os.statvfs(self._disks[self.port])
            if self._resize((found.f_blocks - found.f_bfree) * found.f_frsize):
                return
        raise AssertionError("the ledger grew each time while its disk was made smaller")

    def free_disk(self) -> None:
        assert self._resize(DISK_BYTES)

    def _resize(self, size: int) -> bool:
        """Resize the file system; False if it has more than that."""
        call = ["mount", "-o", f"remount,size={size}", self._disks[self.port].parent]
        return subprocess.run(call, check=False, stderr=subprocess.DEVNULL).returncode == 0

    def _make_disks(self) -> None:
        for port in PORTS:
            mount = self.directory / f"disk-{port}"
            mount.mkdir()
            call = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(mount)]
            if subprocess.run(call, check=False, stderr=subprocess.DEVNULL).returncode != 0:
                return  # only root may, and not in each container
            self._disks[port] = mount / "space"
            self._empty(mount / "space")
        self.has_disk = True

    def _empty(self, place: Path) -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        if self._is_root:
            os.chown(place, self._account.pw_uid, self._account.pw_gid)
            os.chmod(place, 0o700)
