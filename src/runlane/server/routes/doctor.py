"""Routes of the doctor: what is wrong with the ledger, and its repair, finding by finding or thread by thread."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from runlane.doctor.live import Repaired, ShownFinding
from runlane.server.http.requests import Body
from runlane.server.http.responses import json_response
from runlane.server.http.route import Resource, Route
from runlane.server.routes.authorization import administer, reach_thread, service_of

FindingId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}$")]


class RepairFindings(Body):
    findings: Annotated[list[FindingId], msgspec.Meta(min_length=1, max_length=100)]
    preview: bool = True


class RepairThread(Body):
    preview: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The result of the last examination by the process that answers.

    Attributes:
        as_of: When it began; ``None``: there was none yet.
        examining: Another one goes on.
        complete: It saw everything; otherwise `runlane doctor` sees the rest.
        checked: How many rows of each kind it saw.
    """

    as_of: datetime | None
    examining: bool
    complete: bool
    checked: dict[str, int]
    findings: tuple[ShownFinding, ...]


async def get_doctor(request: Request) -> Response:
    """Return what was wrong with the ledger at the last examination; if that is too old, another one begins."""
    await administer(request, "doctor", "read", {})
    doctor = service_of(request).doctor
    doctor.look()
    return json_response(_diagnosis(request))


async def examine_now(request: Request) -> Response:
    """Begin an examination of the ledger, unless one goes on; ``GET`` has its result, once it is there."""
    await administer(request, "doctor", "repair", {})
    service_of(request).doctor.look(again=True)
    return json_response(_diagnosis(request), status=202)


def _diagnosis(request: Request) -> Diagnosis:
    doctor = service_of(request).doctor
    latest = doctor.latest
    return Diagnosis(
        as_of=None if latest is None else latest.as_of,
        examining=doctor.examining,
        complete=latest is not None and latest.complete,
        checked={} if latest is None else latest.checked,
        findings=() if latest is None else latest.findings,
    )


async def repair_findings(request: Request, body: RepairFindings) -> Response:
    """Repair findings of the last examination, each in a transaction of its own; with ``preview`` say what would be."""
    await administer(request, "doctor", "read" if body.preview else "repair", {"findings": body.findings})
    return json_response(await service_of(request).doctor.repair(body.findings, preview=body.preview))


async def repair_thread(request: Request, body: RepairThread) -> Response:
    """Examine a thread and its 20 newest runs, and repair what can be; with ``preview`` say what would be."""
    action = "read" if body.preview else "update"
    _, thread = await reach_thread(request, action, {} if body.preview else {"action": "repair"})
    return json_response(await service_of(request).doctor.repair_thread(thread.thread_id, preview=body.preview))


DOCTOR = Resource(
    tag="Operators",
    group=None,
    routes=(
        Route("GET /operator/doctor", get_doctor, answer=Diagnosis, errors=(403,)),
        Route("POST /operator/doctor", examine_now, answer=Diagnosis, success=(202,), errors=(403,)),
        Route("POST /operator/doctor/repair", repair_findings, answer=list[Repaired], errors=(403,)),
        Route("POST /threads/{thread_id}/repair", repair_thread, answer=list[Repaired], errors=(404,), example={}),
    ),
)
