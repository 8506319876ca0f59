"""Secrets in what a run is configured with, and in texts: finding them by name, and taking them out. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import orjson

REDACTED: Final = "***"
#: The key of a run's kwargs that says that there are secrets in them; it comes first, so that its text tells at once.
SECRETS: Final = "runlane_secrets"
_MARK: Final = f'{{"{SECRETS}":true'
#: Where a run's kwargs may have secrets; what a client sends as input is the graph's own data.
_PLACES: Final = ("config", "context")
#: A secret of this many characters is taken out wherever it stands; a shorter one may be a word like any other.
_LONG: Final = 16

_NAME: Final = re.compile(
    r"(?:^|[_\-. ])(?:api|access|private|secret|signing|encryption|service)[_\-. ]?keys?$"
    r"|(?:^|[_\-. ])(?:[a-z]*tokens?|secrets?|passwords?|passwd|passphrase|pwd|authorization|cookies?|credentials?"
    r"|dsn|jwt|bearer)$"
)
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

_IN_TEXT: Final = (
    # scheme://user:password@host
    (re.compile(r"(?<=://)[^\s/@'\":]{0,128}:[^\s/@'\"]{1,256}(?=@)"), REDACTED),
    # Authorization: Bearer abc, 'authorization': 'Basic abc'
    (re.compile(r"(?i)\b(bearer|basic)[ +]+(?=[\w\-.~+/]*[\d=])[\w\-.~+/]{8,}=*"), rf"\1 {REDACTED}"),
    # api_key=abc, "password": "abc", x-api-key: abc
    (
        re.compile(
            r"(?i)((?:api[_\-]?key|token|secret|password|passwd|authorization)['\"\\]*(?:=|: ?|, ?b?(?=['\"])))"
            r"(b?\\?['\"])?(?!\s|\*\*\*|bearer|basic|none|null)[^\s'\"&,;)}\]]{4,}"
        ),
        rf"\1\2{REDACTED}",
    ),
    # Cookie: a=b; c=d, (b'cookie', b'a=b')
    (
        re.compile(
            r"(?i)(\b(?:set-)?cookie['\"\\]*(?:=|: ?|, ?b?(?=['\"])))(b?\\?['\"])?(?!\s|\*\*\*|none|null)[^'\"\r\n]{4,}"
        ),
        rf"\1\2{REDACTED}",
    ),
    # Keys by the form that their issuers give them, and JSON Web Tokens.
    (re.compile(r"\b(?:sk|pk|rk|ghp|gho|ghs|glpat|xox[abps]|lsv2)[_\-][\w\-]{16,}"), REDACTED),
    (re.compile(r"\beyJ[\w\-]{8,1024}\.[\w\-]{8,}\.[\w\-]*"), REDACTED),
)


@lru_cache(maxsize=4096)
def names_secret(name: str) -> bool:
    """Say whether what is called *name* is a secret: ``api_key``, ``openaiApiKey``, ``AUTH_TOKEN``, ``password``."""
    return _NAME.search(_CAMEL.sub("_", name).lower()) is not None


def redacted(value: Any) -> Any:
    """Return the JSON *value* with ``***`` for its secrets: text, or what holds text, under the name of a secret."""
    if isinstance(value, Mapping):
        return {name: REDACTED if _is_secret(name, item) else redacted(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item) for item in value]
    return value


def marked(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a run's *kwargs*, with the mark :data:`SECRETS` if there are secrets in them."""
    if any(True for place in _PLACES for _ in _secrets(kwargs.get(place))):
        return {SECRETS: True, **{name: value for name, value in kwargs.items() if name != SECRETS}}
    return kwargs


def shown(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a run's *kwargs* as they may be seen."""
    if SECRETS not in kwargs:
        return kwargs
    return {name: redacted(value) if name in _PLACES else value for name, value in kwargs.items()}


def scrubbed_text(kwargs: str) -> str | None:
    """Return *kwargs*, the JSON text of a run that has ended, as it may be kept; ``None``: as it is."""
    if not kwargs.startswith(_MARK):
        return None
    found = {name: value for name, value in shown(orjson.loads(kwargs)).items() if name != SECRETS}
    return orjson.dumps(found).decode()


def redact_text(text: str) -> str:
    """Return a line of a log without what looks like a secret."""
    for pattern, replacement in _IN_TEXT:
        text = pattern.sub(replacement, text)
    return text


class RunSecrets:
    """The secrets of one run, to be taken out of what it says: those in its kwargs, and in what is *private* to it."""

    def __init__(self, kwargs: Mapping[str, Any], private: Mapping[str, Any] | None = None) -> None:
        found = [pair for place in _PLACES for pair in _secrets(kwargs.get(place))] if SECRETS in kwargs else []
        found += _secrets(private)
        hidden = orjson.dumps(REDACTED)
        self._fields = [(_member(name, value), orjson.dumps(name) + b":" + hidden) for name, value in found]
        self._long = sorted({text for _, value in found for text in _texts(value) if len(text) >= _LONG}, reverse=True)
        self._long_json = [(orjson.dumps(text)[1:-1], REDACTED.encode()) for text in self._long]

    def __bool__(self) -> bool:
        return bool(self._fields)

    def out_of(self, data: bytes) -> bytes:
        """Return the compact JSON text *data* without the run's secrets."""
        for secret, replacement in (*self._fields, *self._long_json):
            data = data.replace(secret, replacement)
        return data

    def out_of_text(self, text: str) -> str:
        """Return *text*, of an error, without the run's secrets, short ones excepted, and what looks like others."""
        for secret in self._long:
            text = text.replace(secret, REDACTED)
        return redact_text(text)


def _member(name: str, value: Any) -> bytes:
    return orjson.dumps(name) + b":" + orjson.dumps(value)


def _is_secret(name: Any, value: Any) -> bool:
    return isinstance(name, str) and names_secret(name) and any(True for _ in _texts(value))


def _secrets(value: Any) -> Iterator[tuple[str, Any]]:
    """Give the names and values of the secrets in *value*."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if _is_secret(name, item):
                yield name, item
            else:
                yield from _secrets(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _secrets(item)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if value:
            yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)
