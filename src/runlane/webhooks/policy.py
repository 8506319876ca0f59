"""The policy of webhooks: allowed URLs, and headers. Pure, but for reading the environment once.

Source: the key ``webhooks`` of ``langgraph.json`` as the LangGraph CLI documents it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final

import httpx
import msgspec

from runlane.errors import ConfigurationError, InvalidRequest
from runlane.webhooks.addresses import kind_of

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
#: What only Runlane may say, or what would change where a request ends.
OWN_HEADERS: Final = frozenset({"connection", "content-length", "content-type", "host", "te", "transfer-encoding"})
_TEMPLATE: Final = re.compile(r"\$\{\{\s*env\.([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*\Z")
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e]*\Z")


class UrlRules(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Allowed URLs. Without rules any public host is, by HTTP or HTTPS."""

    require_https: bool = False
    allowed_domains: tuple[str, ...] = ()
    allowed_ports: tuple[Annotated[int, msgspec.Meta(ge=1, le=65_535)], ...] = ()
    #: Most servers refuse longer request lines.
    max_url_length: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 8192
    disable_loopback: bool = True
    disable_private_ips: bool = True


class WebhooksSection(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The key ``webhooks`` of a ``langgraph.json``."""

    env_prefix: str = "LG_WEBHOOK_"
    url: UrlRules = UrlRules()
    headers: dict[str, str] = {}
    allowed_fields: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to send: the parts of a URL that was allowed, as they go over the wire.

    Without a host it is a path of the project's own application, which is called within the process.
    """

    scheme: bytes
    host: bytes
    port: int | None
    target: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookPolicy:
    """The configuration of a deployment. ``headers`` go with every webhook and are shown nowhere.

    ``local``: the project has an application of its own, which a relative URL reaches.
    """

    rules: UrlRules = field(default_factory=UrlRules)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    allowed_fields: frozenset[str] | None = None
    local: bool = False

    def target(self, url: str) -> Target:
        """Return where *url* leads.

        Raises:
            InvalidRequest: It is no URL, or not allowed; the text says why and does not repeat it.
        """
        rules = self.rules
        if len(url) > rules.max_url_length:
            raise InvalidRequest(f"The webhook's URL is longer than {rules.max_url_length} characters.")
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, UnicodeError):
            raise InvalidRequest("The webhook is not a URL.") from None
        if url.startswith("/") and not parsed.raw_host:
            self._check_local()
            return Target(scheme=b"", host=b"", port=None, target=parsed.raw_path)
        if parsed.scheme not in DEFAULT_PORTS or not parsed.raw_host:
            raise InvalidRequest("The webhook must be an absolute URL that begins with https:// or http://.")
        if parsed.scheme == "http" and rules.require_https:
            raise InvalidRequest("The webhook's URL must begin with https://.")
        if parsed.userinfo:
            raise InvalidRequest("The webhook's URL has a user name; configure a header instead, or sign webhooks.")
        self._check_port(DEFAULT_PORTS[parsed.scheme] if parsed.port is None else parsed.port)
        self._check_host(parsed.raw_host.decode("ascii").lower().rstrip("."))
        return Target(scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path)

    def _check_local(self) -> None:
        if self.rules.disable_loopback:
            raise InvalidRequest(
                "A relative webhook reaches this server; set webhooks.url.disable_loopback to false to allow it."
            )
        if not self.local:
            raise InvalidRequest("A relative webhook reaches the project's own application, and there is no http.app.")

    def _check_port(self, port: int) -> None:
        allowed = self.rules.allowed_ports or range(1, 65_536)
        if port not in allowed:
            raise InvalidRequest(f"The webhook's port {port} is not allowed.")

    def _check_host(self, host: str) -> None:
        domains = self.rules.allowed_domains
        if domains and not any(_in_domain(host, domain.lower()) for domain in domains):
            raise InvalidRequest(f"The webhook's host {host!r} is not allowed.")
        if _HOST.match(host) is None and not _is_address(host):
            raise InvalidRequest(f"The webhook's host {host!r} is no name of a host.")
        local_name = host == "localhost" or host.endswith(".localhost")
        if (local_name and self.rules.disable_loopback) or (_is_address(host) and not self.permits(host)):
            raise InvalidRequest(f"The webhook's host {host!r} is not a public one.")

    def permits(self, address: str) -> bool:
        """Return whether *address* (an IP address) may be connected to.

        Public ones may; those of this machine and of private networks where the rules say so; others (those where
        clouds keep credentials, multicast, reserved) never.
        """
        match kind_of(ipaddress.ip_address(address)):
            case "public":
                return True
            case "private":
                return not self.rules.disable_private_ips
            case "loopback":
                return not self.rules.disable_loopback
            case "never":
                return False


def webhook_policy(
    section: WebhooksSection, environment: Mapping[str, str], fields: frozenset[str], *, local: bool = False
) -> WebhookPolicy:
    """Return what *section* says, its headers filled in from *environment*.

    Args:
        fields: Which fields a webhook's body can have.
        local: Whether there is an application of the project's own.

    Raises:
        ConfigurationError: A header cannot be sent or names a variable that there is not, or a field does not exist.
    """
    unknown = sorted(set(section.allowed_fields or ()) - fields)
    if unknown:
        raise ConfigurationError(
            f"webhooks.allowed_fields has {', '.join(unknown)}; there are {', '.join(sorted(fields))}."
        )
    headers = tuple(_header(name, text, section.env_prefix, environment) for name, text in section.headers.items())
    allowed = None if section.allowed_fields is None else frozenset(section.allowed_fields)
    return WebhookPolicy(rules=section.url, headers=headers, allowed_fields=allowed, local=local)


def _header(name: str, text: str, prefix: str, environment: Mapping[str, str]) -> tuple[str, str]:
    def filled(match: re.Match[str]) -> str:
        variable = match[1]
        if not variable.startswith(prefix):
            raise ConfigurationError(f"webhooks.headers.{name} uses {variable}; it must begin with {prefix}.")
        if variable not in environment:
            raise ConfigurationError(f"webhooks.headers.{name} uses {variable}, which is not set.")
        return environment[variable]

    lower = name.lower()
    if _HEADER_NAME.match(name) is None or lower in OWN_HEADERS or lower.startswith("webhook-"):
        raise ConfigurationError(f"webhooks.headers.{name}: there can be no such header.")
    value = _TEMPLATE.sub(filled, text)
    if _HEADER_VALUE.match(value) is None:
        raise ConfigurationError(f"webhooks.headers.{name}: its value has characters that no header can have.")
    return name, value


def _in_domain(host: str, domain: str) -> bool:
    """Return whether *host* is *domain*, or under it if that begins with ``*.``."""
    return host.endswith(domain[1:]) if domain.startswith("*.") else host == domain


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
