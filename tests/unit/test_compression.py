"""Compressed bytes read as what was compressed, also by a later version."""

from __future__ import annotations

import random
from hashlib import blake2b

import pytest

from runlane.documents import compression
from runlane.documents.compression import packed, unpacked


@pytest.mark.parametrize("seed", range(40))
def test_any_bytes_read_as_they_were(seed: int) -> None:
    rng = random.Random(seed)
    data = rng.choice([b"", b"\xc1", b"\xc1\x01", b"\x82\xa4type"]) + rng.choice(
        [rng.randbytes(rng.randrange(2000)), b"text " * rng.randrange(9000)]
    )
    short = packed(data)
    assert unpacked(short) == data
    assert len(short) <= len(data) or data.startswith(b"\xc1")


def test_what_langgraph_says_of_a_step_takes_a_third() -> None:
    said = (
        b'{"content":"ok","additional_kwargs":{},"response_metadata":{},"type":"ai","name":null,"id":'
        b'"52a5df76-2b48-498c-bb24-ea03bde3a0b9","tool_calls":[],"invalid_tool_calls":[],"usage_metadata":null}'
    )
    assert len(packed(said)) < len(said) / 3


def test_the_dictionary_of_a_mark_never_changes() -> None:
    """What was stored with it would not be read any more: make another one, with another mark."""
    digest = blake2b(compression._COMMON, digest_size=8).hexdigest()
    assert (compression._DICTIONARY_1, digest) == (b"\xc1\x01", "98d85c7a8402af44")


@pytest.mark.parametrize(
    "data", [b"\xc1", b"\xc1\x02" + b"x" * 50, b"\xc1\x01" + b"x" * 50, packed(b"\xc1" + b"y" * 99)[:-2]]
)
def test_damaged_bytes_are_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="damaged"):
        unpacked(data)
