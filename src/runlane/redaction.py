"""Secrets in what a run is configured with, and in texts: finding them by name and by form, and redacting them. Pure.

The rules are listed in ``docs/reference/redaction.md``. Every pattern runs in linear time: possessive quantifiers never
give back what they took, and lookbehinds let a scan start only where a word begins.

Source: OWASP, "Regular expression Denial of Service".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import orjson

from runlane.errors import InvalidRequest

REDACTED: Final = "***"
#: In a config, what the client finds its runs by; it is the client's data too.
_METADATA: Final = "metadata"
_CONTAINERS: Final = (dict, list, tuple, Mapping)
#: A secret of this many characters is taken out wherever it stands; a shorter one may be a word like any other.
_LONG: Final = 16
#: Secrets of one run; each costs a scan of each of its events.
MAX_SECRETS: Final = 100
#: Characters of a text that are looked at; what comes after them is cut off, as it may hold secrets too.
MAX_TEXT: Final = 256 * 1024
#: Characters of a name that are looked at, the last ones; the cache of names holds no more of each.
_MAX_NAME: Final = 128


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]++|[A-Z]++|[0-9]++")
#: What may follow the words that make a name a secret's: ``API_KEY_PROD``, ``token2``, ``auth_header``.
_QUALIFIERS: Final = _words(
    "prod production dev development test testing stage staging live sandbox default primary secondary main backup old"
    " new current value string header headers raw plain text b base hex env local eu us"
)
_SECRET_WORDS: Final = _words(
    "secret secrets password passwords passwd passphrase pwd authorization cookie cookies credential credentials creds"
    " dsn jwt bearer"
)
_SECRET_ENDS: Final = ("token", "tokens", "secret", "password", "passwd", "apikey", "apikeys", "accesskey", "secretkey")
#: Pairs of words, the first one as the end of a word: ``AzureOpenAIAPIKey`` is ``azure open aiapi key``.
_SECRET_PAIRS: Final[Mapping[str, tuple[str, ...]]] = {
    "key": tuple(_words("api access private secret signing encryption service master account ssh auth")),
    "string": ("connection",),
    "pass": ("db", "smtp", "user", "database", "auth", "admin", "root"),
    "header": ("auth",),
}
#: Tokens that are counted, that page through a list, or that a tokenizer has.
_COUNTED: Final = _words(
    "max min num n total count limit input output prompt completion used budget reasoning cached thinking"
)
_NO_SECRET_TOKENS: Final = _words(
    "page next prev previous continuation cursor pad eos bos unk sep mask cls stop start end special max per"
)

#: Forms that issuers give their keys, JSON Web Tokens, and private keys.
_KEY_FORM: Final = (
    r"(?:sk-[\w\-]{16,}+|[spr]k_(?:live|test)_\w{16,}+|gh[oprsu]_\w{16,}+|github_pat_\w{16,}+|glpat-[\w\-]{16,}+"
    r"|xox[a-z]-[\w\-]{16,}+|lsv2_\w{16,}+|(?:hf|gsk|npm)_[A-Za-z0-9]{30,}+|xai-[A-Za-z0-9]{30,}+"
    r"|AKIA[0-9A-Z]{16}(?![\w\-])|AIza[\w\-]{30,}+|whsec_[\w+/]{16,}+=*+|rlk_[0-9a-f]{16}_[\w\-]{43})"
)
_JWT_FORM: Final = r"eyJ[\w\-]{8,}+\.[\w\-]{8,}+(?:\.[\w\-]*+)*+"
_PASSWORD_IN_URL: Final = r"[^\s/@'\":]*+:[^\s/@'\"]++(?=@)"
_WHOLE: Final = re.compile(
    rf"\A(?:{_KEY_FORM}|{_JWT_FORM}|(?:[Bb]earer|BEARER|[Bb]asic|BASIC|[Tt]oken|TOKEN) ++[\w\-.~+/]{{8,}}+=*+"
    rf"|[a-zA-Z][\w+.\-]*+://{_PASSWORD_IN_URL}\S++)\Z"
)
_CASES: Final = (str.lower, str.upper, str.title)
#: How all that ``_WHOLE`` matches begins, but for URLs: most values of a configuration begin otherwise.
_BEGINNINGS: Final = (
    *("sk", "pk", "rk", "gh", "glpat-", "github_pat_", "xox", "lsv2_", "hf_", "gsk_", "npm_", "xai-", "AKIA", "AIza"),
    *("whsec_", "rlk_", "eyJ", *(case(one) for one in ("bearer", "basic", "token") for case in _CASES)),
)
#: Their first two characters, which settle it for most.
_FIRST_TWO: Final = frozenset(beginning[:2] for beginning in _BEGINNINGS)
#: A longer value is a text that may mention a secret, and none.
_MAX_WHOLE: Final = 16 * 1024

_IN_URL: Final = re.compile(rf"(?<=://){_PASSWORD_IN_URL}")
_SCHEME: Final = re.compile(r"(?i)\b(bearer|basic)[ +]++([\w\-.~+/]{8,}+=*+)")
#: name=, "name": ", (b'name', b', and then the value, which is one if the name says so.
_NAMED: Final = re.compile(r"(?<![\w\-])([\w\-]++)['\"\\]*+(?:=|: ?|, ?b?(?=['\"\\]))(?:b?\\?['\"])?+")
_VALUE: Final = re.compile(r"(?!\s|\*\*\*|(?i:bearer|basic) |(?i:none|null)\b)[^\s'\"&,;)}\]]{4,}+")
#: Headers whose value has spaces: cookies, and credentials after the name of a scheme.
_HEADER: Final = re.compile(
    r"(?i)(\b(?:(?:set-)?cookie|authorization)['\"\\]*+(?:=|: ?|, ?b?(?=['\"])))(b?\\?['\"])?+"
    r"(?!\s|\*\*\*|(?:none|null)\b)[^'\"\r\n]{4,}+"
)
_KEYS: Final = re.compile(rf"(?<![\w\-])(?:{_KEY_FORM}|(?:sk|pk|rk)[_\-][\w\-]{{16,}}+)")
_JWT: Final = re.compile(rf"(?<![\w\-])(?>([\w\-]*?)\beyJ)(?<=eyJ){_JWT_FORM.removeprefix('eyJ')}")
_PEM: Final = re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[^\-]++(?:-----END [A-Z ]{0,40}PRIVATE KEY-----)?+")


def names_secret(name: str) -> bool:
    """Return whether a value called *name* is a secret: ``api_key``, ``openAIApiKey``, ``AUTH_TOKEN``."""
    return _names_secret(name[-_MAX_NAME:])


@lru_cache(maxsize=4096)
def _names_secret(name: str) -> bool:
    words = [word.lower() for word in _WORD.findall(name)]
    while len(words) > 1 and (words[-1] in _QUALIFIERS or words[-1].isdigit()):
        if _is_secret_end(words):
            return True
        words.pop()
    return bool(words) and _is_secret_end(words)


def _is_secret_end(words: list[str]) -> bool:
    """Return whether the last of *words*, with the one before, name a secret."""
    last, before = words[-1], words[-2] if len(words) > 1 else ""
    if last in _SECRET_WORDS:
        return True
    if last.endswith(_SECRET_ENDS):
        counted = last == "tokens" and not _COUNTED.isdisjoint(words)
        return not counted and not (last == "token" and before in _NO_SECRET_TOKENS)
    ends = _SECRET_PAIRS.get(last.removesuffix("s") if last in ("keys", "headers", "strings") else last)
    return ends is not None and before.endswith(ends)


def redacted(value: Any) -> Any:
    """Return the JSON *value* with ``***`` for its secrets, by the names of their fields or by their form."""
    if isinstance(value, Mapping):
        return {name: REDACTED if is_secret(name, item) else redacted(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item) for item in value]
    return REDACTED if _has_form(value) else value


def check_secrets(*configurations: Any) -> None:
    """Check that a run's *configurations* have no more secrets than can be kept out of what the run says.

    Raises:
        InvalidRequest: They have more than ``MAX_SECRETS``.
    """
    found = 0
    for _, value in _secrets_of(configurations):
        found += sum(1 for _ in _texts(value))
        if found > MAX_SECRETS:
            raise InvalidRequest(
                f"The run is configured with more than {MAX_SECRETS} secrets in its config and context; "
                "keep them in the graph's environment, or rename fields that hold none."
            )


def has_secrets(*configurations: Any) -> bool:
    """Return whether there are secrets in a run's *configurations*."""
    return any(True for _ in _secrets_of(configurations))


