"""What a coroutine did to the world is not done again because its process was killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROCESS = """
import asyncio, os, signal, sys
from runlane import open_runtime
from runlane.agents.coroutine import CoroutineAgent

database, ledger = sys.argv[1:3]

async def charge(context):
    with open(ledger, "a") as card:
        card.write("charged\\n")
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with open_runtime(database, graph_agent={"charge": CoroutineAgent(charge)}.__getitem__) as runtime:
        found = await runtime.runs.list_by_thread("t")
        run = found[0] if found else await runtime.runs.create("t", kwargs={"graph_id": "charge"})
        ending = await runtime.runs.join(run.run_id)
        print(ending.status, ending.end_reason)

asyncio.run(main())
"""


def test_a_card_is_charged_once_though_the_process_that_charged_it_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROCESS, f"sqlite:///{tmp_path / 'runs.db'}", str(tmp_path / "card")]
    killed, restarted = (
        subprocess.run(command, check=False, capture_output=True, text=True, timeout=60) for _ in range(2)
    )
    assert killed.returncode == -9
    assert restarted.stdout == "error worker_lost\n", restarted.stderr
    assert (tmp_path / "card").read_text() == "charged\n"
