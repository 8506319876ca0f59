"""API keys in a file: authentication that needs no code. The file has hashes of keys, never a key."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from runlane.errors import ConfigurationError
from runlane.server.auth.access import Access, User
from runlane.server.auth.scopes import permissions_of
from runlane.store.transactions.assistants import SHARED_OWNER

log = logging.getLogger("runlane.auth")

#: ``rlk_<id>_<secret>``: the id, which is no secret, finds the line of the file; the secret has 256 bits.
_KEY: Final = re.compile(r"rlk_([0-9a-f]{16})_([A-Za-z0-9_-]{43})\Z")
_LINE: Final = re.compile(r"([0-9a-f]{16}) ([0-9a-f]{64}) (\S[^\t]*)(?:\t(\{.*\}))?\Z")
#: Control characters, separators of lines and paragraphs, surrogates: whatever ends a line for any reader.
_NEVER_IN_OWNERS: Final = frozenset({"Cc", "Zl", "Zp", "Cs"})
_HEADER: Final = "# API keys of Runlane: <id> <SHA-256 of the key> <owner>. Remove a line to revoke its key.\n"


class KeyTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a line says of its key beside its owner, as JSON after a tab; *scopes* make it the key of an operator."""

    scopes: tuple[str, ...] = ()
    created_at: datetime | None = None
    expires_at: datetime | None = None


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key: *identity* is the owner, or the operator's name; *permissions* are those of an operator."""

    key_id: str
    hash: str
    identity: str
    permissions: tuple[str, ...]
    created_at: datetime | None
    expires_at: datetime | None

    @property
    def expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= datetime.now(UTC)


_NOBODY: Final = ApiKey(key_id="", hash="0" * 64, identity="", permissions=(), created_at=None, expires_at=None)


def check_owner(owner: Any) -> str:
    """Return *owner* if rows can belong to it.

    Raises:
        ConfigurationError: It is no text, empty, longer than 512 characters, has a control character, a separator of
            lines or a lone surrogate, or is the name under which things are shared.
    """
    if not isinstance(owner, str) or not owner.strip() or len(owner) > 512 or owner == SHARED_OWNER:
        raise ConfigurationError(
            f"The identity of a user must be a text of 1 to 512 characters, and not '*'; it is {owner!r:.80}."
        )
    if any(unicodedata.category(char) in _NEVER_IN_OWNERS for char in owner):
        raise ConfigurationError(f"The identity {owner!r:.80} has a character that no identity can have.")
    return owner


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key that is in no file yet, and the *line* by which one has it."""

    key_id: str
    key: str
    line: str


def make_key(identity: str, *, scopes: Sequence[str] = (), expires_in: timedelta | None = None) -> NewKey:
    """Make a key, which opens nothing before :func:`append_key`.

    Args:
        identity: The owner whose things requests with the key see and make; with *scopes*, the operator's name.

    Raises:
        ConfigurationError: *identity* cannot own anything, or a scope does not exist.
    """
    line_owner, now = check_owner(identity.strip()), datetime.now(UTC).replace(microsecond=0)
    permissions_of(scopes)
    terms = KeyTerms(
        scopes=tuple(sorted(set(scopes))),
        created_at=now,
        expires_at=None if expires_in is None else now + expires_in,
    )
    key_id = secrets.token_hex(8)
    key = f"rlk_{key_id}_{secrets.token_urlsafe(32)}"
    line = f"{key_id} {_hash(key)} {line_owner}\t{msgspec.json.encode(terms).decode()}\n"
    return NewKey(key_id=key_id, key=key, line=line)


def append_key(new: NewKey, file: Path) -> None:
    """Append the hash of a key to *file*, made for its user only if missing.

    Raises:
        ConfigurationError: The file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with open(fd, "a", encoding="utf-8") as target:
            target.write(f"{'' if target.tell() else _HEADER}{new.line}")
    except OSError as error:
        raise ConfigurationError(f"The keys file {file} cannot be written: {error.strerror}.") from error


def new_key(identity: str, file: Path, *, scopes: Sequence[str] = (), expires_in: timedelta | None = None) -> str:
    """Make a key as :func:`make_key` does, append it to *file*, and return it.

    Raises:
        ConfigurationError: As there, and as :func:`append_key`.
    """
    new = make_key(identity, scopes=scopes, expires_in=expires_in)
    append_key(new, file)
    return new.key


def _hash(key: str) -> str:
    """Return the hash of a key; one round is enough, as nobody can guess 256 random bits."""
    return hashlib.sha256(key.encode()).hexdigest()


