"""Which URLs and addresses are allowed, what a signature is over, and when a webhook is tried again."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any

import pytest

from runlane.errors import ConfigurationError, InvalidRequest
from runlane.settings import Settings
from runlane.store.transactions.webhooks import DeliveryStatus
from runlane.webhooks.deliverer import CROWDED_DELAY_S, MAX_RETRY_AFTER_S, RETRY_DELAYS_S, follows
from runlane.webhooks.policy import UrlRules, WebhookPolicy, WebhooksSection, webhook_policy
from runlane.webhooks.sender import CROWDED, WebhookResponse
from runlane.webhooks.signing import signature, signing_keys

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KEY = b"k" * 32
SECRET = "whsec_" + base64.b64encode(KEY).decode()
FIELDS = frozenset({"run_id", "status"})


def policy(**rules: Any) -> WebhookPolicy:
    return WebhookPolicy(rules=UrlRules(**rules))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/hook",
        "//example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://",
        "https://example.com:99999/",
        "https://example.com:0/",
        "https://user:secret@example.com/",
        "http://127.0.0.1\\@example.com/",
        "http://exa mple.com/",
        "http://%31%32%37.0.0.1/",
        "http://xn--/",
        "http://-/",
        "http://../",
        "http://a..b/",
        f"http://{'a' * 64}.example/",
        f"http://{'a.' * 127}example/",
        "http://example.com/\r\nX-Header: y",
        "http://[fe80::1%25eth0]/",
        "http://127。0。0。1/",
        "https://[::1",
        "http://localhost/",
        "http://api.localhost:8000/",
        "http://LOCALHOST./",
        "http://127.0.0.1/",
        "http://127.9.9.9/",
        "http://0.0.0.0/",
        "http://[::1]/",
        "http://[::]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/",
        "http://168.63.129.16/",
        "http://192.0.0.192/",
        "http://192.88.99.1/",
        "http://100.100.100.200/",
        "http://[3fff::1]/",
        "http://[fd00:ec2::254]/",
        "http://10.0.0.1/",
        "http://172.16.0.1/",
        "http://192.168.1.1/",
        "http://100.64.0.1/",
        "http://[fd00::1]/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "https://example.com/" + "x" * 8192,
    ],
)
def test_a_url_that_may_not_be_told_is_refused_without_rules(url: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        policy().target(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "host", "port", "target"),
    [
        ("https://example.com", b"example.com", None, b"/"),
        ("http://example.com:8080/a%20b?t=1#x", b"example.com", 8080, b"/a%20b?t=1"),
        ("https://EXAMPLE.com/", b"example.com", None, b"/"),
        ("https://bücher.example/", b"xn--bcher-kva.example", None, b"/"),
        ("https://[2606:4700::1]:444/", b"2606:4700::1", 444, b"/"),
        ("http://8.8.8.8/", b"8.8.8.8", None, b"/"),
        ("http://some_service-1.example./", b"some_service-1.example.", None, b"/"),
    ],
)
def test_a_public_url_is_taken_apart(url: str, host: bytes, port: int | None, target: bytes) -> None:
    found = policy().target(url)
    assert (found.host, found.port, found.target) == (host, port, target)


@pytest.mark.parametrize(
    ("rules", "good", "bad"),
    [
        ({"require_https": True}, "https://a.example/", "http://a.example/"),
        ({"allowed_domains": ("a.example",)}, "https://A.example/", "https://x.a.example/"),
        ({"allowed_domains": ("*.a.example",)}, "https://x.a.example/", "https://a.example/"),
        ({"allowed_domains": ("*.a.example",)}, "https://y.x.a.example/", "https://bada.example/"),
        ({"allowed_ports": (443,)}, "https://a.example/", "http://a.example/"),
        ({"allowed_ports": (8443,)}, "https://a.example:8443/", "https://a.example/"),
        ({"max_url_length": 20}, "https://a.example/", "https://a.example/too-long"),
        ({"disable_loopback": False}, "http://localhost:8000/", "http://10.0.0.1/"),
        ({"disable_loopback": False}, "http://[::1]/", "http://169.254.169.254/"),
        ({"disable_private_ips": False}, "http://10.0.0.1/", "http://127.0.0.1/"),
        ({"disable_private_ips": False}, "http://[fd00::1]/", "http://169.254.169.254/"),
    ],
)
def test_a_rule_allows_and_refuses(rules: dict[str, Any], good: str, bad: str) -> None:
    policy(**rules).target(good)
    with pytest.raises(InvalidRequest):
        policy(**rules).target(bad)


def test_a_header_is_filled_in_from_variables_with_the_prefix() -> None:
    section = WebhooksSection(headers={"Authorization": "Bearer ${{ env.LG_WEBHOOK_A }}-${{env.LG_WEBHOOK_B}}"})
    made = webhook_policy(section, {"LG_WEBHOOK_A": "token", "LG_WEBHOOK_B": "two"}, FIELDS)
    assert made.headers == (("Authorization", "Bearer token-two"),)
    assert "token" not in repr(made)


@pytest.mark.parametrize(
    "section",
    [
        WebhooksSection(headers={"x": "${{ env.HOME }}"}),
        WebhooksSection(headers={"x": "${{ env.LG_WEBHOOK_MISSING }}"}),
        WebhooksSection(headers={"x": "${{ env.LG_WEBHOOK_BAD }}"}),
        WebhooksSection(headers={"Host": "a"}),
        WebhooksSection(headers={"Webhook-Signature": "a"}),
        WebhooksSection(headers={"a b": "c"}),
        WebhooksSection(allowed_fields=("run_id", "nothing")),
    ],
)
def test_a_section_that_cannot_be_honoured_is_refused_and_shows_no_value(section: WebhooksSection) -> None:
    environment = {"HOME": "hidden", "LG_WEBHOOK_BAD": "hidden\r\nx: y"}
    with pytest.raises(ConfigurationError, match=r"^webhooks\.") as refused:
        webhook_policy(section, environment, FIELDS)
    assert "hidden" not in str(refused.value)


def test_a_signature_is_the_one_of_the_standards_own_library() -> None:
    """Recorded from ``standardwebhooks`` for Python, with the values that the standard's libraries are tested with."""
    keys = signing_keys("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signature(keys, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_signature_is_what_the_standard_says_once_for_each_key() -> None:
    other = b"o" * 24
    keys = signing_keys(f"{SECRET} whsec_{base64.b64encode(other).decode()}")
    assert keys == (KEY, other)
    signed = b'run-1.1700000000.{"a":1}'
    expected = [base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys]
    assert signature(keys, "run-1", 1_700_000_000, b'{"a":1}') == f"v1,{expected[0]} v1,{expected[1]}"
    assert signing_keys("") == ()


@pytest.mark.parametrize("secret", ["hidden", "whsec_hidden", "whsec_aGlkZGVu", base64.b64encode(KEY).decode()])
def test_a_malformed_secret_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        signing_keys(secret)
    assert secret not in str(refused.value)
    assert secret not in repr(Settings(webhook_secret=secret))


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (WebhookResponse(status_code=200), DeliveryStatus.DELIVERED),
        (WebhookResponse(status_code=204), DeliveryStatus.DELIVERED),
        (WebhookResponse(status_code=299), DeliveryStatus.DELIVERED),
        (WebhookResponse(status_code=410), DeliveryStatus.GONE),
        *(
            (WebhookResponse(status_code=code), DeliveryStatus.PENDING)
            for code in (301, 307, 400, 401, 404, 408, 409, 429)
        ),
        *((WebhookResponse(status_code=code), DeliveryStatus.PENDING) for code in (425, 500, 502, 503)),
        (WebhookResponse(error="no connection"), DeliveryStatus.PENDING),
    ],
)
def test_an_answer_decides_what_follows(answer: WebhookResponse, status: DeliveryStatus) -> None:
    assert follows(answer, 1, NOW, 0.5)[0] is status


