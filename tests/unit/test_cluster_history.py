"""The checker of a cluster's history finds each kind of damage, and nothing where there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from acceptance.kit import Event
from cluster.clients import Asked, Conversation
from cluster.history import Facts, History
from cluster.nodes import Fault
from cluster.verdict import Verdict

T = 1_000_000.0
SLOT_US = 5_000_000


class Story:
    """Two runs of a thread, the first of which was taken over after its first step; a cron; a webhook; a reader."""

    def __init__(self) -> None:
        self.asked = [
            Asked(name=name, kind="steps", strategy="enqueue", steps=2, webhook=name == "a", run_id=f"run-{name}")
            for name in ("a", "b")
        ]
        self.asked[0].watched = self.log = [
            _event(number, name, attempt)
            for number, (name, attempt) in enumerate(
                [("metadata", 1), ("custom", 1), ("metadata", 2), ("custom", 2)], 1
            )
        ]
        self.state = [_entry("a", 1, 1), _entry("a", 2, 2), _entry("b", 1, 1), _entry("b", 2, 1)]
        self.received = [("run-a", T + 9)]
        self.facts = Facts(
            runs=[_run(1, "a", attempt=2), _run(2, "b"), _run(3, "cron", thread="t2", metadata="of cron-1")],
            threads=[{"thread_id": "t", "status": "idle"}],
            moves=[
                _move(*move)
                for move in [
                    (1, "pending", 0),
                    (2, "pending", 0),
                    (1, "running", 1),
                    (1, "pending", 1),
                    (1, "running", 2),
                    (1, "success", 2),
                    (2, "running", 1),
                    (2, "success", 1),
                ]
            ],
            slots=[{"cron_id": "cron-1", "slot": SLOT_US}],
            crons=[{"cron_id": "cron-1", "error": None}],
            webhooks=[{"run_id": "run-a", "status": "delivered", "attempts": 1}],
            effects=[
                ["a", "1", "1", "7", f"{T}"],
                ["a", "2", "1", "7", f"{T + 1}"],
                ["a", "2", "2", "8", f"{T + 5}"],
                ["b", "1", "1", "8", f"{T + 7}"],
                ["b", "2", "1", "8", f"{T + 8}"],
            ],
            faults=[
                Fault("freeze", "node", 7, T + 1, T + 4),
                Fault("outage", "postgres", None, T + 40, T + 45, away_s=4.5, back=T + 44.5),
            ],
        )

    def judge(self) -> Verdict:
        verdict = Verdict()
        history, conversations = History(self.facts, verdict), [Conversation("t", self.asked)]
        history.check_lanes()
        history.check_rescues(lease_s=3.0)
        history.check_runs(conversations)
        history.check_processes(conversations)
        history.check_crons()
        history.check_webhooks(conversations, self.received)
        history.check_state(conversations[0], self.state)
        history.check_stream(self.asked[0], self.log)
        return verdict


def _event(number: int, name: str, attempt: int) -> Event:
    return Event(f"0000000001-{number:08}", name, {"attempt": attempt, "step": attempt})


def _entry(run: str, step: int, attempt: int) -> dict[str, Any]:
    return {"run": run, "step": step, "attempt": attempt}


def _run(seq: int, name: str, *, attempt: int = 1, thread: str = "t", metadata: str = "{}") -> dict[str, Any]:
    return {
        "seq": seq,
        "run_id": f"run-{name}",
        "thread_id": thread,
        "status": "success",
        "end_reason": "completed",
        "attempt": attempt,
        "metadata": metadata,
    }


def _move(seq: int, status: str, attempt: int, *, at: float = T) -> dict[str, Any]:
    names = {"thread_id": "t", "seq": seq, "run_id": f"run-{seq}"}
    return {**names, "status": status, "attempt": attempt, "rescues": max(0, attempt - 1), "at_s": at}


def test_a_rescue_after_a_lease_of_contact_is_no_damage() -> None:
    story = Story()
    _rescue(T + 48)(story)
    assert story.judge().found == {}


def test_a_history_without_damage_has_none() -> None:
    assert Story().judge().found == {}


def _lose(story: Story) -> None:
    del story.facts.runs[1]


def _move_over(*moves: tuple[int, str, int]) -> Callable[[Story], None]:
    def change(story: Story) -> None:
        story.facts.moves = [_move(*move) for move in moves]

    return change


def _set(place: str, number: int, **changes: Any) -> Callable[[Story], None]:
    def change(story: Story) -> None:
        getattr(story.facts, place)[number].update(changes)

    return change


def _state(*entries: tuple[str, int, int]) -> Callable[[Story], None]:
    def change(story: Story) -> None:
        story.state = [_entry(*entry) for entry in entries]

    return change


def _effect(*more: str) -> Callable[[Story], None]:
    return lambda story: story.facts.effects.append([*more])


def _watched(events: Sequence[int]) -> Callable[[Story], None]:
    def change(story: Story) -> None:
        story.asked[0].watched = [story.log[number] for number in events]

    return change


def _received(*times: float) -> Callable[[Story], None]:
    def change(story: Story) -> None:
        story.received = [("run-a", time) for time in times]
        story.facts.webhooks = []

    return change


def _fired(*slots: int, runs: int = 1) -> Callable[[Story], None]:
    def change(story: Story) -> None:
        story.facts.slots = [{"cron_id": "cron-1", "slot": number * SLOT_US} for number in slots]
        story.facts.runs += [_run(3 + more, "cron", thread="t2", metadata="of cron-1") for more in range(1, runs)]

    return change


def _old_attempt(story: Story) -> None:
    story.log += [_event(5, "custom", 1)]


def _rescue(at: float) -> Callable[[Story], None]:
    return lambda story: story.facts.moves.append(_move(9, "pending", 2, at=at))


WAITING = ((1, "pending", 0), (2, "pending", 0))


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (_lose, "lost"),
        (_set("runs", 1, status="error"), "ended otherwise"),
        (_set("runs", 1, status="running"), "left active"),
        (_set("runs", 1, end_reason="rolled_back"), "rolled back and still there"),
        (_set("threads", 0, status="busy"), "threads left busy"),
        (_move_over(*WAITING, (1, "running", 1), (2, "running", 1)), "overlapping in a lane"),
        (_move_over(*WAITING, (2, "running", 1)), "out of order"),
        (_move_over((1, "success", 1), (1, "running", 2)), "moved after the end"),
        (_move_over((1, "running", 2), (1, "pending", 1)), "attempts that go back"),
        (_state(("a", 1, 1), ("a", 2, 2), ("b", 2, 1)), "steps lost or twice in a state"),
        (_state(("b", 1, 1), ("b", 2, 1), ("a", 1, 1), ("a", 2, 2)), "states out of order"),
        (_state(("a", 1, 2), ("a", 2, 1), ("b", 1, 1), ("b", 2, 1)), "stale writes"),
        (_effect("a", "1", "2", "8", f"{T + 4.5}"), "checkpointed steps repeated"),
        (_effect("a", "2", "1", "7", f"{T + 20}"), "worked on after a takeover"),
        (_watched([0, 1, 3]), "streams with gap or repeat"),
        (_watched([0, 1, 1, 2, 3]), "streams with gap or repeat"),
        (_watched([0, 1, 2]), "streams that differ from the log"),
        (_old_attempt, "stale writes"),
        (_rescue(T + 47), "rescued too early after an outage"),
        (_received(), "webhooks missed"),
        (_received(T + 90, T + 95), "webhooks doubled"),
        (
            lambda story: story.facts.slots.append({"cron_id": "cron-1", "slot": 2 * SLOT_US}),
            "cron slots missed or doubled",
        ),
        (
            lambda story: story.facts.slots.append({"cron_id": "cron-1", "slot": 4 * SLOT_US}),
            "cron slots missed or doubled",
        ),
    ],
)
def test_each_kind_of_damage_is_found(damage: Callable[[Story], None], found: str) -> None:
    story = Story()
    damage(story)
    assert found in story.judge().found
