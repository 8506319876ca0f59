"""The condition that a run has cost so much or more, by the prices of models and the tokens that it used."""

from __future__ import annotations

from typing import Any, Final

from runlane.store.rows import dumps
from runlane.telemetry.prices import Prices

#: More would not fit into a column of millionths.
MAX_COST: Final = 10**9

#: In millionths, of the models that have a price: that of the longest beginning of their names. Finding it is slow, so
#: runs that cost too little at the highest price are left out first.
_AT_LEAST: Final = """(:min_cost = 0 OR (
  (SELECT SUM(input + output) * {highest_price} + 1 FROM {used} AS used) >= :min_cost
  AND (SELECT ROUND(SUM((
      SELECT (used.input - used.cached) * price.input + used.cached * price.cached + used.output * price.output
      FROM {prices} AS price WHERE substr(used.model, 1, length(price.model)) = price.model
      ORDER BY length(price.model) DESC LIMIT 1))) FROM {used} AS used) >= :min_cost))"""
_INPUT: Final = "COALESCE(json_extract(value, '$.input_tokens'), 0)"
_INPUT_PG: Final = "COALESCE(CAST(value ->> 'input_tokens' AS BIGINT), 0)"

COSTS_AT_LEAST: Final = _AT_LEAST.format(
    highest_price=":highest_price",
    prices="""(SELECT key AS model, json_extract(value, '$.input') AS input, json_extract(value, '$.output') AS output,
      json_extract(value, '$.cached_input') AS cached FROM json_each(:prices))""",
    used=f"""(SELECT key AS model, {_INPUT} AS input, COALESCE(json_extract(value, '$.output_tokens'), 0) AS output,
      min(COALESCE(json_extract(value, '$.cached_input_tokens'), 0), {_INPUT}) AS cached
      FROM json_each(runs.usage, '$.by_model'))""",
)
COSTS_AT_LEAST_PG: Final = _AT_LEAST.format(
    highest_price="CAST(:highest_price AS DOUBLE PRECISION)",
    prices="""(SELECT key AS model, CAST(value ->> 'input' AS DOUBLE PRECISION) AS input,
      CAST(value ->> 'output' AS DOUBLE PRECISION) AS output,
      CAST(value ->> 'cached_input' AS DOUBLE PRECISION) AS cached FROM json_each(CAST(:prices AS json)))""",
    used=f"""(SELECT key AS model, {_INPUT_PG} AS input,
      COALESCE(CAST(value ->> 'output_tokens' AS BIGINT), 0) AS output,
      LEAST(COALESCE(CAST(value ->> 'cached_input_tokens' AS BIGINT), 0), {_INPUT_PG}) AS cached
      FROM json_each(CAST(runs.usage AS json) -> 'by_model'))""",
)


def cost_params(min_cost: float, prices: Prices) -> dict[str, Any]:
    """Return the parameters of the condition; it holds for all runs if *min_cost* is 0."""
    table = prices.table() if min_cost else {}
    return {
        "min_cost": round(min_cost * 1_000_000),
        "prices": dumps(table),
        "highest_price": max((cost for price in table.values() for cost in price.values()), default=0.0),
    }
