"""What is known to go wrong in servers of this API, and where it is proved that it does not here.

Each weakness has a number and the tests that would fail if Runlane had it. The tests in this file are those that had no
better place.
"""

from __future__ import annotations

import ast
import asyncio
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from runlane.maintenance.retention import ThreadSweeper
from server_kit import NOWHERE, NewDatabase, Server, begun, ended, gone, running_server, sdk

TESTS = Path(__file__).parents[1]
HERE = "server/test_weaknesses.py"
RESTARTS = "acceptance/test_restarts.py::test_runs_cut_by_a_stop_go_on_after_the_restart_and_end_once"
PROOFS = {
    "1 a killed process loses every checkpoint": [RESTARTS],
    "2 acknowledged writes are lost in a crash": [
        RESTARTS,
        "acceptance/test_server_process.py::test_a_cancel_that_was_accepted_outlives_its_process",
    ],
    "3 an interrupted run restarts from its first step": [RESTARTS],
    "4 a run that kills its process is retried forever": [
        "acceptance/test_server_process.py::test_a_run_that_kills_its_process_ends_as_error_after_max_rescues",
        "acceptance/test_server_process.py::test_a_node_that_exits_fails_its_run_and_the_server_goes_on",
    ],
    "5 a shutdown cuts off cleanup and streams": [
        "acceptance/test_server_process.py::test_a_draining_server_answers_but_admits_nothing_and_lets_runs_finish",
        "component/test_acceptance_shutdown.py::test_a_drain_waits_for_code_that_cleans_up",
        "server/test_control.py::test_a_draining_server_admits_nothing_and_lets_readers_come_back",
    ],
    "6 two runs execute at once on one thread": [
        "component/test_acceptance_admission.py::test_a_replacement_starts_only_after_the_run_before_it_has_ended",
        f"{HERE}::test_a_superseded_run_that_takes_long_to_stop_writes_nothing_over_its_successor",
    ],
    "7 cancelling many runs stops nothing": [
        "server/test_batch.py::test_cancelled_runs_have_stopped_before_their_thread_goes_on",
        "server/test_batch.py::test_runs_are_cancelled_by_their_status",
    ],
    "8 a deleted run, or a run of a deleted thread, continues": [
        "server/test_runs.py::test_deleting_a_running_run_stops_it_first",
        "server/test_threads.py::test_deleting_a_thread_stops_its_runs_first",
    ],
    "9 threads are busy without a run, or idle with one": [
        f"{HERE}::test_a_thread_is_busy_exactly_while_a_run_is_active",
    ],
    "10 a busy thread delays another one": [
        f"{HERE}::test_a_lane_full_of_waiting_runs_delays_no_other_thread",
        "component/test_worker.py::test_a_long_lane_holds_one_slot",
    ],
    "11 one worker; a blocking node stops the server": [
        f"{HERE}::test_runs_of_different_threads_execute_at_once",
        "server/test_control.py::test_a_node_that_blocks_its_thread_blocks_nobody_else",
    ],
    "12 multitask decisions come late; an interrupt is answered twice": [
        "server/test_protocol_commands.py::test_a_busy_thread_is_refused_at_once",
        "server/test_protocol_commands.py::test_a_run_behind_another_is_pending_at_once",
        "server/test_protocol_commands.py::test_of_many_answers_at_once_one_counts_and_the_others_are_told",
    ],
    "13 a failed batch runs its valid entries": [
        "server/test_batch.py::test_one_bad_entry_is_named_and_nothing_is_admitted",
    ],
    "14 events share ids and are lost on reconnect": [
        "server/test_streams.py::test_ids_strictly_grow_as_text",
        "component/test_streams.py::test_a_reader_that_comes_back_gets_every_later_event_once_from_any_cursor",
        "server/test_runs_requests.py::test_messages_are_replayed_as_they_were_streamed_and_no_id_repeats",
        "server/test_thread_stream.py::test_ids_of_all_runs_strictly_grow_and_each_is_a_place_to_go_on_from",
    ],
    "15 messages cannot be replayed": [
        "server/test_runs_requests.py::test_messages_are_replayed_as_they_were_streamed_and_no_id_repeats",
    ],
    "16 joining with several modes honours only one": [
        "server/test_runs_requests.py::test_a_joiner_is_sent_every_mode_that_it_names_in_any_spelling",
        "server/test_thread_stream.py::test_the_sdk_joins_a_thread",
        "server/test_thread_stream.py::test_a_state_that_is_written_from_outside_is_told",
    ],
    "17 the `Location` of a stateless stream is 404": [
        "server/test_stateless.py::test_a_stateless_stream_is_addressed_so_that_it_can_be_joined",
        "acceptance/test_server_process.py::test_streams_of_stateless_runs_go_on_across_a_restart",
    ],
    "18 streams have no end status; a timeout looks like a result": [
        "component/test_acceptance_streams.py::test_every_ending_has_exactly_one_end",
        "server/test_streams.py::test_a_cancelled_run_ends_its_stream",
        "server/test_streams.py::test_a_superseded_run_ends_its_stream",
        "server/test_streams.py::test_a_run_that_takes_too_long_says_so_everywhere",
    ],
    "19 errors are hidden behind a 200": [
        f"{HERE}::test_what_does_not_exist_is_404_on_every_route_that_streams_or_waits",
        "server/test_thread_stream.py::test_a_missing_thread_is_404_and_nonsense_is_422",
        "server/test_protocol_events.py::test_a_reader_that_comes_back_to_a_deleted_thread_is_told",
    ],
    "20 channels stay empty": ["server/test_protocol_events.py::test_every_channel_delivers"],
    "21 streams stay in memory forever, also for readers that do not read": [
        f"{HERE}::test_nothing_of_a_stateless_run_remains_once_its_retention_is_over",
        "component/test_streams.py::test_a_reader_that_does_not_read_makes_nothing_grow",
        "component/test_streams.py::test_the_tail_is_bounded_in_bytes",
    ],
    "22 an idle server starts a run late": [f"{HERE}::test_an_idle_server_starts_a_run_at_once"],
    "23 costs grow with the length of the queue": [
        "contract/test_store_plans.py::test_the_hot_statements_never_scan_ended_runs",
        "contract/test_store_plans.py::test_a_long_lane_costs_an_admission_and_an_end_no_more_than_a_short_one",
    ],
    "24 searches fail on threads without values, or without conditions": [
        "server/test_threads_extras.py::test_a_search_by_values_passes_over_threads_without_any",
        "server/test_bad_input.py::test_no_route_breaks_on_any_nonsense",
    ],
    "25 history cannot be paged with the client's cursors": [
        "server/test_threads.py::test_history_pages_by_every_form_of_a_cursor",
    ],
    "26 forks and copies show a wrong state": [
        "server/test_threads.py::test_a_fork_by_update_is_the_threads_newest_state",
        "server/test_threads_extras.py::test_a_copy_of_an_interrupted_thread_is_interrupted_and_goes_its_own_way",
    ],
    "27 versions are restored incompletely; anyone can delete a shared assistant": [
        "server/test_assistants.py::test_versions_grow_with_each_change_and_can_be_chosen",
        "server/test_assistants.py::test_a_system_assistant_cannot_be_taken_from_everybody",
        "server/test_assistants.py::test_nobody_can_pose_as_the_system",
    ],
    "28 totals are wrong; options are accepted but not honoured": [
        "server/test_assistants.py::test_search_pages_with_a_true_total",
        "server/test_threads_extras.py::test_the_total_of_a_search_is_the_total",
        "server/test_threads_expiry.py::test_an_expired_thread_goes_with_all_that_it_has",
        "server/test_items.py::test_an_item_lives_for_its_own_time_or_the_configured_one",
        "server/test_bad_input.py::test_an_option_of_a_run_that_is_not_honoured_is_named",
        "server/test_threads.py::test_a_history_of_which_a_part_cannot_be_written_leaves_no_thread",
    ],
    "29 reading creates a namespace": ["server/test_items.py::test_reading_what_is_not_there_creates_nothing"],
    "30 a header bypasses authentication": ["server/test_auth.py::test_the_header_of_langgraph_studio_opens_nothing"],
    "31 the user object is stored, returned and streamed": [
        "server/test_auth_runs.py::test_user_objects_are_never_stored_returned_or_streamed",
    ],
    "32 without a handler every user sees everything": [
        "server/test_auth_handlers.py::test_without_a_handler_a_user_has_what_they_made",
        "server/test_auth.py::test_the_status_the_text_and_the_headers_of_a_refusal_are_the_handlers_own",
    ],
    "33 private-network preflights fail": [
        "server/test_origins.py::test_a_private_network_is_reached_by_named_origins_or_with_authentication",
    ],
    "34 tool results are not JSON": [
        "server/test_mcp.py::test_a_call_runs_the_assistant_and_answers_json_as_an_object_and_as_text",
    ],
}


