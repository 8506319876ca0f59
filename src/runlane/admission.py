"""Admission policy: whether a run is admitted, and what happens to its thread's active runs. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeVar

from runlane.errors import (
    AlreadyExists,
    ConflictError,
    InvalidRequest,
    KeyReused,
    NoSuchInterrupt,
    QueueFull,
    RunlaneError,
    UnsupportedStrategyError,
)
from runlane.lifecycle import CancelAction, MultitaskStrategy
from runlane.records import OF_ONE_RUN, Json, NewRun, Usage
from runlane.redaction import check_secrets

E = TypeVar("E", bound=StrEnum)

THREAD_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
MAX_KEY: Final = 255
MAX_LIST: Final = 1000
#: What a strategy asks of the lane's active runs.
_CANCELS: Final = {
    MultitaskStrategy.INTERRUPT: CancelAction.INTERRUPT,
    MultitaskStrategy.ROLLBACK: CancelAction.ROLLBACK,
}
#: Counters as DeerFlow's run manager spells them.
_SPELLINGS: Final = {
    "total_input_tokens": "input_tokens",
    "total_output_tokens": "output_tokens",
    "llm_call_count": "llm_calls",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveRun:
    """A pending or running run of a lane, and the interrupts that it answers."""

    run_id: str
    answers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneView:
    """The state of a lane that admission depends on, read under the thread's lock.

    Attributes:
        active: The runs that have not ended, oldest first; only the oldest unless :func:`reads_whole_lane`.
        max_queued_runs: How many may wait behind the oldest.
        full: So many wait already; read only if :func:`needs_a_place`.
        open_interrupts: The thread's questions without an answer.
        answered: Interrupts that earlier runs answered, with the last one's id; read only if some are :func:`not_open`.
    """

    active: Sequence[ActiveRun] = ()
    max_queued_runs: int = 0
    full: bool = False
    open_interrupts: Set[str] = frozenset()
    answered: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The decision whether a run is admitted, and what happens to the lane's active runs.

    A *refusal* is raised only if the run was not admitted before: a repeated request answers the same run.
    """

    refusal: RunlaneError | None = None
    cancel: CancelAction | None = None


def parse_strategy(text: str) -> MultitaskStrategy:
    """Return the strategy named *text*.

    Raises:
        UnsupportedStrategyError: There is no such strategy.
    """
    try:
        return MultitaskStrategy(text)
    except ValueError:
        raise UnsupportedStrategyError(str(text), MultitaskStrategy) from None


def parse_choice(kind: type[E], name: str, text: str) -> E:
    """Return the member of *kind* that is spelt *text*.

    Raises:
        InvalidRequest: There is none; the text names *name* and what there is.
    """
    try:
        return kind(text)
    except ValueError:
        raise InvalidRequest(f"{name} is {text!r}; it must be one of {', '.join(kind)}.") from None


def reads_whole_lane(new: NewRun) -> bool:
    """Return whether the decision needs more than the lane's oldest run; a lane may be long."""
    return _CANCELS.get(new.multitask_strategy) is not None or bool(new.request.answers)


def needs_a_place(new: NewRun) -> bool:
    """Return whether the run would wait; what takes the place of those that wait, or never waits, needs no room."""
    return new.multitask_strategy is MultitaskStrategy.ENQUEUE


def not_open(new: NewRun, lane: LaneView) -> list[str]:
    """Return the interrupts that the run answers although they are neither open nor being answered."""
    being_answered = _being_answered(lane)
    return [one for one in new.request.answers if one not in lane.open_interrupts and one not in being_answered]


def decide(new: NewRun, lane: LaneView) -> Decision:
    """Decide the admission of *new* to *lane*.

    The new run never starts before every earlier run of the lane has ended, whatever the strategy.
    """
    refusal = _answers_refused(new, lane)
    if refusal is not None or not lane.active:
        return Decision(refusal=refusal)
    if new.multitask_strategy is MultitaskStrategy.REJECT:
        return Decision(refusal=ConflictError(new.thread_id, lane.active[0].run_id))
    if needs_a_place(new) and lane.full:
        return Decision(refusal=QueueFull(new.thread_id, lane.max_queued_runs))
    return Decision(cancel=_CANCELS.get(new.multitask_strategy))


def _answers_refused(new: NewRun, lane: LaneView) -> NoSuchInterrupt | None:
    """Return why the interrupts that *new* answers take no answer.

    A run of the lane may be answering some of them already; one that answers nothing moves the thread on, so that no
    answer has its question any more.
    """
    if not new.request.answers:
        return None
    for run in lane.active:
        if not run.answers:
            why = f"the thread goes on with run {run.run_id!r} without an answer"
            return NoSuchInterrupt(new.request.answers[0], why)
    being_answered = _being_answered(lane)
    for interrupt_id in new.request.answers:
        by = being_answered.get(interrupt_id)
        if by is None and interrupt_id in lane.open_interrupts:
            continue
        by = by or lane.answered.get(interrupt_id)
        why = "nothing of this thread waits for it" if by is None else f"it was answered already, by run {by!r}"
        return NoSuchInterrupt(interrupt_id, why)
    return None


