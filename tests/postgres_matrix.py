"""``./dev postgres``: the contract suite on each version of PostgreSQL that can be had here."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from postgres_cluster import NAMED, Binaries, bundled_binaries, fetched_binaries, installed_binaries

#: What is run without a word: whatever asks for PostgreSQL in the contract suite.
CONTRACT = ["tests/contract", "-k", "postgres"]


def available() -> dict[int, Binaries]:
    """Return a server for each major version, the oldest first."""
    kinds = (
        ("fetched by ./dev postgres", fetched_binaries()),
        ("brought along by the development dependencies", bundled_binaries()),
        ("installed", installed_binaries()),
    )
    servers = [Binaries(place, why) for why, places in kinds for place in places]
    return {server.major: server for server in sorted(servers, key=lambda server: server.major)}


def main() -> int:
    """Run pytest once per version; return 0 if all of them pass."""
    parser = argparse.ArgumentParser(
        prog="./dev postgres",
        description="Run the contract suite on the oldest and the newest PostgreSQL, or on those that are named. "
        "What follows -- goes to pytest instead.",
    )
    parser.add_argument("versions", nargs="*", type=int, help="major versions, such as 14")
    parser.add_argument("--all", action="store_true", help="on all versions that can be had")
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    given, more = parser.parse_args(words[:end]), words[end + 1 :]
    servers = available()
    for server in servers.values():
        sys.stdout.write(f"{server}\n")
    wanted = given.versions or ([*servers] if given.all else sorted({min(servers), max(servers)}))
    missing = [version for version in wanted if version not in servers]
    if missing:
        sys.stderr.write(f"No server of version {missing[0]}; there are {', '.join(map(str, servers))}.\n")
        return 2
    failed = [version for version in wanted if not _passes(servers[version], more or CONTRACT)]
    for version in wanted:
        sys.stdout.write(f"{servers[version]}: {'failed' if version in failed else 'passed'}\n")
    return 1 if failed else 0


def _passes(server: Binaries, arguments: list[str]) -> bool:
    sys.stdout.write(f"\n{server}\n")
    sys.stdout.flush()
    command = [sys.executable, "-m", "pytest", "-q", *arguments]
    return subprocess.run(command, env={**os.environ, NAMED: str(server.place)}, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
