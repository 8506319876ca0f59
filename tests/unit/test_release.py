"""The notes of a release are what the changelog says of its version, and nothing else."""

from __future__ import annotations

import pytest

from release import NotReleasable, notes

CHANGELOG = """# Changelog

## [Unreleased]

- later

## [1.10.0] - 2026-12-01

### Added

- a thing

## [1.1.0] - 2026-11-30

- an older thing
"""


def test_the_notes_are_the_section_of_the_version() -> None:
    assert notes(CHANGELOG, "1.10.0") == "### Added\n\n- a thing\n"
    assert notes(CHANGELOG, "1.1.0") == "- an older thing\n"


def test_a_version_that_the_changelog_does_not_name_is_refused() -> None:
    with pytest.raises(NotReleasable, match=r"no section \[1.1\]"):
        notes(CHANGELOG, "1.1")
