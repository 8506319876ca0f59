"""What each extra installs: nothing heavy by accident, and nothing imported that is not there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

import pytest

from packaging_kit import closure, required

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src" / "runlane"
#: In megabytes, Runlane's own files and those of everything it requires. Bytecode, which pip adds, is about as much
#: again for pure Python.
BUDGET_MB = {"": 15, "agents": 60, "server": 85}
HEAVY = {"alembic", "grpcio", "numpy", "pandas", "sqlalchemy"}
STORE_PROJECT = ROOT / "tests" / "server" / "store_project" / "langgraph.json"

EMBEDDED = """
import asyncio, sys
from runlane import StreamEnd, open_runtime
async def agent(context):
    yield "word", "tides"
async def main():
    async with open_runtime("sqlite:///" + sys.argv[2]) as runtime:
        run = await runtime.runs.create_or_reject("thread", "agent", multitask_strategy="reject")
        runtime.runs.start(run, agent)
        async for event in runtime.streams.subscribe(run.run_id):
            print(event.status if isinstance(event, StreamEnd) else event.data.decode())
asyncio.run(main())
"""
COMMAND_LINE = """
import sys
from runlane.cli.entry import main
sys.argv = ["runlane", "runs", "ls"]
main()
"""
GRAPHS = """
import runlane
import runlane.graphs
"""
STORE_INDEX = """
import sys
from pathlib import Path
sys.modules["numpy"] = None
from runlane.server.config.long_term import load_store
load_store(Path(sys.argv[1]))
"""


def size_mb(names: Iterable[str]) -> float:
    """Return the size of the files of distributions, and of Runlane, without bytecode."""
    paths = [path for path in SOURCES.rglob("*") if path.is_file()]
    for name in names:
        paths += [Path(str(file.locate())) for file in distribution(name).files or ()]
    return sum(path.stat().st_size for path in paths if path.suffix != ".pyc" and path.is_file()) / 1e6


def python(code: str, *arguments: str | Path, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Return a folder with the packages of the base install, and no others."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "runlane").symlink_to(SOURCES)
    for name in ("runlane", *closure(required(""))):
        install(name, folder)
    return folder


def install(name: str, folder: Path) -> None:
    """Add a distribution of this environment to *folder*."""
    found = distribution(name)
    for top in {Path(file).parts[0] for file in found.files or () if ".." not in Path(file).parts}:
        if not top.endswith((".pth", ".py", "__pycache__")):
            (folder / top).symlink_to(str(found.locate_file(top)))


def in_base(base: Path, code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Execute *code* with the base install: without the packages of this environment."""
    begin = "import sys; sys.path.insert(0, sys.argv[1])\n"
    return python(begin + code, base, *arguments, options=("-I", "-S"))


def test_the_base_install_is_runlane_msgspec_and_orjson() -> None:
    assert closure(required("")) == {"msgspec", "orjson"}


@pytest.mark.parametrize("extra", ["", "agents", "server", "postgres"])
def test_only_the_search_extra_installs_a_heavy_package(extra: str) -> None:
    assert not closure(required(extra)) & HEAVY


def test_semantic_search_is_an_extra() -> None:
    assert "numpy" in closure(required("search"))
    assert closure(required("all")) >= closure(required("search")) | closure(required("postgres"))


@pytest.mark.parametrize("extra", BUDGET_MB)
def test_an_install_keeps_to_its_size(extra: str) -> None:
    assert size_mb(closure(required(extra))) <= BUDGET_MB[extra]


def test_the_base_install_executes_runs_on_a_database(base: Path, tmp_path: Path) -> None:
    done = in_base(base, EMBEDDED, tmp_path / "runs.db")
    assert (done.stdout.split()[1:], done.stderr) == (['"tides"', "success"], "")


def test_graphs_without_their_extra_say_what_to_install(base: Path) -> None:
    done = in_base(base, GRAPHS)
    refused = "runlane.graphs needs an extra: pip install 'runlane[agents]'."
    assert done.stderr.splitlines()[-1] == f"runlane.errors.ConfigurationError: {refused}"


@pytest.mark.parametrize("present", [(), ("starlette", "anyio")])
def test_the_server_without_its_extra_says_what_to_install(base: Path, present: tuple[str, ...]) -> None:
    for name in present:  # an application with Starlette or FastAPI
        install(name, base)
    done = in_base(base, "from runlane.server.app import create_app")
    refused = "runlane.server needs an extra: pip install 'runlane[server]'."
    assert done.stderr.splitlines()[-1] == f"runlane.errors.ConfigurationError: {refused}"


@pytest.mark.parametrize("present", [(), ("click",), ("click", "python-dotenv")])
def test_the_command_line_without_its_extra_says_what_to_install(base: Path, present: tuple[str, ...]) -> None:
    for name in present:  # something else may have installed them
        install(name, base)
    done = in_base(base, COMMAND_LINE)
    assert (done.returncode, done.stdout) == (2, "")
    first, second = done.stderr.splitlines()
    assert first.startswith("runlane 0.")
    assert second == "error: The command line needs an extra: pip install 'runlane[server]'."


def test_an_index_without_numpy_is_refused_at_the_start() -> None:
    done = python(STORE_INDEX, STORE_PROJECT)
    refused = f"{STORE_PROJECT}: store.index needs an extra: pip install 'runlane[search]'."
    assert done.stderr.splitlines()[-1] == f"runlane.errors.ConfigurationError: {refused}"