def _tests_of(path: Path) -> set[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, kinds)}


def test_every_weakness_has_a_proof_that_exists() -> None:
    assert [int(weakness.split()[0]) for weakness in PROOFS] == list(range(1, 35))
    named = {tuple(proof.split("::")) for proofs in PROOFS.values() for proof in proofs}
    tests = {path: _tests_of(TESTS / path) for path, _ in named}
    assert [name for path, name in sorted(named) if name not in tests[path]] == []
    own = {name for name in tests[HERE] if name.startswith("test_")}
    assert own - {name for path, name in named if path == HERE} == {
        test_every_weakness_has_a_proof_that_exists.__name__
    }


async def test_a_superseded_run_that_takes_long_to_stop_writes_nothing_over_its_successor(
    client: LangGraphClient, thread_id: str
) -> None:
    first = await begun(client, thread_id, input={"steps": 9, "block_s": 0.3})  # it cannot be stopped while it blocks
    second = await client.runs.create(
        thread_id, "steps", input={"steps": 1, "block_s": 0, "delay_s": 0}, multitask_strategy="interrupt"
    )
    assert (await ended(client, second))["status"] == "success"
    stopped: Any = await client.runs.get(thread_id, first["run_id"])
    succeeded: Any = await client.runs.get(thread_id, second["run_id"])
    assert stopped["status"] == "interrupted"
    assert stopped["ended_at"] <= succeeded["started_at"]
    thread: Any = await client.threads.get(thread_id)
    assert (thread["status"], thread["error"]) == ("idle", None)
    assert thread["values"] == (await client.runs.join(thread_id, second["run_id"]))


