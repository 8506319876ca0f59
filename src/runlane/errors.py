"""Every error that Runlane raises, as one tree.

::

    RunlaneError
    ├── NotFound                 not_found              no such thread, run, assistant or item for this owner
    ├── ConflictError            thread_busy            the thread has an active run (strategy ``reject``)
    ├── QueueFull                queue_full             too many runs wait on the thread (strategy ``enqueue``)
    ├── AlreadyExists            already_exists         an id is taken
    ├── ThreadChanged            thread_changed         a thread is not any more what a write to it was based on
    ├── KeyReused                idempotency_key_reused the key of a retry came with another request
    ├── CronChanged              cron_changed           a cron was changed or fired since it was read
    ├── CronRunActive            cron_run_active        the last run of a cron that does not overlap is active
    ├── InvalidRequest           invalid_request        the request cannot be honoured as it stands
    │   ├── UnsupportedOption    unsupported_option     a known option that is not honoured
    │   ├── UnsupportedStrategyError  unsupported_strategy
    │   └── NoSuchInterrupt      no_such_interrupt      an answer to what nobody asks, or has been told already
    ├── IllegalTransition        illegal_transition     the state table has no such move
    ├── CancelRecorded           cancel_recorded        the run can only be stopped now: a cancel came first
    ├── LeaseLost                lease_lost             the attempt no longer owns its run
    ├── AdmissionClosed          admission_closed       the process is draining
    ├── OwnerRequired            owner_required         tenancy is required and no owner was given
    ├── OwnerUnknown             owner_unknown          authentication does not know the owner of a cron any more
    ├── StoreUnavailable         store_unavailable      nothing was written; try again
    │   ├── RowsLocked           rows_locked            another transaction kept what this one needs for too long
    │   ├── RowsLocked           rows_locked            another transaction has locked what this one needs
    │   ├── LedgerInUse          ledger_in_use          another process owns the database file
    │   └── LedgerClosed         ledger_closed          this process has closed it
    ├── ConfigurationError       configuration          settings or langgraph.json
    │   └── GraphLoadError       graph_load             a graph does not import
    ├── WorkerLost               worker_lost            the run has lost too many workers; it is not tried again
    ├── CheckpointUnreadable     checkpoint_unreadable  a checkpoint holds what Runlane never writes
    ├── DocumentIncomplete       document_incomplete    a part of a stored value is not in the database
    ├── RequestUnreadable        request_unreadable     a run's request was stored by a newer version of Runlane
    ├── StateUnreadable          state_unreadable       a thread's graph cannot read its state
    ├── RollbackFailed           rollback_failed        the thread could not be put back
    └── EmbeddingFailed          embedding_failed       the long-term store's texts have no vectors
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar


class RunlaneError(Exception):
    """Base of all errors; ``code`` is stable, ``str(error)`` says what happened, why, and what to do."""

    code: ClassVar[str] = "error"


class NotFound(RunlaneError):
    """No such thing for this owner; another owner's things are not found either."""

    code = "not_found"

    def __init__(self, kind: str, key: str) -> None:
        self.kind = kind
        self.key = key
        super().__init__(f"{kind.capitalize()} {key!r} not found.")


class ConflictError(RunlaneError):
    """The thread has an active run and the caller asked not to wait for it."""

    code = "thread_busy"

    def __init__(self, thread_id: str, active_run_id: str) -> None:
        self.thread_id = thread_id
        self.active_run_id = active_run_id
        super().__init__(
            f"Thread {thread_id!r} is busy with run {active_run_id!r}. Wait for it, cancel it, "
            "or choose the multitask strategy 'enqueue', 'interrupt' or 'rollback'."
        )


class QueueFull(RunlaneError):
    """As many runs as may wait on one thread wait already; nothing was admitted."""

    code = "queue_full"

    def __init__(self, thread_id: str, max_queued_runs: int) -> None:
        self.thread_id = thread_id
        self.max_queued_runs = max_queued_runs
        super().__init__(
            f"Thread {thread_id!r} has {max_queued_runs} runs waiting, which is as many as the setting "
            "max_queued_runs allows; nothing was admitted. Wait until some have ended, or cancel them."
        )


class AlreadyExists(RunlaneError):
    """An id that was to be created exists."""

    code = "already_exists"

    def __init__(self, kind: str, key: str) -> None:
        self.kind = kind
        self.key = key
        super().__init__(f"{kind.capitalize()} {key!r} already exists.")


class ThreadChanged(RunlaneError):
    """A thread is not any more what a write to it was based on; nothing was written, the caller may look again."""

    code = "thread_changed"

    def __init__(self, thread_id: str) -> None:
        self.thread_id = thread_id
        super().__init__(f"Thread {thread_id!r} changed meanwhile; nothing was written. Look again and repeat.")


