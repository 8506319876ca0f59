"""What models cost, by the operator's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from runlane.errors import ConfigurationError
from runlane.telemetry.prices import NO_PRICES, load_prices

COUNTS = {"input_tokens": 2_000_000, "cached_input_tokens": 500_000, "output_tokens": 100_000}


@pytest.mark.parametrize(
    ("table", "cost"),
    [
        ("input = 2\noutput = 10", 2 * 2 + 10 * 0.1),
        ("input = 2\ncached_input = 0.5\noutput = 10", 2 * 1.5 + 0.5 * 0.5 + 10 * 0.1),
    ],
)
def test_cached_tokens_are_a_part_of_the_input(tmp_path: Path, table: str, cost: float) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(f"[model]\n{table}\n")
    price = load_prices(str(file)).of("model-2026-01-01")
    assert price is not None
    assert price.of(COUNTS) == pytest.approx(cost)
    assert price.of({}) == 0


def test_a_model_without_a_price_has_none() -> None:
    assert load_prices("") is NO_PRICES
    assert NO_PRICES.of("model") is None


@pytest.mark.parametrize(
    "text",
    [
        "[model",
        "model = 1",
        "[model]\ninput = 1",
        "[model]\ninput = 1\noutput = -1",
        "[model]\ninput = true\noutput = 1",
        "[model]\ninput = 1\noutput = nan",
        "[model]\ninput = 1\noutput = 1\nsurcharge = 1",
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match="prices"):
        load_prices(str(file))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_prices(str(tmp_path / "none.toml"))