@pytest.mark.parametrize("what", ["rollback a pending run", "rollback a running run", "delete a run"])
async def test_a_thread_is_busy_exactly_while_a_run_is_active(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str, what: str
) -> None:
    running = await begun(client, thread_id)
    queued = await client.runs.create(thread_id, "steps", input={"steps": 1, "delay_s": 0})
    path = f"/threads/{thread_id}/runs/"
    if what == "rollback a pending run":
        await client.runs.cancel(thread_id, queued["run_id"], action="rollback")
        await gone(client, f"{path}{queued['run_id']}")
        assert (await client.threads.get(thread_id))["status"] == "busy", "the other run goes on"
        await client.runs.cancel(thread_id, running["run_id"], wait=True)
    elif what == "rollback a running run":
        await client.runs.cancel(thread_id, running["run_id"], action="rollback")
        await gone(client, f"{path}{running['run_id']}")
        await ended(client, queued)
    else:
        await client.runs.cancel(thread_id, queued["run_id"])
        assert (await client.threads.get(thread_id))["status"] == "busy", "cancelling one that waits frees no thread"
        await client.runs.delete(thread_id, running["run_id"])
    assert (await client.threads.get(thread_id))["status"] != "busy"
    again: Any = await client.runs.wait(thread_id, "steps", input={"steps": 1, "delay_s": 0})
    assert again["done"]


async def test_a_lane_full_of_waiting_runs_delays_no_other_thread(client: LangGraphClient, thread_id: str) -> None:
    first = await begun(client, thread_id)
    queued = [await client.runs.create(thread_id, "steps", input={"steps": 1}) for _ in range(30)]
    values: Any = await client.runs.wait(
        (await client.threads.create())["thread_id"], "steps", input={"steps": 1}, multitask_strategy="reject"
    )
    assert values["done"] == [0]
    assert (await client.runs.get(thread_id, queued[0]["run_id"]))["status"] == "pending"
    await client.runs.cancel_many(thread_id=thread_id, run_ids=[run["run_id"] for run in [first, *queued]])


async def test_runs_of_different_threads_execute_at_once(client: LangGraphClient) -> None:
    threads = [(await client.threads.create())["thread_id"] for _ in range(12)]
    runs = [await begun(client, thread_id) for thread_id in threads]  # none of them ends by itself
    statuses = {(await client.runs.get(run["thread_id"], run["run_id"]))["status"] for run in runs}
    assert statuses == {"running"}
    await asyncio.gather(*(client.runs.cancel(run["thread_id"], run["run_id"], wait=True) for run in runs))


@pytest.mark.parametrize("kind", ["stream", "join", ""])
async def test_what_does_not_exist_is_404_on_every_route_that_streams_or_waits(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str, kind: str
) -> None:
    run = await ended(client, await client.runs.create(thread_id, "steps", input={"steps": 1}))
    other = (await client.threads.create())["thread_id"]
    for path in (
        f"/threads/{thread_id}/runs/{NOWHERE}",
        f"/threads/{NOWHERE}/runs/{run['run_id']}",
        f"/threads/{other}/runs/{run['run_id']}",
        f"/runs/{NOWHERE}",
    ):
        answer = await http.get(f"{path}/{kind}".rstrip("/"))
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path


@pytest.fixture
def alone(new_database: NewDatabase) -> Iterator[Server]:
    """Give a server on which nothing else happens."""
    with running_server(new_database(), stateless_retention_s=0) as running:
        yield running


async def test_nothing_of_a_stateless_run_remains_once_its_retention_is_over(alone: Server) -> None:
    service = alone.app.state.service
    async with sdk(alone) as client:
        stream = client.runs.stream(None, "steps", input={"steps": 300}, stream_mode="debug", stream_resumable=True)
        parts = [part async for part in stream]
        assert len(parts) > 300
        assert alone.on_loop(ThreadSweeper(store=service.store, saver=service.runtime.saver).sweep_temporary()) == 1
        assert vars(service.streams)["_live"] == {}
        assert alone.on_loop(service.store.events.read(1, after=0)) == ()
        assert await client.threads.count() == 0


async def test_an_idle_server_starts_a_run_at_once(alone: Server) -> None:
    took_s = []
    async with sdk(alone) as client:
        thread_id = (await client.threads.create())["thread_id"]
        for _ in range(11):
            began = time.perf_counter()
            await client.runs.wait(thread_id, "steps", input={"steps": 1})
            took_s.append(time.perf_counter() - began)
    assert statistics.median(took_s) < 0.25, took_s  # a server that polls for work takes half a second and more
