"""The key ``webhooks`` of langgraph.json: what is sent when a run has ended, and where it may go."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from runlane.agents.langgraph_json import read_graphs_file
from runlane.runtime import utc_now
from runlane.settings import Settings
from runlane.store.ledger import RunStore
from runlane.telemetry.emitter import Telemetry
from runlane.webhooks.deliverer import EXTRA_FIELDS, Deliverer, Payload, Post
from runlane.webhooks.policy import WebhooksSection, webhook_policy

#: What :func:`runlane.server.http.responses.run_wire` gives.
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


def new_deliverer(
    config: Path | None,
    store: RunStore,
    settings: Settings,
    *,
    payload: Payload,
    local: Post | None,
    telemetry: Telemetry,
) -> Deliverer:
    """Return what sends the webhooks of *store*'s runs by the rules of *config*, a ``langgraph.json``.

    Args:
        payload: Makes the fields of a run on the wire.
        local: Sends to the project's own application, which relative URLs reach.

    Raises:
        ConfigurationError: Its ``webhooks``, or the setting ``webhook_secret``, cannot be used.
    """
    section = None if config is None else read_graphs_file(config).section("webhooks", WebhooksSection)
    fields = RUN_FIELDS | EXTRA_FIELDS
    return Deliverer(
        store=store,
        policy=webhook_policy(section or WebhooksSection(), os.environ, fields, local=local is not None),
        payload=payload,
        settings=settings,
        now=utc_now,
        telemetry=telemetry,
        local=local,
    )
