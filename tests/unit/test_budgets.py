"""Budgets of the code that are checked rather than argued about."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from budgets import (
    BUDGETS,
    ROOT,
    SOURCES,
    Measured,
    all_measured,
    functions,
    indirect_imports,
    measured,
    packed_assignments,
    shared_names,
)

# Spelled so that this file does not contain what it looks for.
REGISTRY_HOST = re.compile(
    r"pypi[.]org|python[h]osted[.]org|(?:npmjs|yarnpkg)[.](?:org|com)|(?:deb|security)[.]debian[.]org"
    r"|(?:archive|ports)[.]ubuntu[.]com|crates[.]io|proxy[.]golang[.]org"
)
MACHINE_PATH = re.compile(r"(?<![\w.~)}\]/-])/(?:work|root|Users|home/\w+|tmp/\w)/")
EXCEPTION = re.compile(
    r"#\s*(?:noqa|type:\s*ignore|pyright:\s*ignore)\b(?::[ ]?[A-Z0-9, ]+|\[[\w, -]+\])?(?P<reason>.*)"
)


#: A command imports what it needs when it is called, so that help is instant.
COMMANDS = ROOT / "src" / "runlane" / "cli"


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


def outside_of_extras(function: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of *function* that are not in a ``with needs_extra(...)``, where an extra is imported."""
    waiting = [function]
    while waiting:
        node = waiting.pop()
        yield node
        if not (isinstance(node, ast.With) and ast.unparse(node.items[0]).startswith("needs_extra(")):
            waiting += ast.iter_child_nodes(node)


def hidden_imports(source: str) -> list[str]:
    return [
        f"{function.name} imports {module}"
        for function in functions(ast.parse(source))
        for node in outside_of_extras(function)
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
    check = {
        "hidden": hidden_imports,
        "unexplained": unexplained_exceptions,
        "packed": packed_assignments,
        "indirect": indirect_imports,
    }[rule]
    return [f"{path.relative_to(ROOT)}: {finding}" for path in SOURCES for finding in check(path.read_text())]


@pytest.fixture(scope="module")
def values() -> dict[str, list[Measured]]:
    return all_measured()


@pytest.mark.parametrize("budget", BUDGETS)
def test_nothing_is_larger_than_its_budget(budget: str, values: dict[str, list[Measured]]) -> None:
    assert len(values[budget]) > 100
    assert [one.where for one in values[budget] if one.value > BUDGETS[budget]] == []


def test_no_two_classes_have_one_name() -> None:
    assert shared_names() == {}


def test_a_constructor_assigns_one_attribute_per_line() -> None:
    assert per_source("packed") == []


def test_no_module_of_ours_is_imported_by_a_string() -> None:
    assert per_source("indirect") == []


def test_no_function_hides_a_first_party_import() -> None:
    assert [finding for finding in per_source("hidden") if not (ROOT / finding).is_relative_to(COMMANDS)] == []


def test_every_lint_exception_says_why() -> None:
    assert per_source("unexplained") == []


def test_the_project_names_no_registry_and_no_machine() -> None:
    findings = {
        str(path.relative_to(ROOT)): names
        for path in tracked_files()
        if (names := foreign_names(path.read_bytes().decode("utf-8", "replace")))
    }
    assert findings == {}


def test_functions_and_classes_are_measured_from_their_first_line_to_their_last() -> None:
    source = "class C:\n    async def f():\n" + "        pass\n" * 59
    found = {budget: [one.value for one in values] for budget, values in measured(source, "m.py").items()}
    assert found == {"lines of a file": [61], "lines of a class": [61], "lines of a function": [60]}


def test_packed_assignments_and_imports_by_a_string_are_seen() -> None:
    assert packed_assignments("class C:\n    def __init__(self):\n        self.a, self.b = 1, 2\n") == ["line 3"]
    assert packed_assignments("class C:\n    def __init__(self):\n        self.a = 1\n") == []
    assert indirect_imports("importlib.import_module('runlane.store')") == ["importlib.import_module('runlane.store')"]
    assert indirect_imports("importlib.import_module(name)") == []


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


def test_an_import_of_an_extra_is_not_hidden() -> None:
    with_extra = "def f():\n    with needs_extra('search', 'X'):\n        from runlane import vectors\n"
    assert hidden_imports(with_extra) == []
    assert hidden_imports(with_extra + "    import runlane.store\n") == ["f imports runlane.store"]


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
