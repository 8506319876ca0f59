"""The documentation site is built without a warning, has every page, and asks no other host for anything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from documentation_site import BUILT, DOCS, build

#: What a page loads, and not what it links to.
LOADED = re.compile(r"<(?:script|img|iframe|link(?=[^>]*stylesheet))[^>]*?(?:src|href)=[\"']?([^\"'\s>]+)")


@pytest.fixture(scope="module")
def pages() -> list[Path]:
    build()
    return sorted(BUILT.rglob("*.html"))


def test_the_site_has_every_page_in_its_navigation(pages: list[Path]) -> None:
    written = {page.relative_to(DOCS).with_suffix(".html").as_posix() for page in DOCS.rglob("*.md")} - {"README.html"}
    assert written <= {page.relative_to(BUILT).as_posix() for page in pages}
    home = (BUILT / "index.html").read_text()
    assert [page for page in written if f'"{page}"' not in home and f"={page}" not in home] == []


def test_no_page_loads_anything_from_another_host(pages: list[Path]) -> None:
    loaded = {address for page in pages for address in LOADED.findall(page.read_text())}
    assert len(loaded) > 3
    assert [address for address in loaded if re.match(r"\w+:|//", address)] == []