def redacted_configuration(configuration: Any) -> Any:
    """Return a run's *configuration* as it may be seen."""
    if not isinstance(configuration, Mapping) or _METADATA not in configuration:
        return redacted(configuration)
    return {name: item if name == _METADATA else redacted({name: item})[name] for name, item in configuration.items()}


def without_redacted(configuration: Any) -> Any:
    """Return *configuration*, which was redacted, without the values that were."""
    if isinstance(configuration, Mapping):
        return {name: without_redacted(item) for name, item in configuration.items() if item != REDACTED}
    return configuration


def redact_text(text: str) -> str:
    """Return *text*, of a log or an error, without what looks like a secret, in linear time.

    It has at most ``MAX_TEXT`` characters; the rest is cut off.
    """
    text = text[:MAX_TEXT]
    if "://" in text:
        text = _IN_URL.sub(REDACTED, text)
    text = _HEADER.sub(rf"\1\2{REDACTED}", text)
    text = _SCHEME.sub(_without_credentials, text)
    text = _without_named(text)
    text = _KEYS.sub(REDACTED, text)
    if "eyJ" in text:
        text = _JWT.sub(rf"\1{REDACTED}", text)
    return _PEM.sub(REDACTED, text)


def shortened(text: str, limit: int) -> str:
    """Return *text* with at most *limit* characters and a note of what was left out: its beginning, and its end."""
    if len(text) <= limit:
        return text
    tail = limit // 4
    return f"{text[: limit - tail]}... ({len(text) - limit} characters left out) ...{text[-tail:]}"