class KeyReused(RunlaneError):
    """An idempotency key that admitted a run came again with another request; nothing was admitted."""

    code = "idempotency_key_reused"

    def __init__(self, key: str, run_id: str) -> None:
        self.key = key
        self.run_id = run_id
        super().__init__(
            f"Idempotency-Key {key!r} was used for run {run_id!r}, which was asked for differently. "
            "Repeat a request unchanged, or give a new key to a new one."
        )


class CronChanged(RunlaneError):
    """A cron was changed, fired or deleted since it was read; nothing was written, the caller may look again."""

    code = "cron_changed"

    def __init__(self, cron_id: str) -> None:
        self.cron_id = cron_id
        super().__init__(f"Cron {cron_id!r} changed meanwhile; nothing was written. Look again and repeat.")


class CronRunActive(RunlaneError):
    """The last run of a cron whose runs do not overlap is still active; nothing was admitted."""

    code = "cron_run_active"

    def __init__(self, cron_id: str, active_run_id: str) -> None:
        self.cron_id = cron_id
        self.active_run_id = active_run_id
        super().__init__(
            f"Runs of cron {cron_id!r} do not overlap, and its last run {active_run_id!r} is still active. "
            "Wait for it, cancel it, or set the cron's overlap to 'allow'."
        )


class InvalidRequest(RunlaneError):
    """The request cannot be honoured as it stands; nothing was admitted."""

    code = "invalid_request"


class UnsupportedOption(InvalidRequest):
    """A documented option that this version does not honour."""

    code = "unsupported_option"

    def __init__(self, option: str, why: str) -> None:
        self.option = option
        super().__init__(f"Option {option!r} is not supported: {why}")


class UnsupportedStrategyError(InvalidRequest):
    """A multitask strategy that does not exist."""

    code = "unsupported_strategy"

    def __init__(self, strategy: str, known: Iterable[str]) -> None:
        self.strategy = strategy
        names = ", ".join(f"'{name}'" for name in known)
        super().__init__(f"Multitask strategy {strategy!r} does not exist; use one of {names}.")


class NoSuchInterrupt(InvalidRequest):
    """An answer to an interrupt that is not open: it was answered already, or never asked; nothing was admitted."""

    code = "no_such_interrupt"

    def __init__(self, interrupt_id: str, why: str) -> None:
        self.interrupt_id = interrupt_id
        super().__init__(
            f"Interrupt {interrupt_id!r} takes no answer: {why}. Read the thread's state for what is open."
        )


class IllegalTransition(RunlaneError):
    """The state table has no such move; the row is as it was."""

    code = "illegal_transition"

    def __init__(self, run_id: str, status: str, event: str) -> None:
        self.run_id = run_id
        self.status = status
        self.event = event
        super().__init__(f"Run {run_id!r} is {status!r}: event {event!r} is not legal there.")


class NotRetryable(RunlaneError):
    """No run can be started in place of this one."""

    code = "not_retryable"

    def __init__(self, run_id: str, why: str) -> None:
        self.run_id = run_id
        super().__init__(f"Run {run_id!r} cannot be retried: {why}.")


class ViewChanged(RunlaneError):
    """A saved view is not as it was seen; nothing was saved."""

    code = "view_changed"

    def __init__(self, name: str, revision: int) -> None:
        self.revision = revision
        super().__init__(
            f"The view {name!r} has been changed meanwhile: look at it, and save it again with revision {revision}."
        )


class CancelRecorded(RunlaneError):
    """A cancel was recorded before the attempt finished, so that it can only end as stopped; nothing was written."""

    code = "cancel_recorded"

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"Run {run_id!r} was cancelled before it finished; it can only end as interrupted.")


class LeaseLost(RunlaneError):
    """The run has another worker, another attempt, or is terminal; nothing was written."""

    code = "lease_lost"

    def __init__(self, run_id: str, attempt: int) -> None:
        self.run_id = run_id
        self.attempt = attempt
        super().__init__(f"Attempt {attempt} no longer owns run {run_id!r}; nothing was written.")


class AdmissionClosed(RunlaneError):
    """The process is draining and admits no runs."""

    code = "admission_closed"

    def __init__(self) -> None:
        super().__init__("This process is shutting down and admits no runs; try again on the next one.")


class OwnerRequired(RunlaneError):
    """Tenancy is required and the call named no owner."""

    code = "owner_required"

    def __init__(self, operation: str, *, one: bool = False) -> None:
        what = "the one whose run it is" if one else "pass ANY_OWNER to act for every owner on purpose"
        super().__init__(f"{operation} needs owner=...; {what}.")


