"""Budgets of the code that are checked rather than argued about."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60

# Spelled so that this file does not contain what it looks for.
REGISTRY_HOST = re.compile(
    r"pypi[.]org|python[h]osted[.]org|(?:npmjs|yarnpkg)[.](?:org|com)|(?:deb|security)[.]debian[.]org"
    r"|(?:archive|ports)[.]ubuntu[.]com|crates[.]io|proxy[.]golang[.]org"
)
MACHINE_PATH = re.compile(r"(?<![\w.~)}\]/-])/(?:work|root|Users|home/\w+|tmp/\w)/")
EXCEPTION = re.compile(
    r"#\s*(?:noqa|type:\s*ignore|pyright:\s*ignore)\b(?::[ ]?[A-Z0-9, ]+|\[[\w, -]+\])?(?P<reason>.*)"
)

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[FunctionNode]:
    return (node for node in ast.walk(tree) if isinstance(node, FunctionNode))


def imported_modules(node: ast.AST) -> list[str]:
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom():
            return ["." * node.level + (node.module or "")]
        case _:
            return []


def is_first_party(module: str) -> bool:
    return module.startswith(".") or module.split(".")[0] == "runlane"


def long_functions(source: str) -> list[str]:
    return [
        f"{node.name} has {length} lines"
        for node in functions(ast.parse(source))
        if (length := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]


def hidden_imports(source: str) -> list[str]:
    return [
        f"{function.name} imports {module}"
        for function in functions(ast.parse(source))
        for node in ast.walk(function)
        for module in imported_modules(node)
        if is_first_party(module)
    ]


def unexplained_exceptions(source: str) -> list[str]:
    return [
        line.strip()
        for line in source.splitlines()
        if (found := EXCEPTION.search(line)) and len(found["reason"].strip(" -#:")) < len("why")
    ]


def foreign_names(text: str) -> list[str]:
    return [found.group() for pattern in (REGISTRY_HOST, MACHINE_PATH) for found in pattern.finditer(text)]


def tracked_files() -> list[Path]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so nothing says which files belong to the project")
    names = subprocess.check_output(["git", "-C", str(ROOT), "ls-files", "-z"], text=True)
    return [path for name in names.split("\0") if name and (path := ROOT / name).is_file()]


def per_source(rule: str) -> list[str]:
    """Apply the check named *rule* to every source file and return its findings, each with its file."""
    check = {"long": long_functions, "hidden": hidden_imports, "unexplained": unexplained_exceptions}[rule]
    return [f"{path.relative_to(ROOT)}: {finding}" for path in SOURCES for finding in check(path.read_text())]


def test_no_file_is_longer_than_500_lines() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in SOURCES}
    assert {path: length for path, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_no_function_is_longer_than_60_lines() -> None:
    assert per_source("long") == []


def test_no_function_hides_a_first_party_import() -> None:
    assert per_source("hidden") == []


def test_every_lint_exception_says_why() -> None:
    assert per_source("unexplained") == []


def test_the_project_names_no_registry_and_no_machine() -> None:
    findings = {
        str(path.relative_to(ROOT)): names
        for path in tracked_files()
        if (names := foreign_names(path.read_bytes().decode("utf-8", "replace")))
    }
    assert findings == {}


@pytest.mark.parametrize("lines", [MAX_FUNCTION_LINES, MAX_FUNCTION_LINES + 1])
def test_a_function_is_too_long_from_its_61st_line_on(lines: int) -> None:
    source = "async def f():\n" + "    pass\n" * (lines - 1)
    assert bool(long_functions(source)) == (lines > MAX_FUNCTION_LINES)


@pytest.mark.parametrize(
    ("statement", "is_hidden"),
    [
        ("import runlane.store", True),
        ("from runlane import errors", True),
        ("from . import errors", True),
        ("import runlanes", False),
        ("import json", False),
    ],
)
def test_only_first_party_imports_count_as_hidden(statement: str, is_hidden: bool) -> None:
    assert hidden_imports(statement) == []
    assert bool(hidden_imports(f"def f():\n    {statement}\n")) == is_hidden


@pytest.mark.parametrize(
    ("line", "is_explained"),
    [
        ("x = f()  # noqa: BLE001", False),
        ("x = f()  # type: ignore[arg-type]", False),
        ("x = f()  # noqa: BLE001, E501 - a supervisor reports whatever a run raises", True),
        ("x = f()  # type: ignore[arg-type]  # the stubs are wrong: they forget None", True),
    ],
)
def test_a_lint_exception_without_words_is_unexplained(line: str, is_explained: bool) -> None:
    assert bool(unexplained_exceptions(line)) != is_explained


@pytest.mark.parametrize(
    ("text", "is_foreign"),
    [
        ("see " + "https://" + "pypi" + ".org/project/x", True),
        ("cd /" + "work/main", True),
        ("'/" + "home/ann/x'", True),
        ("GET /threads/t/runs/wait", False),
        ("examples/work/graph.py and ~/" + "work/x", False),
        ("/usr/lib/postgresql", False),
    ],
)
def test_a_registry_or_a_machine_path_is_foreign(text: str, is_foreign: bool) -> None:
    assert bool(foreign_names(text)) == is_foreign