def _without_credentials(match: re.Match[str]) -> str:
    scheme, credentials = match[1], match[2]
    # A word of prose has no digit: "basic authentication failed".
    return f"{scheme} {REDACTED}" if any(char.isdigit() or char == "=" for char in credentials) else match[0]


def _without_named(text: str) -> str:
    """Return *text* without the values that the names before them call secrets."""
    pieces, done = [], 0
    for named in _NAMED.finditer(text):
        if named.start() < done or not names_secret(named[1]):
            continue
        value = _VALUE.match(text, named.end())
        if value is None or (value[0].isdigit() and named[1][-1] in "sS"):  # tokens=15000 is a count
            continue
        pieces += [text[done : named.end()], REDACTED]
        done = value.end()
    return "".join([*pieces, text[done:]])


class RunSecrets:
    """The secrets of one run, to be taken out of what it says.

    Args:
        configurations: What it is configured with.
        private: What only its agent is told.
    """

    def __init__(self, configurations: Sequence[Any], private: Mapping[str, Any] | None = None) -> None:
        found = list(_secrets_of(configurations))
        found += _secrets(private)
        hidden = orjson.dumps(REDACTED)
        fields = {_member(name, value): orjson.dumps(name) + b":" + hidden for name, value in found if name}
        self._fields = list(fields.items())
        long = {text for _, value in found for text in _texts(value) if len(text) >= _LONG}
        self._long = sorted(long, key=len, reverse=True)
        self._long_json = [(orjson.dumps(text)[1:-1], REDACTED.encode()) for text in self._long]

    def __bool__(self) -> bool:
        return bool(self._fields or self._long)

    def out_of(self, data: bytes) -> bytes:
        """Return the compact JSON text *data* without the run's secrets."""
        for secret, replacement in (*self._fields, *self._long_json):
            data = data.replace(secret, replacement)
        return data

    def out_of_text(self, text: str) -> str:
        """Return *text*, of an error, without the run's secrets, short ones excepted, and what looks like others."""
        text = text[:MAX_TEXT]
        for secret in self._long:
            text = text.replace(secret, REDACTED)
        return redact_text(text)


def _member(name: str, value: Any) -> bytes:
    return orjson.dumps(name) + b":" + orjson.dumps(value)


def is_secret(name: Any, value: Any) -> bool:
    """Return whether *value*, called *name* in a configuration, is a secret: it holds text."""
    if isinstance(value, str):
        return bool(value) and ((isinstance(name, str) and names_secret(name)) or _has_form(value))
    if not isinstance(value, _CONTAINERS):
        return False
    return isinstance(name, str) and names_secret(name) and any(True for _ in _texts(value))


def _has_form(value: Any) -> bool:
    """Return whether *value* is a text that looks like a secret and like nothing else."""
    if not isinstance(value, str):
        return False
    if not ((value[:2] in _FIRST_TWO and value.startswith(_BEGINNINGS)) or "://" in value):
        return False
    return len(value) <= _MAX_WHOLE and _WHOLE.match(value) is not None


def _secrets_of(configurations: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Give the names and values of the secrets that a run is configured with; metadata is the client's own."""
    for value in configurations:
        if isinstance(value, Mapping):
            yield from _secrets({name: item for name, item in value.items() if name != _METADATA})
        else:
            yield from _secrets(value)


def _secrets(value: Any) -> Iterator[tuple[str, Any]]:
    """Give the names and values of the secrets in *value*; those in lists have the name ``""``."""
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, Mapping):
            for name, item in one.items():
                if is_secret(name, item):
                    yield name, item
                elif isinstance(item, _CONTAINERS):
                    stack.append(item)
        elif isinstance(one, list | tuple):
            yield from (("", item) for item in one if _has_form(item))
            stack.extend(item for item in one if isinstance(item, _CONTAINERS))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if value:
            yield value
    elif isinstance(value, _CONTAINERS):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)