def revoke_key(key_id: str, file: Path) -> None:
    """Remove the line of a key from *file*, all others and comments stay.

    Raises:
        ConfigurationError: The file has no such key, or cannot be read or written.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith(f"{key_id} ")]
        if len(kept) == len(lines):
            raise ConfigurationError(f"The keys file {file} has no key {key_id}. List them with: runlane keys ls")
        beside = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
        beside.touch(0o600)
        beside.write_text("".join(kept), encoding="utf-8")
        os.replace(beside, file)
    except OSError as error:
        raise ConfigurationError(f"The keys file {file} cannot be changed: {error.strerror}.") from error


def read_keys(file: Path) -> dict[str, ApiKey]:
    """Return the keys by their ids. A line that is not understood is reported and lets nobody in.

    Raises:
        OSError: The file cannot be read.
    """
    found: dict[str, ApiKey] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").split("\n"), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.match(text)
        try:
            if match is None:
                raise ConfigurationError("it is not '<id> <SHA-256 of the key> <owner>'")
            terms = _TERMS.decode(match[4] or "{}")
            found[match[1]] = ApiKey(
                key_id=match[1],
                hash=match[2],
                identity=check_owner(match[3]),
                permissions=permissions_of(terms.scopes),
                created_at=terms.created_at,
                expires_at=terms.expires_at,
            )
        except (ConfigurationError, msgspec.DecodeError) as error:
            log.error("auth.keys_line_ignored file=%s line=%d why=%s", file, number, error)
    return found


_TERMS: Final = msgspec.json.Decoder(KeyTerms)


@dataclass(frozen=True, slots=True)
class _Version:
    """Return the version of the file's content that was read."""

    mtime_ns: int
    size: int
    inode: int


class ApiKeys:
    """Authentication by keys of a file, which is read again when it changes: a key that is removed opens nothing."""

    reads_body = False
    openapi: Mapping[str, Any] = {
        "securitySchemes": {
            "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            "bearer": {"type": "http", "scheme": "bearer"},
        },
        "security": [{"apiKey": []}, {"bearer": []}],
    }

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise ConfigurationError(
                f"The keys file {file} does not exist. Make a key with: runlane keys new OWNER --file {file}"
            )
        self._file = file
        self._version: _Version | None = None
        self._keys: dict[str, ApiKey] = {}

    async def authenticate(self, connection: HTTPConnection) -> User:
        """Return the owner of the key in ``x-api-key`` or ``Authorization: Bearer``."""
        given = _given(connection)
        if given is None:
            raise _refused("No API key was sent: send it as x-api-key, or as Authorization: Bearer.")
        match = _KEY.match(given)
        key_id = "" if match is None else match[1]
        key = self._current().get(key_id, _NOBODY)
        if not hmac.compare_digest(key.hash, _hash(given)) or not key.identity or key.expired:
            raise _refused("The API key is not valid: it is unknown, has expired or was revoked.")
        return User(key.identity, key.permissions, key_id=key.key_id)

    def _current(self) -> dict[str, ApiKey]:
        """Return the keys of the file as it is now; none if it is gone."""
        try:
            stat = self._file.stat()
            version = _Version(stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if version != self._version:
                self._keys, self._version = read_keys(self._file), version
        except OSError as error:
            log.error("auth.keys_unreadable file=%s why=%s", self._file, error.strerror)
            self._keys, self._version = {}, None
        return self._keys

    def keys(self) -> tuple[ApiKey, ...]:
        """Return the keys of the file."""
        return tuple(self._current().values())

    def allows(self, resource: str, action: str) -> bool:
        """Return that it is: an owner may do everything with their own things."""
        return True

    async def access(self, user: User, resource: str, action: str, value: dict[str, Any]) -> Access:
        """Return the user's own things."""
        return Access(owner=user.identity, reads=user.identity, user=user)

    def version(self) -> object:
        """Return which content of the file is in use."""
        self._current()
        return self._version

    async def knows(self, owner: str) -> bool:
        """Return whether the file has a key of *owner*."""
        return any(key.identity == owner and not key.expired for key in self._current().values())

    async def aclose(self) -> None:
        """Nothing is held."""


def _given(connection: HTTPConnection) -> str | None:
    if key := connection.headers.get("x-api-key", "").strip():
        return key
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _refused(detail: str) -> HTTPException:
    return HTTPException(401, detail, {"WWW-Authenticate": "Bearer"})