def test_what_was_not_asked_is_sent_soon_however_often_that_was() -> None:
    crowded = WebhookResponse(error=CROWDED, crowded=True)
    assert follows(crowded, len(RETRY_DELAYS_S) + 5, NOW, 0.5) == (DeliveryStatus.PENDING, CROWDED_DELAY_S)


def test_tries_are_spread_over_a_day_and_then_given_up() -> None:
    failure = WebhookResponse(status_code=500)
    for chance, low in ((0.0, 0.8), (0.5, 1.0), (1.0, 1.2)):
        delays = [follows(failure, tries, NOW, chance)[1] for tries in range(1, len(RETRY_DELAYS_S) + 1)]
        assert delays == pytest.approx([low * delay for delay in RETRY_DELAYS_S])
    assert 23 * 3600 < sum(RETRY_DELAYS_S) < 25 * 3600
    assert follows(failure, len(RETRY_DELAYS_S) + 1, NOW, 0.5) == (DeliveryStatus.FAILED, 0.0)


@pytest.mark.parametrize(
    ("retry_after", "delay_s"),
    [
        ("60", 60.0),
        ("Fri, 02 Jan 2026 03:05:05 GMT", 60.0),
        ("1", 5.0),
        ("0", 5.0),
        ("Fri, 02 Jan 2026 03:00:00 GMT", 5.0),
        ("999999999999", MAX_RETRY_AFTER_S),
        ("Fri, 02 Jan 2099 03:00:00 GMT", MAX_RETRY_AFTER_S),
        ("soon", 5.0),
        ("Fri, 02 Jan 2099 03:00:00", 5.0),
        ("-5", 5.0),
        ("٣", 5.0),
        (None, 5.0),
    ],
)
def test_a_receiver_may_ask_for_a_longer_delay_within_bounds_and_not_for_a_shorter_one(
    retry_after: str | None, delay_s: float
) -> None:
    answer = WebhookResponse(status_code=503, retry_after=retry_after)
    assert follows(answer, 1, NOW, 0.5) == (DeliveryStatus.PENDING, delay_s)


def test_a_relative_url_needs_the_loopback_and_an_application_of_the_projects_own() -> None:
    rules = UrlRules(disable_loopback=False)
    target = WebhookPolicy(rules=rules, local=True).target("/hooks/runs?x=1")
    assert (target.host, target.target) == (b"", b"/hooks/runs?x=1")
    for refusing, why in (
        (WebhookPolicy(local=True), "disable_loopback"),
        (WebhookPolicy(rules=rules), "http.app"),
    ):
        with pytest.raises(InvalidRequest, match=why):
            refusing.target("/hooks/runs")
    with pytest.raises(InvalidRequest, match="absolute"):
        WebhookPolicy(rules=rules, local=True).target("//example.com/hooks")
