"""Nonsense, made by Hypothesis: a few examples, always the same; with ``RUNLANE_FUZZ=N`` N new ones of each kind."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

Test = TypeVar("Test", bound=Callable[..., Any])
_WANTED = int(os.environ.get("RUNLANE_FUZZ", "0"))

#: Text with all that has ever confused a parser.
texts = st.one_of(
    st.text(max_size=20),
    st.text(st.characters(codec=None, exclude_categories=()), max_size=10),  # lone surrogates too
    st.sampled_from(["", "\0", "\ud800", "\u2028", "-", "-1", "0", "9" * 40, "a" * 5000, "*", "../..", "%00", "${{"]),
)
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31, 2**53, 2**63 - 1, 2**63, -(2**63), 2**64 - 1, 2**64, 10**30]),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
)
#: Values that JSON can express, not only those that Python writes.
values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)


def fuzzed(examples: int) -> Callable[[Test], Test]:
    """Run a test with *examples* examples, or as many as are asked for."""
    return settings(
        max_examples=_WANTED or examples,
        derandomize=not _WANTED,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def json_texts(draw: st.DrawFn, members: st.SearchStrategy[tuple[str, Any]]) -> bytes:
    """Give JSON objects made of *members*, also with a key twice, strange numbers, and deep nesting."""
    raw = st.sampled_from(
        [
            "1e400",
            "-0",
            "1" * 400,
            "[" * 150 + "]" * 150,
            "[" * 5000 + "]" * 5000,
            '"\\ud800"',
            '"\\u0000"',
            "NaN",
            "{",
            "",
        ]
    )
    parts = []
    for key, value in draw(st.lists(members, max_size=6)):
        text = draw(raw) if draw(st.integers(0, 9)) == 0 else json.dumps(value)
        parts.append(f"{json.dumps(key)}: {text}")
    return ("{" + ", ".join(parts) + "}").encode("utf-8", "surrogatepass")
