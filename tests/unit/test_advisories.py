"""The audit says what is known, and never calls clear what it could not ask about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advisories import FOUND, NOT_ASKED, ROOT, Answers, audit, locks_of

CLEAR = {"name": "a", "version": "1", "vulns": []}
SKIPPED = {"name": "a", "skip_reason": "not found on PyPI"}
ADVISORY = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2"], "description": "It\nleaks."}


def asked(folder: Path, **services: Any) -> Answers:
    """Audit a lock with one version by an auditor that answers for each service as told."""
    lock, auditor = folder / "requirements.lock", folder / "auditor"
    lock.write_text("a==1 \\\n    --hash=sha256:00\n    # via b\n")
    cases = "".join(
        f"*service?{name}?*) cat <<'E'\n{json.dumps({'dependencies': told})}\nE\n;;\n"
        for name, told in services.items()
    )
    auditor.write_text(f"#!/bin/sh\ncase \"$*\" in\n{cases}*) echo 'cannot be reached' >&2; exit 1 ;;\nesac\n")
    auditor.chmod(0o700)
    return audit(auditor, [lock], ())


def test_nothing_is_known_of_what_was_asked(tmp_path: Path) -> None:
    answers = asked(tmp_path, pypi=[CLEAR])
    assert (answers.code, answers.lines()) == (0, ["1 locked versions were asked about; advisories apply to 0."])


def test_an_advisory_is_found_and_said(tmp_path: Path) -> None:
    answers = asked(tmp_path, pypi=[{**CLEAR, "vulns": [ADVISORY]}])
    assert answers.code == FOUND
    assert answers.lines()[0] == "a 1: PYSEC-1 (CVE-1), mended in 2: It leaks."


def test_the_next_service_is_asked_about_what_one_does_not_know(tmp_path: Path) -> None:
    assert asked(tmp_path, pypi=[SKIPPED], osv=[CLEAR]).code == 0
    assert asked(tmp_path, osv=[{**CLEAR, "vulns": [ADVISORY]}]).code == FOUND


@pytest.mark.parametrize("services", [{}, {"pypi": [SKIPPED]}, {"pypi": []}, {"pypi": [SKIPPED], "osv": [SKIPPED]}])
def test_what_could_not_be_asked_is_never_called_clear(tmp_path: Path, services: dict[str, Any]) -> None:
    answers = asked(tmp_path, **services)
    assert answers.code == NOT_ASKED
    assert answers.lines()[0] == "0 locked versions were asked about; advisories apply to 0."
    assert answers.lines()[1].startswith("NOT ASKED about 1 others, of which nothing is known here.")


def test_an_auditor_that_is_not_there_has_asked_nothing(tmp_path: Path) -> None:
    (tmp_path / "requirements.lock").write_text("a==1\n")
    assert audit(tmp_path / "none", [tmp_path / "requirements.lock"], ()).code == NOT_ASKED


def test_every_lock_of_the_project_is_audited() -> None:
    kept = {path for path in ROOT.rglob("*.lock") if not any(part[0] == "." for part in path.relative_to(ROOT).parts)}
    assert set(locks_of(ROOT)) == {path for path in kept if "node_modules" not in path.parts}
