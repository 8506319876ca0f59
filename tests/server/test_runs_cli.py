"""What ``runlane runs`` says of things that are not as they were asked for."""

from __future__ import annotations

import asyncio

from click.testing import CliRunner, Result
from langgraph_sdk.client import LangGraphClient

from runlane.cli.main import app
from server_kit import NOWHERE, Server, ended


async def runlane(server: Server, *arguments: str) -> Result:
    invoke = CliRunner().invoke
    return await asyncio.to_thread(invoke, app, ["runs", *arguments, "--url", server.url])


async def test_a_run_that_has_ended_is_said_to_have_when_it_is_cancelled(
    server: Server, client: LangGraphClient, thread_id: str
) -> None:
    run = await ended(client, await client.runs.create(thread_id, "steps", input={"steps": 1}))
    for option in ("--wait", "--no-wait"):
        told = await runlane(server, "cancel", run["run_id"], option)
        assert (told.exit_code, told.stdout) == (0, f"{run['run_id']} had ended: success\n")
    told = await runlane(server, "cancel", NOWHERE)
    assert (told.exit_code, told.stderr) == (3, f"error: Run '{NOWHERE}' not found.\n")


async def test_what_is_no_id_names_nothing_whatever_path_it_would_make(server: Server) -> None:
    for asked in ("../threads", "..", "a/b?c#d", "", "%2e%2e/ok"):
        for command in ("show", "tail", "cancel"):
            told = await runlane(server, command, asked)
            assert (told.exit_code, told.stderr) == (3, f"error: Run '{asked}' not found.\n")
        told = await runlane(server, "ls", "--thread", asked)
        assert (told.exit_code, told.stderr) == (3, f"error: Thread '{asked}' not found.\n")


async def test_an_address_of_something_else_is_said_to_be_that(server: Server) -> None:
    for path in ("/docs", "/ok", "/nothing"):
        told = await asyncio.to_thread(CliRunner().invoke, app, ["runs", "ls", "--url", server.url + path])
        assert (told.exit_code, told.stderr) == (
            4,
            f"error: {server.url + path} does not answer like a Runlane server. Check the address.\n",
        )
