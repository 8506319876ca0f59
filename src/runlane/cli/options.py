"""Options and arguments that several commands have, and the help of their groups."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from runlane.cli.logs import FORMATS, LogLevel
from runlane.cli.values import Finite

PATH: Final = click.Path(path_type=Path)


class Commands(click.Group):
    """A group whose help has the whole first sentence of each command, also if that takes several lines."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sentences = [(name, self.commands[name].get_short_help_str(limit=1000)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(sentences)


project = click.argument("project", type=PATH, default=Path())
config = click.option("--config", type=PATH, help="The langgraph.json, if it has another name.")
host = click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    envvar="RUNLANE_HOST",
    show_envvar=True,
    help="Address to listen on; 0.0.0.0 is all.",
)
port = click.option(
    "--port",
    type=int,
    default=2024,
    show_default=True,
    envvar="RUNLANE_PORT",
    show_envvar=True,
    help="Port to listen on; 0 is any free one.",
)
probe_port = click.option(
    "--probe-port",
    type=int,
    envvar="RUNLANE_PROBE_PORT",
    show_envvar=True,
    help="Answer GET /ok and GET /metrics on this port; 0 is any free one.  [default: listen on no port]",
)
database = click.option(
    "--database",
    help="sqlite:///PATH, postgresql://HOST/NAME or memory://.  [default: PROJECT/.runlane/runlane.db]",
)
log_level = click.option(
    "--log-level",
    type=click.Choice([level.value for level in LogLevel]),
    default=LogLevel.INFO.value,
    show_default=True,
    envvar="RUNLANE_LOG_LEVEL",
    show_envvar=True,
    help="Least severe level that is logged.",
)
max_concurrent_runs = click.option("--max-concurrent-runs", type=int, help="Runs that execute at once.")
run_timeout = click.option(
    "--run-timeout", type=Finite(), help="A run that executes longer ends as timeout, in seconds."
)
drain_grace = click.option(
    "--drain-grace",
    type=Finite(),
    help="How long runs may go on after SIGTERM before they are handed back, in seconds.",
)
log_format = click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    default=FORMATS[0],
    show_default=True,
    envvar="RUNLANE_LOG_FORMAT",
    show_envvar=True,
    help="Logs as key=value lines, as JSON, or coloured for a person to read.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
always_json = click.option("--json", is_flag=True, expose_value=False, help="Print JSON, as without it.")
