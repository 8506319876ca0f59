"""The request of a run, and Runlane's own data beside it: typed, versioned, decoded on demand. Pure.

A run's row has both as one JSON text, which begins with its version. ``input`` stays JSON text until somebody wants
its value: a run is read far more often than its input is, which may be large.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any, Final, Literal

import msgspec
import orjson
from msgspec.structs import asdict, fields, replace

from runlane.errors import InvalidRequest, RequestUnreadable
from runlane.redaction import has_secrets, redacted_configuration

#: Of the stored text. A field that older versions would not understand makes a new one: a text has the least version
#: with which those that would miss something do not read it. This one has a ``traceparent`` or an ``operator``, and its
#: input or not.
VERSION: Final = 3
#: Of a text that has its input, and of one without.
_WHOLE: Final = 1
_APART: Final = 2
_VERSIONS: Final = (_WHOLE, _APART, VERSION)
_VERSION_KEY: Final = "runlane_request"
#: The texts of runs with secrets begin with one of these, so that a statement finds them without reading the rest.
SECRET_MARKS: Final = (
    *(f'{{"{_VERSION_KEY}":{version},"secrets"' for version in _VERSIONS),
    '{"runlane_secrets"',
)
_ANY_VERSION: Final = f'{{"{_VERSION_KEY}":'
_READABLE: Final = tuple(f'{{"{_VERSION_KEY}":{version},' for version in _VERSIONS)
_IS_TRACED: Final = f'{{"{_VERSION_KEY}":{VERSION},'
_VERSION_OF: Final = re.compile(rf'\{{"{_VERSION_KEY}":(\d+)')


NULL: Final = msgspec.Raw(b"null")


class RunRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The request of a run.

    ``config`` is LangGraph's ``RunnableConfig`` as JSON, ``command`` its ``Command``. ``checkpoint`` (ids by name) or
    ``checkpoint_id`` is where the run starts instead of at the thread's newest checkpoint. ``answers`` are the ids of
    the interrupts that it answers. ``protocol`` says how its events are published, if not as ``stream_mode`` says.
    ``extra`` is what a caller of the library asks for beyond that; only its own agent reads it.
    """

    graph_id: str | None = None
    input: msgspec.Raw = NULL
    command: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    context: Any = None
    stream_mode: tuple[str, ...] | None = None
    stream_subgraphs: bool = False
    interrupt_before: str | tuple[str, ...] | None = None
    interrupt_after: str | tuple[str, ...] | None = None
    durability: Literal["sync", "async", "exit"] | None = None
    checkpoint: dict[str, Any] | None = None
    checkpoint_id: str | None = None
    strict_resume: bool = False
    protocol: Literal["v2"] | None = None
    answers: tuple[str, ...] = ()
    extra: dict[str, Any] = {}

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> RunRequest:
        """Return the request that a caller of the library *gave* by name.

        Raises:
            InvalidRequest: It cannot be stored as JSON, or an option has a value of another kind.
        """
        parts = _PARTS.decode(json_bytes(given))
        try:
            named, extra = _split(parts, _OPTIONS, strict=True)
            return cls(**named, extra=_values(extra))
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"The run's kwargs cannot be honoured: {error}.") from error

    @property
    def start(self) -> Mapping[str, Any] | str | None:
        """The checkpoint to start from, by its ids or its id; ``None``: the thread's newest."""
        return self.checkpoint or self.checkpoint_id

    @property
    def goes_on(self) -> bool:
        """Whether the run goes on from the thread's newest checkpoint, as an answer to an interrupt does."""
        return self.input == NULL and self.start is None

    @property
    def configurable(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = (self.config or {}).get("configurable") or {}
        return found

    def with_configurable(self, changes: Mapping[str, Any]) -> RunRequest:
        """Return the request with *changes* of its ``configurable``."""
        config = {**(self.config or {}), "configurable": {**self.configurable, **changes}}
        return replace(self, config=config)

    def with_answers(self, interrupt_ids: tuple[str, ...]) -> RunRequest:
        """Return the request as an answer to *interrupt_ids*."""
        return replace(self, answers=interrupt_ids)

    def given(self) -> dict[str, Any]:
        """Return what was asked by name, as :meth:`of` takes it."""
        named = {name: value for name, value in asdict(self).items() if value != _DEFAULTS[name]}
        extra = named.pop("extra", {})
        lists = {name: list(value) for name, value in named.items() if isinstance(value, tuple)}
        if "input" in named:
            named["input"] = msgspec.json.decode(self.input)
        return {**extra, **named, **lists}


_DEFAULTS: Final = asdict(RunRequest())


class RunOrigin(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The HTTP request that created a run.

    ``request_id`` is its ``X-Request-Id``; ``permissions`` what its user may do, in the application's own words;
    ``fingerprint`` tells two requests with one idempotency key apart; ``traceparent`` is the span that it is part of
    (W3C Trace Context), kept if traces are on; ``operator`` is who sent it for the run's owner.
    """

    request_id: str | None = None
    permissions: tuple[str, ...] = ()
    fingerprint: str | None = None
    traceparent: str | None = None
    operator: str | None = None


NO_ORIGIN: Final = RunOrigin()


class ThreadBinding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The values that the admission of a run *wrote* into its thread's metadata, and what *was* there before."""

    was: dict[str, Any]
    wrote: dict[str, Any]


class _Stored(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The stored text. The order is that of the text: see ``SECRET_MARKS``."""

    runlane_request: int
    secrets: bool = False
    origin: RunOrigin = NO_ORIGIN
    binding: ThreadBinding | None = None
    request: RunRequest


class StoredRequest:
    """A run's request as its row has it; decoded once, when something of it is first read.

    Reading raises :class:`RequestUnreadable` if a newer version of Runlane has written it.
    """

    def __init__(self, text: str, input_text: bytes | None = None) -> None:
        """Args:
        input_text: The input, if it is stored apart from *text*.
        """
        self.text = text
        self._input = input_text
        self._decoded: _Stored | None = None

    @classmethod
    def of(
        cls, request: RunRequest, origin: RunOrigin = NO_ORIGIN, binding: ThreadBinding | None = None
    ) -> StoredRequest:
        """Return *request* to be stored, with where it came from and what its admission wrote into the thread."""
        secrets = has_secrets(request.config, request.context)
        return cls._encoded(
            _Stored(
                runlane_request=_version(origin, _WHOLE),
                secrets=secrets,
                origin=origin,
                binding=binding,
                request=request,
            )
        )

    @classmethod
    def _encoded(cls, stored: _Stored) -> StoredRequest:
        return cls(msgspec.json.encode(stored).decode())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoredRequest) and (self.text, self._input) == (other.text, other._input)

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"<StoredRequest of {len(self.text)} characters>"

    @property
    def _stored(self) -> _Stored:
        if self._decoded is None:
            stored = _decode(self.text)
            if self._input is not None:
                request = replace(stored.request, input=msgspec.Raw(self._input))
                stored = replace(stored, runlane_request=_version(stored.origin, _WHOLE), request=request)
            self._decoded = stored
        return self._decoded

    @property
    def whole_text(self) -> str:
        """The text with the input, as far as this version can read it."""
        if self._input is None:
            return self.text
        with suppress(RequestUnreadable):
            return self._encoded(self._stored).text
        return self.text

    @property
    def versioned(self) -> bool:
        """Return whether the text has a version; that of Runlane 0.1 does not."""
        return self.text.startswith(_ANY_VERSION)

    @property
    def request(self) -> RunRequest:
        return self._stored.request

    @property
    def origin(self) -> RunOrigin:
        return self._stored.origin

    @property
    def traceparent(self) -> str | None:
        """The span that the run is part of; ``None`` without traces, which costs no decoding."""
        return self.origin.traceparent if self.text.startswith(_IS_TRACED) else None

    @property
    def binding(self) -> ThreadBinding | None:
        return self._stored.binding

    @property
    def secrets(self) -> bool:
        """Return whether the run is configured with secrets."""
        return self._stored.secrets

    @cached_property
    def input(self) -> Any:
        """The value of the request's input; ``None`` if it has none."""
        return msgspec.json.decode(self.request.input)

    @cached_property
    def given(self) -> Mapping[str, Any]:
        """The request by name, as a caller of the library gave it."""
        return self.request.given()

    @property
    def configurations(self) -> tuple[Any, ...]:
        """Where the run's secrets are; empty without any. What is sent as input is the graph's own."""
        return (self.request.config, self.request.context) if self.secrets else ()

    @property
    def shown(self) -> RunRequest:
        """The request without its secrets."""
        return _without_secrets(self.request) if self.secrets else self.request

    def without_input(self) -> StoredRequest:
        """Return the same to be stored apart from its input."""
        request = replace(self.request, input=NULL)
        version = _version(self.origin, _APART)
        return self._encoded(replace(self._stored, runlane_request=version, request=request))

    def rebound(self, binding: ThreadBinding) -> StoredRequest:
        """Return the same with another *binding*."""
        return self._encoded(replace(self._stored, binding=binding))

    def scrubbed(self) -> StoredRequest | None:
        """Return what may be kept of a run that has ended: the same without secrets; ``None`` if there are none."""
        if not self.text.startswith(SECRET_MARKS):
            return None
        return self._encoded(replace(self._stored, secrets=False, request=_without_secrets(self.request)))


def _version(origin: RunOrigin, least: int) -> int:
    return least if origin.traceparent is None and origin.operator is None else VERSION


def raw(value: Any) -> msgspec.Raw:
    """Return *value* as JSON text.

    Raises:
        InvalidRequest: It cannot be stored as JSON.
    """
    return msgspec.Raw(json_bytes(value))


def _without_secrets(request: RunRequest) -> RunRequest:
    return replace(
        request, config=redacted_configuration(request.config), context=redacted_configuration(request.context)
    )


def json_bytes(value: Any) -> bytes:
    """Return *value* as compact JSON text.

    Raises:
        InvalidRequest: It is not JSON: a type, a number beyond 64 bits, a lone surrogate.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except TypeError as error:
        raise InvalidRequest(f"This cannot be stored as JSON: {error}.") from error


def _decode(text: str) -> _Stored:
    try:
        if text.startswith(_READABLE):
            return _STORED.decode(text)
        if (version := _VERSION_OF.match(text)) is None:
            return _from_unversioned(text)
    except msgspec.DecodeError as error:
        raise RequestUnreadable(str(error)) from error
    raise RequestUnreadable(f"it has version {version[1]}, and this Runlane reads up to {VERSION}")


class _OldBinding(msgspec.Struct, frozen=True, rename={"wrote": "is"}):
    was: dict[str, Any]
    wrote: dict[str, Any]


class _OldMarks(msgspec.Struct, frozen=True, kw_only=True):
    """Names that Runlane 0.1 kept in a request."""

    runlane_secrets: bool = False
    request_id: str | None = None
    permissions: tuple[str, ...] = ()
    request_fingerprint: str | None = None
    thread_binding: _OldBinding | None = None


def _from_unversioned(text: str) -> _Stored:
    """Return what a row of Runlane 0.1 has: one object with the request's names and Runlane's own.

    A value of another kind is the caller's, whose names were not checked.
    """
    marks, asked = _split(_PARTS.decode(text), _MARKS)
    named, extra = _split(asked, _OPTIONS)
    old = _OldMarks(**marks)
    binding = (
        None
        if old.thread_binding is None
        else ThreadBinding(was=old.thread_binding.was, wrote=old.thread_binding.wrote)
    )
    return _Stored(
        runlane_request=_WHOLE,
        secrets=old.runlane_secrets,
        origin=RunOrigin(request_id=old.request_id, permissions=old.permissions, fingerprint=old.request_fingerprint),
        binding=binding,
        request=RunRequest(**named, extra=_values(extra)),
    )


Parts = Mapping[str, msgspec.Raw]
Kinds = Mapping[str, msgspec.json.Decoder[Any]]


def _split(parts: Parts, kinds: Kinds, *, strict: bool = False) -> tuple[dict[str, Any], dict[str, msgspec.Raw]]:
    """Return the values of *parts*, JSON texts by name, that are of these *kinds*, and the other parts.

    A default is among the others, so that :meth:`RunRequest.given` gives it back.

    Raises:
        ValidationError: A value is of another kind, if it is *strict*.
    """
    values: dict[str, Any] = {}
    others: dict[str, msgspec.Raw] = {}
    for name, part in parts.items():
        value = _DEFAULTS.get(name)
        if name in kinds:
            try:
                value = kinds[name].decode(part)
            except msgspec.ValidationError as error:
                if strict:
                    raise msgspec.ValidationError(f"{name}: {error}") from error
        if value == _DEFAULTS.get(name):
            others[name] = part
        else:
            values[name] = value
    return values, others


def _values(parts: Parts) -> dict[str, Any]:
    return {name: msgspec.json.decode(part) for name, part in parts.items()}


def _kinds(struct: type[msgspec.Struct]) -> dict[str, msgspec.json.Decoder[Any]]:
    return {field.name: msgspec.json.Decoder(field.type) for field in fields(struct) if field.name != "extra"}


# Decoders are made once: making one costs more than it takes to decode a request.
_STORED: Final = msgspec.json.Decoder(_Stored)
_PARTS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OPTIONS: Final = _kinds(RunRequest)
_MARKS: Final = _kinds(_OldMarks)
