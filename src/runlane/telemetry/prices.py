"""What models cost, as the operator says: a TOML file with a table per model. Nothing here knows a price by itself."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from runlane.errors import ConfigurationError

#: Prices are for so many tokens, as providers list them.
PER_TOKENS: Final = 1_000_000
_KEYS: Final = ("input", "cached_input", "output")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Prices of a million tokens of a model, in the currency of the file."""

    input: float
    output: float
    cached_input: float

    def of(self, counts: Mapping[str, int]) -> float:
        """Return the price of *counts*, those of :attr:`Usage.by_model`; cached tokens are part of the input."""
        cached = min(counts.get("cached_input_tokens", 0), counts.get("input_tokens", 0))
        whole = counts.get("input_tokens", 0) - cached
        made = counts.get("output_tokens", 0)
        return (whole * self.input + cached * self.cached_input + made * self.output) / PER_TOKENS


class Prices:
    """Prices by model."""

    def __init__(self, prices: Mapping[str, Price]) -> None:
        self._prices = prices

    def __bool__(self) -> bool:
        return bool(self._prices)

    def of(self, model: str) -> Price | None:
        """Return the price of *model*: the one of its name, or of the longest name that it begins with."""
        found = [name for name in self._prices if model.startswith(name)]
        return self._prices[max(found, key=len)] if found else None

    def costs(self, used: Mapping[str, Mapping[str, int]]) -> dict[str, float]:
        """Return what *used*, a :attr:`Usage.by_model`, has cost by model, without models that have no price."""
        priced = {model: (self.of(model), counts) for model, counts in used.items()}
        return {model: price.of(counts) for model, (price, counts) in priced.items() if price is not None}

    def table(self) -> dict[str, dict[str, float]]:
        """Return the prices of a million tokens by the beginnings of models' names."""
        return {model: asdict(price) for model, price in self._prices.items()}


def cost_of(costs: Mapping[str, float]) -> float | None:
    """Return the sum of *costs* by model; ``None`` if no model has a price."""
    return sum(costs.values()) if costs else None


NO_PRICES: Final = Prices({})


def load_prices(file: str) -> Prices:
    """Read the file of the setting ``prices``; empty: there are none.

    Raises:
        ConfigurationError: It cannot be read, or a price is not a number.
    """
    if not file:
        return NO_PRICES
    try:
        tables = tomllib.loads(Path(file).read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"The file of prices {file!r} cannot be read: {error}.") from error
    return Prices({model: _price(file, model, table) for model, table in tables.items()})


def _price(file: str, model: str, table: Any) -> Price:
    given: dict[str, Any] = table if isinstance(table, dict) else {}
    unknown = sorted(set(given) - set(_KEYS))
    numbers = all(type(value) in (int, float) and 0 <= value < math.inf for value in given.values())
    if unknown or not numbers or not {"input", "output"} <= set(given):
        raise ConfigurationError(
            f"The file of prices {file!r} has for model {model!r} {table!r}; it must be a table of input, output and, "
            f"if they differ, cached_input: what {PER_TOKENS:,} tokens cost."
        )
    return Price(input=given["input"], output=given["output"], cached_input=given.get("cached_input", given["input"]))
