"""The command line rejects invalid input with a reason: it sends nothing and leaves no files."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from runlane.cli.main import app
from runlane.cli.output import new_file
from runlane.errors import ConfigurationError

ID = "00000000-0000-4000-8000-000000000000"


def call(*arguments: str) -> Result:
    env = {"RUNLANE_URL": "http://127.0.0.1:9", "RUNLANE_PROFILES": "/nowhere", "RUNLANE_MAX_BODY_BYTES": "4096"}
    return CliRunner(env=env).invoke(app, arguments)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["runs", "ls", "--min-cost", "nan"], "'nan' is not a number"),
        (["store", "put", "notes", "a", "{}", "--ttl", "inf"], "'inf' is not a number"),
        (["store", "put", "notes", "a", '{"rain": NaN}'], "cannot be written as JSON"),
        (["store", "put", "notes", "a", "[" * 100_000], "recursion"),
        (["runs", "start", "steps", "--input", "@/dev/zero"], "has more than 4,096 bytes"),
        (["store", "put", "notes..oslo", "a", "{}"], "has an empty label"),
        (["store", "ls", "notes."], "has an empty label"),
        (["runs", "ls", "--text", "\udcff"], "cannot be written as JSON"),
        (["threads", "ls", "--metadata", "[]"], "is no JSON object"),
        (["threads", "ls", "--metadata", "[1]"], "is no JSON object"),
        (["runs", "ls", "--header", "X-\u00fc: 1"], "The header 'X-\u00fc' cannot be sent"),
        (["runs", "ls", "--api-key", "a secret\n"], "The header 'x-api-key' cannot be sent"),
        (["threads", "delete", ID], "Add --yes"),
        (["runs", "cancel"], "Name the runs"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_its_reason(arguments: list[str], why: str) -> None:
    told = call(*arguments)
    assert told.exit_code == 2, told.output
    assert why in told.stderr
    assert "a secret" not in told.output


@pytest.mark.parametrize("line", [b"", b"{}", b'{"thread": {"metadata": []}}', b"\xff", b"[" * 100_000])
def test_a_line_that_is_no_exported_thread_is_named(line: bytes, tmp_path: Path) -> None:
    file = tmp_path / "threads.jsonl"
    good = b'{"thread": {"thread_id": "%s", "metadata": {}, "values": null}}' % ID.encode()
    file.write_bytes(b"\n".join([good, b"", line or b"nonsense"]))
    told = call("threads", "import", str(file))
    assert told.exit_code == 2
    assert told.stderr.startswith(f"error: Line 3 of {file} is no thread")


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_file_that_cannot_be_finished_is_removed(failure: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "threads.jsonl"

    def write_half() -> None:
        with new_file(path) as target:
            target.write("half")
            raise failure

    with pytest.raises((KeyboardInterrupt, ConfigurationError)):
        write_half()
    assert not path.exists()
    with new_file(path) as target:
        target.write("whole")
    with pytest.raises(ConfigurationError, match="Name another file"), new_file(path):
        pass
    assert path.read_text() == "whole"


def test_a_database_without_a_ledger_is_named_as_one(postgres_url: str) -> None:
    told = call("workers", "ls", "--database", postgres_url)
    assert (told.exit_code, "has no schema of Runlane" in told.stderr) == (2, True), told.output


def test_the_list_of_commands_says_the_whole_sentence_of_each() -> None:
    told = " ".join(call("--help").stdout.split())
    assert "..." not in told.partition("Commands:")[2]
    assert (
        "doctor Check a database for invariant violations, explain each finding and its repair, and repair it" in told
    )
