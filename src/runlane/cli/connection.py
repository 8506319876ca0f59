"""The options with which commands find their server, and the client that they get."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from runlane.cli.profiles import find_profile
from runlane.cli.reporting import reporting
from runlane.errors import ConfigurationError

if TYPE_CHECKING:
    from runlane.cli.client import Client

DEFAULT_URL: Final = "http://127.0.0.1:2024"
#: Names and values of headers that HTTP can carry. Source: RFC 9110, 5.1 and 5.5, without obsolete bytes.
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t -~]*")


def with_server(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name a server to *command*, which gets a ``client`` and reports errors."""

    @click.option("--url", envvar="RUNLANE_URL", show_envvar=True, help=f"The server.  [default: {DEFAULT_URL}]")
    @click.option("--api-key", "--key", envvar="RUNLANE_API_KEY", show_envvar=True, help="Your API key.")
    @click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="A header to send; may be repeated.")
    @click.option(
        "--profile", envvar="RUNLANE_PROFILE", show_envvar=True, help="A server of the profiles file, by its name."
    )
    @click.pass_context
    @functools.wraps(command)
    def called(
        context: click.Context,
        /,
        *arguments: Any,
        url: str | None,
        api_key: str | None,
        headers: tuple[str, ...],
        profile: str | None,
        **options: Any,
    ) -> None:
        from_line = {name for name in ("url", "api_key") if context.get_parameter_source(name) is _FROM_LINE}
        with reporting(), _client(url, api_key, headers, profile, from_line) as client:
            command(*arguments, client=client, **options)

    return called


_FROM_LINE: Final = ParameterSource.COMMANDLINE


def _client(
    url: str | None, api_key: str | None, headers: tuple[str, ...], profile: str | None, from_line: set[str]
) -> Client:
    """Return the client of the server. What a profile says goes before the environment, and after the command line."""
    from runlane.cli.client import Client

    if profile is not None and "url" in from_line:
        raise ConfigurationError("--profile names a server, whose secrets no other one gets; leave out --url.")
    found = find_profile(profile) if profile is not None or url is None else None
    sent: dict[str, str] = {}
    if found is not None:
        url = found.url
        api_key = api_key if "api_key" in from_line else None
        sent.update(found.headers)
    if api_key is not None:
        sent["x-api-key"] = api_key
    sent.update(_headers(headers))
    for name, value in sent.items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ConfigurationError(
                f"The header {name!r} cannot be sent: a name is letters, digits and hyphens, a value one line of ASCII."
            )
    return Client(DEFAULT_URL if url is None else url, sent)


def _headers(given: tuple[str, ...]) -> Mapping[str, str]:
    found = {}
    for text in given:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise ConfigurationError("--header is NAME:VALUE, such as --header 'Authorization: Bearer ...'.")
        found[name.strip()] = value.strip()
    return found
