"""Filters on metadata, as a table: what an application's authorisation can say, and what it means."""

from __future__ import annotations

from typing import Any

import pytest

from runlane.errors import ConfigurationError
from runlane.server.auth.access import Access
from runlane.store.filters import filter_params, matches

MINE = {"owner": "ann", "teams": ["red", "blue"], "level": 1, "open": True, "none": None}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, True),
        ({"owner": "ann"}, True),
        ({"owner": "bob"}, False),
        ({"owner": {"$eq": "ann"}}, True),
        ({"owner": "ann", "level": 1}, True),
        ({"owner": "ann", "level": 2}, False),
        ({"missing": "x"}, False),
        ({"missing": None}, False),
        ({"none": None}, True),
        ({"level": True}, False),
        ({"level": 1.0}, True),
        ({"open": 1}, False),
        ({"open": True}, True),
        ({"owner": "ANN"}, False),
        ({"teams": "red"}, False),
        ({"teams": {"$contains": "red"}}, True),
        ({"teams": {"$contains": ["blue", "red"]}}, True),
        ({"teams": {"$contains": ["blue", "green"]}}, False),
        ({"owner": {"$contains": "ann"}}, False),
        ({"owner": {"$contains": "a"}}, False),
        ({"teams": {"$contains": "red", "$eq": "red"}}, False),
        ({"$or": [{"owner": "bob"}, {"teams": {"$contains": "blue"}}]}, True),
        ({"$or": [{"owner": "bob"}, {"missing": 1}]}, False),
        ({"$and": [{"owner": "ann"}, {"open": True}]}, True),
        ({"$and": [{"owner": "ann"}, {"open": False}]}, False),
        ({"owner": "bob", "$or": [{"open": True}]}, False),
        ({"$or": [{"$and": [{"owner": "ann"}, {"level": 2}]}, {"level": {"$eq": 1}}]}, True),
    ],
)
def test_a_filter_matches_what_it_says(where: dict[str, Any], expected: bool) -> None:
    assert matches(where, MINE) is expected
    assert Access(owner="ann", reads="ann", where=where).permits(MINE) is expected


def test_no_filter_permits_everything() -> None:
    assert Access(owner="ann", reads="ann").permits({})


@pytest.mark.parametrize(
    "where",
    [
        {"owner": ["ann"]},
        {"owner": {}},
        {"owner": {"$ne": "ann"}},
        {"owner": {"name": "ann"}},
        {"$not": [{"owner": "ann"}]},
        {"$or": []},
        {"$or": {"owner": "ann"}},
        {"$or": ["ann"]},
        {"teams": {"$contains": []}},
        {"teams": {"$contains": [["red"]]}},
        {"level": float("nan")},
        {"level": 2**64},
        {"owner": "a\0"},
        {"owner": "\ud800"},
        {1: "ann"},
        ["owner"],
        "owner",
    ],
    ids=repr,
)
def test_what_is_no_filter_is_refused_rather_than_taken_for_everything(where: Any) -> None:
    with pytest.raises(ConfigurationError):
        filter_params(where)
