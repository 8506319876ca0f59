"""Reports on runs that ended, from their totals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, Final

from runlane.lifecycle import FAILED
from runlane.records import AnyOwner, Owner
from runlane.store.rows import dumps, instant, microseconds
from runlane.store.statements import Row, Statement, Transaction, listed, statement
from runlane.store.transactions.totals import DAY_US, RUN_SUMS, TOKEN_SUMS, Grain


class By(StrEnum):
    """What a total is of."""

    OWNER = "owner"
    GRAPH = "graph"
    BUILD = "build"
    STATUS = "status"
    DAY = "day"
    MODEL = "model"


_COLUMNS: Final = {
    By.OWNER: "owner",
    By.GRAPH: "graph_id",
    By.BUILD: "build",
    By.STATUS: "status",
    By.DAY: "CAST(day AS TEXT)",
    By.MODEL: "model",
}
# Parameters: a grain, and TotalFilter.params. By the first columns of the primary key.
_WANTED: Final = """grain = :grain AND day >= :first_day AND day <= :last_day
  AND (CAST(:owner AS TEXT) IS NULL OR owner = :owner) AND (CAST(:graph_id AS TEXT) IS NULL OR graph_id = :graph_id)"""
_WITH_MODEL: Final = "(CAST(:model AS TEXT) IS NULL OR model = :model)"


def _sums(names: Iterable[str]) -> str:
    return ", ".join(f"CAST(SUM({name}) AS BIGINT) AS {name}" for name in names)


_SUMS_OF_RUNS: Final = f"""{_sums(RUN_SUMS)},
  CAST(SUM(CASE WHEN status IN {listed(FAILED)} THEN runs ELSE 0 END) AS BIGINT) AS failed"""


def _of_named(name: str, sql: str, by: By) -> Statement:
    """Return the statement whose ``{named}`` is that the column of *by* is a key of ``:names``.

    PostgreSQL compares each row with all names if it expects few rows, as it does of two bounds; a key is looked up. Of
    owners, who can be many, it finds the days of each by the primary key.
    """
    column = _COLUMNS[by]
    postgres = f"jsonb_exists((SELECT CAST(:names AS jsonb)), {column})"
    if by is By.OWNER:
        postgres = """owner = ANY (ARRAY(SELECT jsonb_object_keys(CAST(:names AS jsonb))))
          AND day = ANY (ARRAY(SELECT generate_series(CAST(:first_day AS BIGINT), CAST(:last_day AS BIGINT))))"""
    return statement(
        name,
        sql.replace("{named}", f"{column} IN (SELECT key FROM json_each(:names))"),
        postgres=sql.replace("{named}", postgres),
    )


def _order(by: By) -> str:
    return "MAX(day) DESC" if by is By.DAY else "total_tokens DESC, runs DESC, name"


TOTALS: Final[Mapping[By, Statement]] = {
    by: statement(
        f"totals_by_{by.value}",
        f"""SELECT {column} AS name, {_SUMS_OF_RUNS},
              MIN(first_ended_at) AS first_ended_at, MAX(last_ended_at) AS last_ended_at
            FROM run_totals WHERE {_WANTED} GROUP BY 1 ORDER BY {_order(by)} LIMIT :limit""",
    )
    for by, column in _COLUMNS.items()
    if by is not By.MODEL
}
TOTALS_OF_DAYS: Final[Mapping[By, Statement]] = {
    by: _of_named(
        f"totals_of_days_by_{by.value}",
        f"""SELECT {_COLUMNS[by]} AS name, day, {_SUMS_OF_RUNS} FROM run_totals
            WHERE {_WANTED} AND {{named}} GROUP BY 1, 2 ORDER BY 2""",
        by,
    )
    for by in TOTALS
}
# Of those with the most tokens; status is not known of tokens.
TOKENS: Final[Mapping[By, Statement]] = {
    by: statement(
        f"tokens_by_{by.value}",
        f"""SELECT {column} AS name, {_sums(TOKEN_SUMS)} FROM token_totals WHERE {_WANTED} AND {_WITH_MODEL}
            GROUP BY 1 ORDER BY {_order(by).replace("runs DESC, ", "")} LIMIT :limit""",
    )
    for by, column in _COLUMNS.items()
    if by is not By.STATUS
}
# The day is 0 unless totals of days are wanted.
TOKENS_OF_MODELS: Final[Mapping[By, Statement]] = {
    by: _of_named(
        f"tokens_of_models_by_{by.value}",
        f"""SELECT name, day, model, {_sums(TOKEN_SUMS)} FROM (
              SELECT {_COLUMNS[by]} AS name, CASE WHEN :daily = 1 THEN day ELSE 0 END AS day, model,
                {", ".join(TOKEN_SUMS)}
              FROM token_totals WHERE {_WANTED} AND {_WITH_MODEL} AND {{named}}) AS found
            GROUP BY 1, 2, 3 ORDER BY 2, 3""",
        by,
    )
    for by in TOKENS
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TotalFilter:
    """Which runs are summed up: those that ended on the days, in UTC, of *since* to *until*.

    Args:
        model: Only tokens of this model; totals then have neither runs nor times.
        daily: Also sum up each day by itself.
        limit: The most totals: those with the most tokens, or the newest days.
    """

    owner: Owner
    since: datetime
    until: datetime
    graph_id: str | None = None
    model: str | None = None
    daily: bool = False
    limit: int = 100

    def params(self) -> dict[str, Any]:
        return {
            "owner": None if isinstance(self.owner, AnyOwner) else self.owner,
            "first_day": microseconds(self.since) // DAY_US,
            "last_day": microseconds(self.until) // DAY_US,
            "graph_id": self.graph_id,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Tokens of one model."""

    llm_calls: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    total_tokens: int

    def __add__(self, other: Spent) -> Spent:
        return Spent(**{name: getattr(self, name) + getattr(other, name) for name in TOKEN_SUMS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """What runs took: the sum of some. Without ``runs``, it is of tokens only.

    ``failed`` ended as ``error`` or ``timeout``. ``models`` has the tokens by model; by status there are none.
    """

    runs: int | None
    failed: int | None
    executing_s: float | None
    queued_s: float | None
    input_tokens: int
    output_tokens: int
    total_tokens: int
    models: Mapping[str, Spent]


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """What runs of one owner, graph, build, status, day or model took, and on each day if that was asked for."""

    name: str
    amounts: Amounts
    first_ended_at: datetime | None
    last_ended_at: datetime | None
    days: Mapping[str, Amounts]


def totals(by: By, where: TotalFilter) -> Transaction[tuple[Total, ...]]:
    """Return totals, those with the most tokens first; of days, the newest first."""
    of_tokens = by is By.MODEL or where.model is not None
    params = {**where.params(), "grain": _grain(by, where).value}
    source = TOKENS if of_tokens else TOTALS
    model = {"model": where.model}
    rows = yield source[by](**params, **(model if of_tokens else {}), limit=where.limit)
    names = dumps(dict.fromkeys((row["name"] for row in rows), 1))
    models = _Models()
    if by in TOKENS_OF_MODELS:
        models.add((yield TOKENS_OF_MODELS[by](**params, **model, daily=int(where.daily), names=names)))
    days: defaultdict[str, dict[str, Amounts]] = defaultdict(dict)
    if where.daily:
        found = models.days() if of_tokens else (yield TOTALS_OF_DAYS[by](**params, names=names))
        for row in found:
            days[row["name"]][_date(row["day"])] = _amounts(row, models.of(row["name"], row["day"]))
    return tuple(_total(by, row, models.of(row["name"]), days[row["name"]]) for row in rows)


def _grain(by: By, where: TotalFilter) -> Grain:
    """Return the coarsest grain that tells apart what is wanted."""
    if by is not By.OWNER and isinstance(where.owner, AnyOwner):
        return Grain.ALL
    return Grain.OWNER if where.graph_id is None and by not in (By.GRAPH, By.BUILD) else Grain.FULL


class _Models:
    """Tokens by name, day and model."""

    def __init__(self) -> None:
        self._found: defaultdict[tuple[str, int], dict[str, Spent]] = defaultdict(dict)
        self._sums: defaultdict[str, dict[str, Spent]] = defaultdict(dict)

    def add(self, rows: Sequence[Row]) -> None:
        for row in rows:
            name, model, spent = row["name"], row["model"], Spent(**{key: row[key] for key in TOKEN_SUMS})
            self._found[name, row["day"]][model] = spent
            sums = self._sums[name]
            sums[model] = sums[model] + spent if model in sums else spent

    def of(self, name: str, day: int | None = None) -> Mapping[str, Spent]:
        return self._sums.get(name, {}) if day is None else self._found.get((name, day), {})

    def days(self) -> list[dict[str, Any]]:
        """Return the sums of each name and day."""
        return [
            {
                "name": name,
                "day": day,
                **{key: sum(getattr(spent, key) for spent in models.values()) for key in TOKEN_SUMS},
            }
            for (name, day), models in self._found.items()
        ]


def _amounts(row: Row, models: Mapping[str, Spent]) -> Amounts:
    of_runs = "runs" in row
    return Amounts(
        runs=row["runs"] if of_runs else None,
        failed=row["failed"] if of_runs else None,
        executing_s=row["executing_us"] / 1_000_000 if of_runs else None,
        queued_s=row["queued_us"] / 1_000_000 if of_runs else None,
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        total_tokens=row["total_tokens"],
        models=models,
    )


def _total(by: By, row: Row, models: Mapping[str, Spent], days: Mapping[str, Amounts]) -> Total:
    of_runs = "runs" in row
    return Total(
        name=_date(int(row["name"])) if by is By.DAY else row["name"],
        amounts=_amounts(row, models),
        first_ended_at=instant(row["first_ended_at"]) if of_runs else None,
        last_ended_at=instant(row["last_ended_at"]) if of_runs else None,
        days=days,
    )


@cache
def _date(day: int) -> str:
    return instant(day * DAY_US).date().isoformat()