class StoreUnavailable(RunlaneError):
    """The ledger cannot be reached or is locked; nothing was written, the caller may try again."""

    code = "store_unavailable"

    def __init__(self, why: str, *, remedy: str = "Nothing was written; try again.") -> None:
        """Say *why* on one line, and what to do: *remedy* is a sentence, which fits a statement that failed."""
        reason = " ".join(why.split()).rstrip(".")
        super().__init__(f"The ledger is unavailable: {reason}{'' if reason.endswith(('?', '!')) else '.'} {remedy}")


class RowsLocked(StoreUnavailable):
    """Another transaction kept the rows that this one needs, or both waited for each other; the ledger is well."""

    code = "rows_locked"


class ConnectionCut(StoreUnavailable):
    """The connection was lost inside a transaction; another one may be had at once."""


class LedgerInUse(StoreUnavailable):
    """Another process owns the database file."""

    code = "ledger_in_use"

    def __init__(self, path: str, pid: int | None) -> None:
        self.path = path
        self.pid = pid
        RunlaneError.__init__(
            self,
            f"The database {path} is in use by another Runlane process{f' (pid {pid})' if pid else ''}. "
            "Stop that process, or name another file.",
        )


class LedgerClosed(StoreUnavailable):
    """This process has closed the ledger, as it is ending; it does not come back."""

    code = "ledger_closed"

    def __init__(self) -> None:
        super().__init__("it is closed")


class ConfigurationError(RunlaneError):
    """Settings or langgraph.json cannot be used."""

    code = "configuration"


class GraphLoadError(ConfigurationError):
    """A graph named in langgraph.json cannot be loaded; ``__cause__`` has the user's own traceback."""

    code = "graph_load"

    def __init__(self, graph_id: str, spec: str, why: str) -> None:
        self.graph_id = graph_id
        self.spec = spec
        super().__init__(f"Graph {graph_id!r} ({spec}) could not be loaded: {why}")


class OwnerUnknown(RunlaneError):
    """Nobody could send a request as this owner any more, so that runs of theirs are not started either."""

    code = "owner_unknown"

    def __init__(self, owner: str) -> None:
        self.owner = owner
        super().__init__(f"The owner {owner!r} is not known to this server's authentication, so no run is started.")


class WorkerLost(RunlaneError):
    """A run lost its worker too often, or its code cannot go on where it was lost: it is not executed again."""

    code = "worker_lost"

    def __init__(self, rescues: int) -> None:
        self.rescues = rescues
        times = "once" if rescues == 1 else f"{rescues} times"
        super().__init__(f"The worker died {times} while it executed this run; it is not tried again.")


class RollbackFailed(RunlaneError):
    """The thread could not be put back to its state before the run."""

    code = "rollback_failed"

    def __init__(self, run_id: str, why: str) -> None:
        self.run_id = run_id
        super().__init__(f"Run {run_id!r} was stopped, but its thread could not be rolled back: {why}")


class EmbeddingFailed(RunlaneError):
    """The application's embedding function gave no vectors; nothing was written. ``__cause__`` has its own error."""

    code = "embedding_failed"

    def __init__(self, why: str) -> None:
        super().__init__(f"The embedding function of the long-term store failed: {why}. Nothing was written.")


class StateUnreadable(RunlaneError):
    """A thread holds what its graph cannot read, such as values that the graph's schema has come to refuse."""

    code = "state_unreadable"

    def __init__(self, thread_id: str, cause: str, readable: str | None = None) -> None:
        self.thread_id = thread_id
        self.cause = cause
        self.readable = readable
        way = "Delete the thread, or restore it from a backup."
        if readable is not None:
            way = (
                f"The newest checkpoint that it can read is {readable}. To continue from there, update the state with "
                "this checkpoint_id, or stop the server and run `runlane doctor --states --repair`."
            )
        super().__init__(f"The graph cannot read the state of thread {thread_id!r} ({cause}). {way}")


class RequestUnreadable(RunlaneError):
    """The stored request of a run is of a newer version of Runlane, or damaged."""

    code = "request_unreadable"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"The request of a run cannot be read: {why}. A newer version of Runlane may have stored it; use that one."
        )


class DocumentIncomplete(RunlaneError):
    """A part of a stored value is not in the database."""

    code = "document_incomplete"

    def __init__(self, thread_id: str, ref: str) -> None:
        self.thread_id = thread_id
        self.ref = ref
        super().__init__(
            f"A stored value of thread {thread_id} refers to the part {ref!r}, which is not in the database. Nothing "
            "was written. Run `runlane doctor` to see what else is missing, and restore the database from a backup."
        )


class CheckpointUnreadable(RunlaneError):
    """A checkpoint holds what Runlane never writes, so somebody else did; it is not read."""

    code = "checkpoint_unreadable"

    def __init__(self, kind: str) -> None:
        self.kind = kind
        super().__init__(
            f"A checkpoint in the database is of the kind {kind!r}, which Runlane never writes, and was not read. "
            "Find out who wrote to the database; delete the thread, or restore it from a backup."
        )
