"""Tables on a terminal, times as people read them, and JSON for programs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cli_reference import leaves, options_of
from runlane.cli.main import app
from runlane.cli.output import GAP, NARROWEST, Column, error_line, fitted, rich_table, span
from runlane.cli.runs import cause

ROWS = [
    {"id": "i" * 36, "status": "error", "why": "the model [bold]did not[/bold] answer \x1b[2J" * 3, "more": "x" * 40}
]
COLUMNS = (
    Column("ID", lambda row: row["id"]),
    Column("STATUS", lambda row: row["status"]),
    Column("WHY", lambda row: row["why"], flexible=True),
    Column("MORE", lambda row: row["more"], flexible=True),
)
#: Commands without an answer that could be JSON: they serve, write files of a project, or print a shell's script.
WITHOUT_JSON = {
    "runlane serve",
    "runlane worker",
    "runlane dev",
    "runlane new",
    "runlane completion",
}


def test_every_command_that_answers_prints_json() -> None:
    without = [name for name, one in leaves(app) if "--json" not in {option.opts[0] for option in options_of(one)}]
    assert sorted(without) == sorted(WITHOUT_JSON)


def drawn(width: int) -> list[str]:
    target = io.StringIO()
    Console(file=target, width=width, force_terminal=False, highlight=False).print(rich_table(COLUMNS, ROWS, width))
    return [line.rstrip() for line in target.getvalue().splitlines()]


@pytest.mark.parametrize("width", [60, 72, 80, 100, 200, 300])
def test_a_table_keeps_ids_whole_and_fits_the_terminal(width: int) -> None:
    titles, row = drawn(width)
    assert len(titles) <= width
    assert len(row) <= width
    assert row.split()[:2] == ["i" * 36, "error"]


def test_columns_that_do_not_fit_are_left_out_from_the_last_on() -> None:
    assert drawn(50)[0].split() == ["ID", "STATUS"]
    assert drawn(60)[0].split() == ["ID", "STATUS", "WHY"]
    assert drawn(80)[0].split() == ["ID", "STATUS", "WHY", "MORE"]
    assert fitted([36, 6, 90, 40], [False, False, True, True], 36 + 6 + 2 * NARROWEST + 3 * GAP + 5) == {
        0: 36,
        1: 6,
        2: NARROWEST + 5,
        3: NARROWEST,
    }


def test_texts_are_neither_markup_nor_obeyed() -> None:
    row = drawn(300)[1]
    assert "[bold]did not[/bold]" in row
    assert "\\x1b[2J" in row
    assert "\x1b" not in row


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0s"),
        (0.44, "0.4s"),
        (12.9, "12s"),
        (60, "1m00s"),
        (185, "3m05s"),
        (7810, "2h10m"),
        (360_000, "4d4h"),
    ],
)
def test_a_time_has_its_largest_units(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_an_error_whose_message_is_hidden_is_its_class() -> None:
    assert error_line({"error": {"error": "ValueError", "message": None}}) == "ValueError"
    assert error_line({"error": {"error": "ValueError", "message": "why"}}) == "ValueError: why"
    assert error_line({"error": None}) is None


def test_a_run_that_could_start_waits_for_a_worker_also_where_slots_are_free() -> None:
    assert cause({"status": "pending", "waiting_on": {"reason": "slots"}}) == "waits for a worker"
