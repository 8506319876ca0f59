"""Which run gets the next free slot."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from runlane.dispatch.fair import FairQueue
from runlane.records import Head
from runlane.settings import Limits


def head(run_id: str, owner: str = "ann", assistant_id: str | None = None, graph_id: str | None = None) -> Head:
    return Head(run_id=run_id, seq=1, owner=owner, assistant_id=assistant_id, graph_id=graph_id, home=None)


def taken(queue: FairQueue, number: int) -> list[str]:
    return [found.run_id for _ in range(number) if (found := queue.get()) is not None]


def test_one_owners_runs_start_in_the_order_of_their_arrival() -> None:
    queue = FairQueue(Limits())
    for number in range(5):
        queue.put(head(str(number), assistant_id=str(number % 2)))
    assert taken(queue, 6) == ["0", "1", "2", "3", "4"]


def test_an_owner_with_one_run_waits_for_no_more_than_one_slot() -> None:
    queue = FairQueue(Limits())
    flood = [head(f"flood-{number}") for number in range(300)]
    for one in flood:
        queue.put(one)
    in_slots = [queue.get() for _ in range(20)]
    queue.put(head("single", owner="bob"))
    assert in_slots[0] is not None
    queue.done(in_slots[0])
    assert taken(queue, 1) == ["single"]


def test_a_limit_lets_others_pass_and_is_over_when_a_run_has_left() -> None:
    queue = FairQueue(Limits(per_graph=1))
    first = head("first", graph_id="slow")
    for one in (first, head("second", graph_id="slow"), head("other", graph_id="fast")):
        queue.put(one)
    assert taken(queue, 3) == ["first", "other"]
    queue.done(first)
    assert taken(queue, 3) == ["second"]


def test_a_run_takes_a_slot_at_once_unless_another_waits_for_it_or_a_limit_is_reached() -> None:
    queue = FairQueue(Limits(slots=2, per_graph=1))
    slow, fast = head("slow", graph_id="slow"), head("fast", owner="bob")
    assert queue.take(slow)
    assert not queue.take(head("slower", graph_id="slow"))
    queue.put(head("waiting", graph_id="slow"))
    assert queue.take(fast), "what a limit holds back lets others pass"
    assert not queue.take(head("third"))
    queue.done(slow)
    assert not queue.take(head("third"))
    assert taken(queue, 2) == ["waiting"]


HEADS = st.tuples(st.sampled_from("abc"), st.sampled_from([None, "x", "y"]), st.sampled_from([None, "g", "h"]))
#: ``None`` asks for a run, a number lets one of those in slots leave, a head arrives, to take a slot or to wait.
STEPS = st.lists(st.one_of(st.none(), st.integers(0, 5), HEADS, st.tuples(st.just("take"), HEADS)), max_size=60)


@given(
    steps=STEPS,
    limits=st.builds(
        Limits,
        slots=st.integers(0, 4),
        per_owner=st.integers(0, 3),
        per_assistant=st.integers(0, 2),
        per_graph=st.integers(0, 2),
    ),
)
@settings(max_examples=400, deadline=None)
def test_the_next_run_is_always_what_the_rule_says(steps: list[object], limits: Limits) -> None:
    queue, waiting, in_slots = FairQueue(limits), [], []
    for step in steps:
        if isinstance(step, tuple) and step[0] == "take":
            new = head(f"run-{len(waiting) + len(in_slots)}", *step[1])
            wanted = by_the_rule([*waiting, new], in_slots, limits)
            may = wanted is not None and by_the_rule(waiting, in_slots, limits) is None
            assert queue.take(new) is may
            if may:
                in_slots.append(new)
        elif isinstance(step, tuple):
            new = head(f"run-{len(waiting) + len(in_slots)}", *step)
            waiting.append(new)
            queue.put(new)
        elif isinstance(step, int):
            if step < len(in_slots):
                queue.done(in_slots.pop(step))
        else:
            wanted = by_the_rule(waiting, in_slots, limits)
            assert queue.get() is wanted
            if wanted is not None:
                waiting = [one for one in waiting if one is not wanted]
                in_slots.append(wanted)


def by_the_rule(waiting: list[Head], in_slots: list[Head], limits: Limits) -> Head | None:
    owners = Counter(one.owner for one in in_slots)
    assistants = Counter(one.assistant_id for one in in_slots)
    graphs = Counter(one.graph_id for one in in_slots)

    def may_start(one: Head) -> bool:
        return all(
            name is None or not limit or counts[name] < limit
            for counts, name, limit in (
                (owners, one.owner, limits.per_owner),
                (assistants, one.assistant_id, limits.per_assistant),
                (graphs, one.graph_id, limits.per_graph),
            )
        )

    if limits.slots and len(in_slots) >= limits.slots:
        return None
    startable = [one for one in waiting if may_start(one)]
    return min(startable, key=lambda one: owners[one.owner], default=None)