def _being_answered(lane: LaneView) -> dict[str, str]:
    return {interrupt_id: run.run_id for run in lane.active for interrupt_id in run.answers}


def check_repeated(new: NewRun, *, run_id: str, thread_id: str, fingerprint: str | None, by_key: bool) -> None:
    """Check that *new* is the admission that made the run *run_id*, once more.

    Args:
        fingerprint: That run's.
        by_key: The run was found by its idempotency key, else by its id.

    Raises:
        KeyReused: The key came with another request.
        AlreadyExists: The id is taken by a run of another thread.
    """
    if by_key and fingerprint != new.origin.fingerprint:
        raise KeyReused(str(new.idempotency_key), run_id)
    if thread_id != new.thread_id:
        raise AlreadyExists("run", new.run_id)


def run_metadata(new: NewRun, thread_metadata: Json) -> Json:
    """Return the metadata of the admitted run: its defaults, what it inherits from its thread, and its own."""
    if new.default_metadata is None:
        return new.metadata
    inherited = {name: value for name, value in thread_metadata.items() if name not in OF_ONE_RUN}
    return {**new.default_metadata, **inherited, **new.metadata}


def thread_metadata(new: NewRun) -> Json:
    """Return the metadata of a thread that is made for *new*."""
    return {**(new.default_metadata or {}), **new.metadata}


def starts_at_once(new: NewRun, *, head: str | None, alone: bool) -> bool:
    """Return whether the admitted run may start now.

    Args:
        head: The run of the lane that may; not read for a run that is *alone* in its lane.
    """
    return new.delay_s <= 0 if alone else head == new.run_id


def check_new(new: NewRun) -> None:
    """Check what the ledger takes as it is.

    Raises:
        InvalidRequest: It says what is wrong.
    """
    if not _is_thread_id(new.thread_id):
        raise InvalidRequest(f"Thread id {new.thread_id!r} must be 1 to 64 letters, digits, '_' or '-'.")
    if new.idempotency_key is not None and not 0 < len(new.idempotency_key) <= MAX_KEY:
        raise InvalidRequest(f"An idempotency key has 1 to {MAX_KEY} characters.")
    check_model(new.model_name)
    check_secrets(new.request.config, new.request.context)
    if not 0 <= new.delay_s <= 10 * 365 * 86_400:
        raise InvalidRequest(f"The delay is {new.delay_s!r} s; it must be from 0 to ten years.")


def _is_thread_id(given: object) -> bool:
    return isinstance(given, str) and THREAD_ID.match(given) is not None


def check_model(model_name: object) -> None:
    """Check what a model is to be called.

    Raises:
        InvalidRequest: It is no text.
    """
    if model_name is not None and not isinstance(model_name, str):
        raise InvalidRequest(f"A model's name is text, not {model_name!r}.")


def check_counters(given: Mapping[str, object]) -> dict[str, Any]:
    """Return the counters in *given* by the names of Usage's fields, without those that are ``None``.

    Raises:
        InvalidRequest: A name is not one of Usage's fields, nor another spelling of one; two spellings of one are
            given; or a value cannot be added to what other runs used.
    """
    defaults = Usage()
    unknown = sorted(set(given) - set(Usage.__dataclass_fields__) - set(_SPELLINGS))
    if unknown:
        raise InvalidRequest(f"There are no counters {', '.join(unknown)}; see Usage.")
    counters: dict[str, Any] = {}
    for spelling, value in given.items():
        name = _SPELLINGS.get(spelling, spelling)
        if value is None:
            continue
        if name in counters:
            raise InvalidRequest(f"The counter {name} is given twice, in two spellings.")
        counters[name] = value
    for name, value in counters.items():
        default = getattr(defaults, name)
        if default is None and not isinstance(value, str):
            raise InvalidRequest(f"{name} is {value!r}; it must be text.")
        if default == 0 and not _is_count(value):
            raise InvalidRequest(f"{name} is {value!r}; it must be a whole number from 0.")
        if isinstance(default, Mapping) and not _are_counts_by_model(value):
            raise InvalidRequest(f"{name} is {value!r}; it must map models' names to counts by name.")
    return counters


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_counts_by_model(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(model, str)
        and isinstance(counts, Mapping)
        and all(isinstance(name, str) and _is_count(count) for name, count in counts.items())
        for model, counts in value.items()
    )


def check_page(limit: int, offset: int) -> None:
    """Check which part of a list is asked for.

    Raises:
        InvalidRequest: It says what is wrong.
    """
    if not 1 <= limit <= MAX_LIST or offset < 0:
        raise InvalidRequest(f"limit must be from 1 to {MAX_LIST} and offset at least 0 (got {limit} and {offset}).")
