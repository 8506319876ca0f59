"""Budgets of the code: how long files, classes and functions may be, and what no module does. Run to see them."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
SOURCES: Final = sorted((ROOT / "src").rglob("*.py"))

#: What is measured, and the most that it may be.
BUDGETS: Final = {
    "lines of a file": 500,
    "lines of a class": 250,
    "lines of a function": 60,
    "cyclomatic complexity": 10,
}
#: How many of the largest values are printed.
SHOWN: Final = 3

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
_COMPLEXITY = re.compile(r"`(?P<name>[^`]+)` is too complex \((?P<value>\d+) > 0\)")


@dataclass(frozen=True, slots=True, order=True)
class Measured:
    """One value of a budget, and what has it."""

    value: int
    where: str


def functions(tree: ast.AST) -> Iterator[FunctionNode]:
    """Yield the functions of a module, those within others too."""
    return (node for node in ast.walk(tree) if isinstance(node, FunctionNode))


def length_of(node: ast.ClassDef | FunctionNode) -> int:
    """Return the lines of *node*, decorators apart."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def measured(source: str, where: str) -> dict[str, list[Measured]]:
    """Return what the text of one module measures, by budget."""
    tree = ast.parse(source)
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return {
        "lines of a file": [Measured(len(source.splitlines()), where)],
        "lines of a class": [Measured(length_of(node), f"{where}::{node.name}") for node in classes],
        "lines of a function": [Measured(length_of(node), f"{where}::{node.name}") for node in functions(tree)],
    }


def complexities() -> list[Measured]:
    """Return the cyclomatic complexity of every function, as the linter counts it."""
    command = ["ruff", "check", "--no-cache", "--select", "C901", "--config", "lint.mccabe.max-complexity=0"]
    ruff = Path(sys.executable).parent / command[0]
    found = subprocess.run(
        [ruff, *command[1:], "--output-format", "json", ROOT / "src"], capture_output=True, text=True, check=False
    )
    values = []
    for finding in json.loads(found.stdout):
        match = _COMPLEXITY.search(finding["message"])
        if match is not None:
            where = f"{Path(finding['filename']).relative_to(ROOT)}::{match['name']}"
            values.append(Measured(int(match["value"]), where))
    return values


def all_measured() -> dict[str, list[Measured]]:
    """Return what all modules measure, by budget, the largest first."""
    values: dict[str, list[Measured]] = defaultdict(list)
    for path in SOURCES:
        for budget, found in measured(path.read_text(), str(path.relative_to(ROOT))).items():
            values[budget].extend(found)
    values["cyclomatic complexity"] = complexities()
    return {budget: sorted(values[budget], key=lambda one: (-one.value, one.where)) for budget in BUDGETS}


def packed_assignments(source: str) -> list[str]:
    """Return the constructors' lines that assign several attributes at once."""
    return [
        f"line {node.lineno}"
        for function in functions(ast.parse(source))
        if function.name == "__init__"
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and any(isinstance(target, ast.Tuple) for target in node.targets)
    ]


def indirect_imports(source: str) -> list[str]:
    """Return the imports of our own modules by their name in a string."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith(("import_module", "__import__"))
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and str(node.args[0].value).partition(".")[0] == "runlane"
    ]


def shared_names() -> dict[str, list[str]]:
    """Return the classes of one name that are in several places, with these."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(ROOT)))
    return {name: found for name, found in places.items() if len(found) > 1}


def main() -> None:
    """Print the largest value of each budget."""
    print("Budgets: the largest values, and what is allowed")  # noqa: T201 - what this command is for
    for budget, values in all_measured().items():
        largest = ", ".join(f"{one.value} {one.where.removeprefix('src/runlane/')}" for one in values[:SHOWN])
        print(f"  {budget} <= {BUDGETS[budget]}: {largest}")  # noqa: T201 - as above


if __name__ == "__main__":
    main()
