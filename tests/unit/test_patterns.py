"""Regular expressions that meet text from outside take linear time, whatever the text is made of."""

from __future__ import annotations

import importlib
import pkgutil
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

import runlane
from runlane.redaction import names_secret, redact_text

SHORT, LONG = 32 * 1024, 1_000_000
#: In seconds of this process's CPU. Linear patterns take a tenth; at SHORT, a quadratic one takes seconds.
SHORT_S, LONG_S = 0.5, 5.0
#: What texts are made of that have made patterns slow, repeated.
UNITS = (
    *("a", "A", "1", " ", "\n", ".", "-", "_", "=", "'", '"', "\\", "+", "aA", "_a", "a.", "a-", "a=", "a:"),
    *("'\\", '"\\', '\\"', '"a', "[", "a[1]", "[-1", "${{ env.", "\\\\u0000", "\\u000", "://", "://a:", "a://b:"),
    *("bearer+", "bearer ", "basic/bearer+", "bearer     ", "token=", "token='", "token\\\"'", "secret, b"),
    *("api_key", "cookie=", "cookie'", "Authorization: ", "eyJ", "-eyJ", "-eyJaaaaaaaa.", "eyJ."),
    *("eyJaaaaaaaa.aaaaaaaa ", "sk-", "x_sk-", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----"),
    *("sk-aaaaaaaaaaaaaaaa-", "a@", "a,b; "),
)


def _patterns() -> dict[str, re.Pattern[Any]]:
    """Return every pattern that a module of ours has, by its name; a new one is tested without being listed."""
    found: dict[str, re.Pattern[Any]] = {}
    for module in pkgutil.walk_packages(runlane.__path__, "runlane."):
        if "migrations" in module.name or module.name.endswith("__main__"):
            continue  # they read our own SQL only
        for name, value in vars(importlib.import_module(module.name)).items():
            found.update({f"{module.name}.{name}": one for one in _within(value)})
    return found


def _within(value: Any) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _within(item)


def _cpu_s(pattern: re.Pattern[Any], unit: str, length: int) -> float:
    text: Any = (unit * (length // len(unit) + 1))[:length]
    if isinstance(pattern.pattern, bytes):
        text = text.encode()
    started = time.process_time()
    pattern.match(text)
    if pattern.pattern[-2:] not in (r"\Z", rb"\Z"):  # those are for whole texts, and nobody searches with them
        pattern.findall(text)
    return time.process_time() - started


@pytest.mark.parametrize("name", sorted(_patterns()))
def test_a_pattern_takes_linear_time(name: str) -> None:
    pattern = _patterns()[name]
    taken = {}
    for unit in UNITS:
        taken[unit] = _cpu_s(pattern, unit, SHORT)
        assert taken[unit] < SHORT_S, unit
    slowest = max(taken, key=lambda unit: taken[unit])
    assert _cpu_s(pattern, slowest, LONG) < LONG_S, slowest


def test_redacting_a_text_of_a_megabyte_takes_little_time() -> None:
    for unit in UNITS:
        text = (unit * (LONG // len(unit) + 1))[:LONG]
        started = time.process_time()
        redact_text(text)
        names_secret(text)
        assert time.process_time() - started < 1, unit
