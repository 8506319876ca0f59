"""Texts of exceptions that may be shown: one rule for runs, their events, checkpoints and states. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from runlane.errors import RunlaneError
from runlane.redaction import redact_text, shortened
from runlane.storable import storable

#: Stands for a text that is not shown; the log has it.
HIDDEN: Final = "An internal error occurred"
#: Characters of an error's text, which is stored with the run and sent to everybody who follows it.
MAX_ERROR_TEXT: Final = 16 * 1024
#: Exceptions whose text was written for whoever called the agent; others may carry what nobody should see.
_SHOWN: Final = (ValueError, TypeError, KeyError, AttributeError, RuntimeError, TimeoutError, RunlaneError)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorTexts:
    """The rule. ``masked`` hides texts of exceptions of classes that are not known to be written for callers."""

    masked: bool = True

    def message(self, error: BaseException) -> str:
        """Return the text of *error* as it may be shown."""
        return _told(str, error) if self._shows(error) else HIDDEN

    def representation(self, error: Any) -> str:
        """Return the ``repr`` of *error* as it may be shown; a text is one that was shown before."""
        if isinstance(error, str):
            return error
        if isinstance(error, BaseException) and not self._shows(error):
            return f"{type(error).__name__}({HIDDEN!r})"
        return _told(repr, error)

    def of_text(self, text: str, raised: Iterable[BaseException]) -> str:
        """Return *text*, the ``str`` of an error of an unknown class, as it may be shown; it may be one of *raised*."""
        for error in raised:
            if _told(str, error) == _shown(text):
                return self.message(error)
        return HIDDEN if self.masked else _shown(text)

    def of_tasks(self, mode: str, payload: Any) -> Any:
        """Return *payload*, a part of a graph's stream, with its tasks' errors as they may be shown."""
        if mode == "debug" and isinstance(payload, dict) and "payload" in payload:
            inner = "checkpoints" if payload.get("type") == "checkpoint" else "tasks"
            return {**payload, "payload": self.of_tasks(inner, payload["payload"])}
        if mode == "tasks":
            return self._of_task(payload)
        if mode == "checkpoints" and payload.get("tasks"):
            return {**payload, "tasks": [self._of_task(task) for task in payload["tasks"]]}
        return payload

    def _of_task(self, task: Any) -> Any:
        if isinstance(task, dict) and task.get("error") is not None:
            return {**task, "error": self.representation(task["error"])}
        return task

    def _shows(self, error: BaseException) -> bool:
        return not self.masked or isinstance(error, _SHOWN) or type(error).__module__.startswith("langgraph.")


#: What a server does, and what holds where no setting is at hand.
MASKED: Final = ErrorTexts()


def _told(function: Callable[[Any], str], error: Any) -> str:
    """Return what *function*, ``str`` or ``repr``, says of *error*, as it may be stored and shown."""
    try:
        return _shown(function(error))
    except Exception:  # noqa: BLE001 - the application's own class may raise anything as it is asked for its text
        return f"{type(error).__name__} without a text"


def _shown(text: str) -> str:
    return storable(shortened(redact_text(text), MAX_ERROR_TEXT))
