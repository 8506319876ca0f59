"""What may be admitted, and what happens to a thread's active runs when another run is asked for. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

from runlane.errors import InvalidRequest, UnsupportedStrategyError
from runlane.lifecycle import CancelAction, MultitaskStrategy
from runlane.records import NewRun, Usage
from runlane.redaction import check_secrets

E = TypeVar("E", bound=StrEnum)

THREAD_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
MAX_KEY: Final = 255
MAX_LIST: Final = 1000
#: Counters as DeerFlow's run manager spells them.
_SPELLINGS: Final = {
    "total_input_tokens": "input_tokens",
    "total_output_tokens": "output_tokens",
    "llm_call_count": "llm_calls",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What admission does: refuse because of *blocked_by* or a *full* lane, or admit and ask *cancel* of the active."""

    blocked_by: str | None = None
    full: bool = False
    cancel: CancelAction | None = None


def parse_strategy(text: str) -> MultitaskStrategy:
    """Return the strategy named *text*.

    Raises:
        UnsupportedStrategyError: There is no such strategy.
    """
    try:
        return MultitaskStrategy(text)
    except ValueError:
        raise UnsupportedStrategyError(str(text)) from None


def parse_choice(kind: type[E], name: str, text: str) -> E:
    """Return the member of *kind* that is spelt *text*.

    Raises:
        InvalidRequest: There is none; the text names *name* and what there is.
    """
    try:
        return kind(text)
    except ValueError:
        raise InvalidRequest(f"{name} is {text!r}; it must be one of {', '.join(kind)}.") from None


def decide(strategy: MultitaskStrategy, active_run_ids: Sequence[str], *, full: bool = False) -> Decision:
    """Decide the admission of a run to a thread whose active runs, oldest first, are *active_run_ids*.

    The new run never starts before every earlier run of the lane has ended, whatever the strategy. *full* says that no
    more runs may wait there; what takes the place of those that wait, or never waits, needs no room.
    """
    if not active_run_ids:
        return Decision()
    if strategy is MultitaskStrategy.ENQUEUE:
        return Decision(full=full)
    if strategy is MultitaskStrategy.REJECT:
        return Decision(blocked_by=active_run_ids[0])
    if strategy is MultitaskStrategy.INTERRUPT:
        return Decision(cancel=CancelAction.INTERRUPT)
    return Decision(cancel=CancelAction.ROLLBACK)


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
