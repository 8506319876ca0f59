"""The acceptance list is complete, and what its pages name exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGES = sorted((TESTS / "component").glob("test_acceptance_*.py"))
ITEMS = range(1, 36)


def _lists() -> Iterator[str]:
    for page in PAGES:
        yield ast.get_docstring(ast.parse(page.read_text("utf-8"))) or ""


def test_every_item_of_the_list_has_a_test() -> None:
    listed = {int(item) for page in _lists() for item in re.findall(r"^ {4}(\d+)\b", page, re.MULTILINE)}
    assert listed == set(ITEMS)


def test_every_test_that_the_list_names_exists() -> None:
    files = {path.name: path.read_text("utf-8") for path in TESTS.rglob("test_*.py")}
    known = set(chain.from_iterable(re.findall(r"def (test_\w+)", text) for text in files.values()))
    for page in _lists():
        for name in re.findall(r"\btest_\w+(?:\.py|\.\.\.)?", page):
            if name.endswith(".py"):
                assert name in files, name
            elif name.endswith("..."):
                assert any(one.startswith(name.removesuffix("...")) for one in known), name
            else:
                assert name in known, name
