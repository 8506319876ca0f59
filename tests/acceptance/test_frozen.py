"""P1, P3, P4, P5 and P7 on real processes that stand still for longer than their leases, and then go on.

``RUNLANE_ACCEPTANCE_FREEZES`` (default 2) times the server is frozen in the middle of runs.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import httpx

from acceptance.kit import RUN_LIMIT_S, Reader, Server, get, new_thread
from runlane.maintenance.liveness import GRACE_S

FREEZES = int(os.environ.get("RUNLANE_ACCEPTANCE_FREEZES", "2"))
LEASE_S, POLL_S = 0.6, 0.1
#: After that much silence a worker counts as dead.
FROZEN_S = LEASE_S + GRACE_S + 0.4
RUNS, STEPS = 4, 12


def payload(name: str, *, seconds: float = 0.08, durability: str = "sync") -> dict[str, Any]:
    state = {"name": name, "steps": STEPS, "seconds": seconds, "done": 0, "log": []}
    return {"input": state, "multitask_strategy": "enqueue", "durability": durability}


async def test_a_server_frozen_past_its_leases_goes_on_and_repeats_no_step_that_was_checkpointed(
    tmp_path: Path, http: httpx.AsyncClient
) -> None:
    async with Server(tmp_path, lease_s=LEASE_S, poll_s=POLL_S) as server:
        await server.start()
        for number in range(FREEZES):
            await freeze_once(server, http, str(number))
        assert "run.rescued" in server.log, "no lease was over"


async def freeze_once(server: Server, http: httpx.AsyncClient, name: str) -> None:
    """Freeze the server while runs execute, ask it for things meanwhile, and check what became of all."""
    readers = [Reader(server, http, await new_thread(http, server.url), f"{name}.{n}") for n in range(RUNS)]
    stopped = Reader(server, http, await new_thread(http, server.url), f"{name}.stopped")
    late = Reader(server, http, readers[0].thread_id, f"{name}.late")
    async with asyncio.timeout(RUN_LIMIT_S), asyncio.TaskGroup() as group:
        for reader in readers:
            group.create_task(reader.follow(payload(reader.name)))
        group.create_task(stopped.follow(payload(stopped.name, seconds=0.5)))
        await asyncio.gather(*(reader.reaches(3) for reader in readers), stopped.reaches(1))
        async with server.frozen():
            seen = {reader.name: reader.step for reader in readers}
            path = f"{server.url}/threads/{stopped.thread_id}/runs/{stopped.run_id}/cancel"
            cancelling = group.create_task(http.post(path, params={"wait": "true"}))
            group.create_task(late.follow(payload(late.name, seconds=0.01)))
            await asyncio.sleep(FROZEN_S)  # the fault itself
            assert not cancelling.done()
    assert cancelling.result().status_code == 200, cancelling.result().text
    assert stopped.events[-1].data["status"] == "interrupted"
    for reader in [*readers, late]:
        await check(reader, seen.get(reader.name, 0))
    for thread_id in {reader.thread_id for reader in [*readers, stopped]}:
        assert (await get(http, f"{server.url}/threads/{thread_id}"))["status"] in ("idle", "interrupted")


async def check(reader: Reader, seen_step: int) -> None:
    ids = [event.id for event in reader.events]
    assert ids == sorted(set(ids)), reader.name
    assert [event.name for event in reader.events].count("end") == 1, reader.name
    assert reader.events[-1].data["status"] == "success", (reader.events[-1], reader.server.log)
    assert await reader.replay() == reader.events, f"{reader.name}: the stream had a gap or a repetition"
    starts = reader.server.starts_of(reader.name)
    assert sorted(starts) == list(range(1, STEPS + 1)), (reader.name, starts)
    # The step before one that was seen to start had its checkpoint; what was in flight may be taken again.
    repeated = {step: count for step, count in starts.items() if count > 1}
    assert len(repeated) <= 1, (reader.name, starts)
    assert all(step >= seen_step and count == 2 for step, count in repeated.items()), (reader.name, starts, seen_step)
    thread = await get(reader.http, f"{reader.server.url}/threads/{reader.thread_id}")
    of_run = [entry["step"] for entry in thread["values"]["log"] if entry["name"] == reader.name]
    assert of_run == list(range(1, STEPS + 1)), of_run
