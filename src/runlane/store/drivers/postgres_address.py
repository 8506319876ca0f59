"""Reading the address of a PostgreSQL database; what is said of one that cannot be read has nothing of its password."""

from __future__ import annotations

import re
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from runlane.errors import ConfigurationError

#: What libpq says without a value of the address: the rest repeats the password, or all of it.
#: Source: PostgreSQL, ``conninfo_uri_parse`` and ``conninfo_uri_decode`` in ``fe-connect.c``.
_HARMLESS: Final = re.compile(
    r'invalid (?:URI query parameter|connection option): ?"\w{1,40}"'
    r"|invalid percent-encoded token|forbidden value %00 in percent-encoded value"
    r'|unexpected character "." at position \d+ in URI|end of string reached when looking for matching "\]"'
    r"|IPv6 host address may not be empty in URI"
    r'|(?:extra|missing) key/value separator "="(?: in URI query parameter)?|missing "="'
)
_REMEDY: Final = (
    "Write postgresql://USER:PASSWORD@HOST:PORT/NAME, with reserved characters of the password percent-encoded (%40 "
    "for @, %2F for /, %25 for %), or leave the password out and set PGPASSWORD."
)


def parts_of(url: str) -> dict[str, Any]:
    """Return the parameters of a connection to the database at *url*.

    Raises:
        ConfigurationError: *url* is no address of a database.
    """
    try:
        parts = dict(conninfo_to_dict(url))
    except psycopg.ProgrammingError as error:
        found = _HARMLESS.match(str(error))
        raise _unusable(found[0] if found else "it is not one of PostgreSQL") from None  # the cause has the password
    # What follows the first "@" or "/" of an address is taken for the host, also within a password.
    if any("@" in host[1:] and not host.startswith("/") for host in str(parts.get("host") or "").split(",")):
        raise _unusable('its host has an "@"')
    if not all(port == "" or port.isdecimal() for port in str(parts.get("port") or "").split(",")):
        raise _unusable("its port is not a number")
    return parts


def _unusable(why: str) -> ConfigurationError:
    return ConfigurationError(f"The database's address cannot be used: {why}. {_REMEDY}")
