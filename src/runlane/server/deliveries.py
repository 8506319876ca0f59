"""Webhooks as the server sends them: what the project's langgraph.json allows, and a run as the API shows it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from starlette.applications import Starlette

from runlane.agents.langgraph_json import read_graphs_file
from runlane.runtime import Runtime, utc_now
from runlane.server.config.own_app import OwnApp
from runlane.server.http.responses import run_wire
from runlane.webhooks.deliverer import EXTRA_FIELDS, Deliverer
from runlane.webhooks.policy import WebhooksSection, webhook_policy

#: What :func:`run_wire` gives.
RUN_FIELDS: Final = frozenset(
    {
        "assistant_id",
        "attempt",
        "cancel",
        "cancel_reason",
        "created_at",
        "end_reason",
        "ended_at",
        "error",
        "kwargs",
        "metadata",
        "model_name",
        "multitask_strategy",
        "run_id",
        "started_at",
        "status",
        "thread_id",
        "updated_at",
        "usage",
    }
)


def new_deliverer(config: Path | None, runtime: Runtime, own: Starlette | None) -> Deliverer:
    """Return what sends the webhooks of *runtime*'s runs by the rules of *config*, a ``langgraph.json``.

    Args:
        own: The project's own application, which relative URLs reach.

    Raises:
        ConfigurationError: Its ``webhooks``, or the setting ``webhook_secret``, cannot be used.
    """
    section = None if config is None else read_graphs_file(config).section("webhooks", WebhooksSection)
    fields = RUN_FIELDS | EXTRA_FIELDS
    return Deliverer(
        store=runtime.store,
        policy=webhook_policy(section or WebhooksSection(), os.environ, fields, local=own is not None),
        payload=run_wire,
        settings=runtime.settings,
        now=utc_now,
        telemetry=runtime.telemetry,
        local=None if own is None else OwnApp(own).post,
    )
