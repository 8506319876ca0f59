"""Record what a reference server answers to the requests of the differential test.

The reference is installed and started outside this repository, on a copy of the tests' project:

    python -m venv /tmp/reference && /tmp/reference/bin/pip install langgraph-api 'langgraph-cli[inmem]'
    cp -r tests/server /tmp/reference-project && cd /tmp/reference-project/reference_project
    /tmp/reference/bin/langgraph dev --no-browser --no-reload --allow-blocking --n-jobs-per-worker 4 --port 2025
    .venv/bin/python tests/record_reference.py --url http://127.0.0.1:2025

The answers are facts about a program's behaviour; nothing of its code is read or kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import httpx

from differential import ask
from server.exchanges import SCENARIOS

TESTS = Path(__file__).parent
ANSWERS = TESTS / "server" / "reference_answers.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="where the reference server listens; it must be fresh")
    parser.add_argument("--only", help="record this scenario alone, and print it")
    given = parser.parse_args()
    chosen = {given.only: SCENARIOS[given.only]} if given.only else SCENARIOS
    with httpx.Client(base_url=given.url, timeout=60.0) as client:
        answers = ask(client, chosen)
    lines = [f"{json.dumps(step)}: {json.dumps(answer, ensure_ascii=False)}" for step, answer in answers.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    if given.only:
        sys.stdout.write(text)
    else:
        ANSWERS.write_text(text)


if __name__ == "__main__":
    main()
