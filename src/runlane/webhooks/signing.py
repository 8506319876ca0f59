"""Signatures over what is sent: HMAC-SHA256 over the id, the time and the exact bytes of the body.

Source: Standard Webhooks, symmetric signatures (``v1``, secrets ``whsec_`` and base64).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

from runlane.errors import ConfigurationError

SECRET_PREFIX: Final = "whsec_"
#: What the standard asks of a secret.
MIN_SECRET_BYTES: Final = 24
MAX_SECRET_BYTES: Final = 64


def signing_keys(secrets: str) -> tuple[bytes, ...]:
    """Return the keys of the setting ``webhook_secret``: secrets separated by spaces; none means no signature.

    Raises:
        ConfigurationError: One is malformed; the text does not show it.
    """
    return tuple(_key(secret) for secret in secrets.split())


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(SECRET_PREFIX) or not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise ConfigurationError(
            f"Setting webhook_secret must be {SECRET_PREFIX!r} and the base64 of {MIN_SECRET_BYTES} to "
            f"{MAX_SECRET_BYTES} random bytes, or several of these separated by spaces."
        )
    return key


def signature(keys: tuple[bytes, ...], webhook_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of the header ``webhook-signature``: one signature for each of *keys*."""
    signed = b"%s.%d.%s" % (webhook_id.encode(), timestamp, body)
    return " ".join("v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys)
