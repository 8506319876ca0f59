"""Webhooks reach a real receiver, however it behaves, whatever becomes of the process, and nobody else."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ledger_kit import admit, cancel, ended, finish, running, turn
from runlane.lifecycle import RunEvent
from runlane.outcomes import Snapshot
from runlane.records import ANY_OWNER, RunRecord
from runlane.settings import Settings
from runlane.store.drivers.memory import MemoryDriver
from runlane.store.drivers.sqlite import SqliteDriver
from runlane.store.ledger import RunStore
from runlane.store.migrate import apply_scripts, migrate_sqlite
from runlane.store.statements import statement
from runlane.store.transactions.webhooks import Attempted, Delivery, DeliveryStatus
from runlane.telemetry.emitter import Telemetry
from runlane.telemetry.logs import log_transitions
from runlane.webhooks.deliverer import MAX_IN_FLIGHT, RETRY_DELAYS_S, Deliverer
from runlane.webhooks.policy import UrlRules, WebhookPolicy
from runlane.webhooks.sender import CROWDED, MAX_PER_PLACE, UNREACHABLE, Places, Sender
from webhook_kit import PATIENCE_S, Receiver, answers, closes, drips, receiver, stalls

KEY = b"k" * 32
SECRET = "whsec_" + base64.b64encode(KEY).decode()
LOCAL = UrlRules(disable_loopback=False)
NOW_DUE = statement(
    "now_due", "UPDATE webhook_deliveries SET next_at = 0 WHERE run_id = :run_id AND status = 'pending'"
)


def utc_now() -> datetime:
    return datetime.now(UTC)


def payload(run: RunRecord) -> dict[str, Any]:
    return {"run_id": run.run_id, "status": run.status, "metadata": run.metadata}


def deliverer(store: RunStore, policy: WebhookPolicy | None = None, **changes: Any) -> Deliverer:
    policy = policy or WebhookPolicy(rules=LOCAL)
    settings = Settings(database="memory://", webhook_secret=SECRET, poll_s=60)
    given = {"policy": policy, "payload": payload, "settings": settings, "now": utc_now, "chance": lambda: 0.5}
    return Deliverer(store=store, telemetry=Telemetry(log_transitions()), **{**given, **changes})


@pytest.fixture
async def store() -> AsyncIterator[RunStore]:
    driver = MemoryDriver()
    apply_scripts(driver)
    yield RunStore(driver)
    await driver.aclose()


@pytest.fixture(autouse=True)
def _no_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load no authorities of a network that no test uses."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))


async def settled(store: RunStore, run_id: str, attempts: int = 1) -> tuple[Delivery, tuple[Attempted, ...]]:
    """Return a delivery once the outcome of so many attempts is written."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            delivery, history = await store.webhooks.get(run_id, owner=ANY_OWNER)
            if len(history) >= attempts:
                return delivery, history
            await asyncio.sleep(0.005)


async def told_once(store: RunStore, to: Receiver, **changes: Any) -> tuple[Delivery, Attempted]:
    """Return what became of one attempt to tell *to* of an ended run."""
    run_id = await ended(store, webhook=to.url())
    async with deliverer(store, **changes):
        delivery, [attempt] = await settled(store, run_id)
    return delivery, attempt


async def test_what_is_sent_is_the_run_with_its_values_signed_over_the_exact_bytes(store: RunStore) -> None:
    async with receiver() as to:
        lease = await running(store, webhook=to.url("/hook?token=1"), metadata={"für": "dich"})
        await finish(store, lease, state=Snapshot(values=b'{"n": 1}'))
        async with deliverer(store):
            [got] = await to.got(1)
            delivery, [attempt] = await settled(store, lease.run_id)
    assert got.line == "POST /hook?token=1 HTTP/1.1"
    assert got.headers["host"] == f"127.0.0.1:{to.port}"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["webhook-id"] == lease.run_id
    signed = f"{lease.run_id}.{got.headers['webhook-timestamp']}.".encode() + got.body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert got.headers["webhook-signature"] == f"v1,{expected}"
    run = await store.runs.get(lease.run_id, owner=ANY_OWNER)
    assert run.started_at is not None
    assert run.ended_at is not None
    assert {**got.json, "webhook_sent_at": None} == {
        "run_id": lease.run_id,
        "status": "success",
        "metadata": {"für": "dich"},
        "run_started_at": run.started_at.isoformat(),
        "run_ended_at": run.ended_at.isoformat(),
        "webhook_sent_at": None,
        "values": {"n": 1},
        "omitted": [],
    }
    assert abs(datetime.fromisoformat(got.json["webhook_sent_at"]) - utc_now()).total_seconds() < 60
    assert (delivery.status, attempt.status_code, attempt.error) == (DeliveryStatus.DELIVERED, 200, None)


async def test_without_a_secret_nothing_is_signed(store: RunStore) -> None:
    async with receiver() as to:
        await told_once(store, to, settings=Settings(database="memory://"))
    assert "webhook-signature" not in to.requests[0].headers


async def test_a_deployment_chooses_headers_and_fields(store: RunStore) -> None:
    policy = WebhookPolicy(
        rules=LOCAL,
        headers=(("Authorization", "Bearer token"), ("User-Agent", "mine")),
        allowed_fields=frozenset({"run_id", "values"}),
    )
    async with receiver() as to:
        await told_once(store, to, policy=policy)
    [got] = to.requests
    assert (got.headers["authorization"], got.headers["user-agent"]) == ("Bearer token", "mine")
    assert got.json.keys() == {"run_id", "values"}


async def test_an_ended_run_is_told_at_once_when_the_deliverer_is_woken(store: RunStore) -> None:
    async with receiver() as to, deliverer(store) as working:
        run_ids = []
        for count in (1, 2):
            run_ids.append(await ended(store, webhook=to.url()))
            working.wake()
            await to.got(count)
    assert [got.headers["webhook-id"] for got in to.requests] == run_ids


async def test_a_receiver_that_fails_is_told_again_until_it_answers_with_the_same_id_and_a_new_signature(
    store: RunStore,
) -> None:
    async with receiver(answers(500), closes, answers(404), answers(503, "retry-after: 3000")) as to:
        run_id = await ended(store, webhook=to.url())
        async with deliverer(store) as working:
            for attempts in range(1, 6):
                delivery, history = await settled(store, run_id, attempts)
                await turn(store, NOW_DUE, run_id)
                working.wake()
    assert delivery.status is DeliveryStatus.DELIVERED
    assert [one.status_code for one in history] == [500, None, 404, 503, 200]
    assert "disconnected" in str(history[1].error)
    assert {got.headers["webhook-id"] for got in to.requests} == {run_id}
    for got in to.requests:
        signed = f"{run_id}.{got.headers['webhook-timestamp']}.".encode() + got.body
        expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
        assert got.headers["webhook-signature"] == f"v1,{expected}"


async def test_a_receiver_that_asks_for_time_is_left_alone_for_so_long(store: RunStore) -> None:
    async with receiver(answers(429, "Retry-After: 3000")) as to:
        delivery, _ = await told_once(store, to)
    assert delivery.next_at is not None
    assert 2900 < (delivery.next_at - utc_now()).total_seconds() <= 3000


async def test_a_receiver_that_is_gone_is_told_no_more(store: RunStore) -> None:
    async with receiver(answers(410)) as to:
        delivery, attempt = await told_once(store, to)
    assert (delivery.status, delivery.next_at, attempt.status_code) == (DeliveryStatus.GONE, None, 410)


async def test_what_nobody_ever_takes_is_given_up_after_all_tries_and_can_be_sent_again(
    store: RunStore, caplog: pytest.LogCaptureFixture
) -> None:
    tries = len(RETRY_DELAYS_S) + 1
    async with receiver(*[answers(500)] * tries) as to:
        run_id = await ended(store, webhook=to.url("/hook?token=hidden"))
        with caplog.at_level(logging.DEBUG):
            async with deliverer(store) as working:
                for attempts in range(1, tries + 1):
                    delivery, history = await settled(store, run_id, attempts)
                    await turn(store, NOW_DUE, run_id)
                    working.wake()
                assert (delivery.status, len(history)) == (DeliveryStatus.FAILED, tries)
                await store.webhooks.send_again(run_id)
                working.wake()
                delivery, _ = await settled(store, run_id, tries + 1)
    assert delivery.status is DeliveryStatus.DELIVERED
    assert [record.levelname for record in caplog.records if "outcome=failed" in record.getMessage()] == ["ERROR"]
    assert "hidden" not in caplog.text


async def test_no_redirect_is_followed(store: RunStore) -> None:
    async with receiver() as secret, receiver(answers(307, f"location: {secret.url()}")) as to:
        delivery, attempt = await told_once(store, to)
    assert (delivery.status, attempt.status_code) == (DeliveryStatus.PENDING, 307)
    assert secret.requests == []


async def test_no_proxy_of_the_environment_is_used(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiver() as proxy, receiver() as to:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url(""))
        await told_once(store, to)
        assert (len(proxy.requests), len(to.requests)) == (0, 1)


async def test_an_answer_without_end_is_an_answer(store: RunStore) -> None:
    async with receiver(drips) as to:
        delivery, _ = await told_once(store, to)
    assert delivery.status is DeliveryStatus.DELIVERED


async def test_who_never_answers_is_given_up_in_time_and_tried_again(store: RunStore) -> None:
    async with receiver(stalls(asyncio.Event())) as to:
        sender = Sender(WebhookPolicy(rules=LOCAL).permits, timeout_s=0.05)
        delivery, attempt = await told_once(store, to, sender=sender)
    assert (delivery.status, attempt.status_code) == (DeliveryStatus.PENDING, None)
    assert attempt.error == "There was no answer within 0.05 s."


async def test_a_slow_receiver_holds_up_nobody_else_however_much_waits_for_it(store: RunStore) -> None:
    until = asyncio.Event()
    share = MAX_PER_PLACE // 2
    waiting = share * 10
    async with receiver(*[stalls(until)] * waiting) as slow, receiver(address="127.0.0.2") as quick:
        for n in range(waiting):
            await ended(store, f"slow-{n}", webhook=slow.url())
        for n in range(20):
            await ended(store, f"quick-{n}", webhook=quick.url())
        async with deliverer(store):
            await quick.got(20)
            await slow.got(share)
            assert len(slow.requests) == share
            until.set()
            await slow.got(waiting)


async def test_one_tenants_tarpits_stop_no_others_whatever_names_and_ports_they_have(store: RunStore) -> None:
    """A tenant's names that all lead to four ports of one host took every place there was."""
    until, caught = asyncio.Event(), asyncio.Semaphore(0)

    async def tarpit(writer: asyncio.StreamWriter) -> None:
        caught.release()
        await stalls(until)(writer)

    async def names(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"] if host.endswith("trap.example") else [host]

    async with AsyncExitStack() as stack:
        traps = [await stack.enter_async_context(receiver(*[tarpit] * 200)) for _ in range(4)]
        same_host = await stack.enter_async_context(receiver())
        other_host = await stack.enter_async_context(receiver(address="127.0.0.2"))
        for n in range(MAX_IN_FLIGHT * 3):
            url = traps[n % 4].url(host=f"{n % 40}.trap.example")
            await ended(store, f"mallory-{n}", owner="mallory", webhook=url)
        policy = WebhookPolicy(rules=LOCAL)
        sender = Sender(policy.permits, resolve=names)
        working = await stack.enter_async_context(deliverer(store, policy, sender=sender, close_grace_s=0.01))
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(MAX_PER_PLACE // 2):
                await caught.acquire()
        for n in range(20):
            to = same_host if n % 2 else other_host
            await ended(store, f"ben-{n}", owner="ben", webhook=to.url())
            working.wake()
        await same_host.got(10)
        await other_host.got(10)
        assert caught.locked()  # and no more were caught
        until.set()


async def test_what_finds_no_place_at_its_host_is_sent_later_and_that_is_no_try(store: RunStore) -> None:
    places = Places(2)
    await places.enter("", {"127.0.0.1"})
    async with receiver() as to:
        policy = WebhookPolicy(rules=LOCAL)
        run_id = await ended(store, webhook=to.url())
        async with deliverer(store, policy, sender=Sender(policy.permits, places=places, timeout_s=0.05)) as working:
            delivery, [attempt] = await settled(store, run_id)
            assert (delivery.status, attempt.error, to.requests) == (DeliveryStatus.PENDING, CROWDED, [])
            await places.leave("", {"127.0.0.1"})
            await turn(store, NOW_DUE, run_id)
            working.wake()
            delivery, _ = await settled(store, run_id, 2)
    assert delivery.status is DeliveryStatus.DELIVERED


@asynccontextmanager
async def process(path: Path, **changes: Any) -> AsyncIterator[tuple[RunStore, Deliverer]]:
    """Be one process on the file at *path*."""
    driver = SqliteDriver(path, synchronous="normal")
    migrate_sqlite(path)
    store = RunStore(driver)
    try:
        async with deliverer(store, **changes) as working:
            yield store, working
    finally:
        await driver.aclose()


async def test_what_a_process_could_not_deliver_the_next_one_does(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with receiver(answers(500)) as to:
        async with process(path) as (store, working):
            run_id = await ended(store, webhook=to.url())
            working.wake()
            await settled(store, run_id)
        async with process(path) as (store, working):
            await turn(store, NOW_DUE, run_id)
            working.wake()
            delivery, history = await settled(store, run_id, 2)
    assert (delivery.status, [one.status_code for one in history]) == (DeliveryStatus.DELIVERED, [500, 200])
    assert {got.headers["webhook-id"] for got in to.requests} == {run_id}


async def test_what_is_on_its_way_when_the_process_stops_is_sent_again_at_once_by_the_next_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.db"
    async with receiver(stalls(asyncio.Event())) as to:
        async with process(path, close_grace_s=0.01) as (store, working):
            run_id = await ended(store, webhook=to.url())
            working.wake()
            await to.got(1)
        async with process(path) as (store, _):
            delivery, history = await settled(store, run_id, 2)
    assert delivery.status is DeliveryStatus.DELIVERED
    assert history[0].error == "The process stopped before there was an answer."


async def test_what_a_killed_process_had_claimed_is_sent_again_when_its_lease_is_over(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with receiver() as to:
        async with process(path) as (store, _):
            run_id = await ended(store, webhook=to.url())
            claimed = await store.webhooks.claim(capacity=1, per_host=1, busy={}, lease_s=60)
            assert len(claimed) == 1
        async with process(path) as (store, working):
            await turn(store, NOW_DUE, run_id)
            working.wake()
            delivery, [attempt] = await settled(store, run_id)
    assert (delivery.status, delivery.attempts, attempt.number) == (DeliveryStatus.DELIVERED, 2, 2)


async def test_a_process_stops_while_nothing_is_due(store: RunStore) -> None:
    async with asyncio.timeout(PATIENCE_S), deliverer(store):
        pass


@pytest.mark.parametrize("event", [RunEvent.SUCCEED, RunEvent.FAIL, RunEvent.EXPIRE, RunEvent.STOP])
async def test_every_kind_of_end_is_told(store: RunStore, event: RunEvent) -> None:
    async with receiver() as to:
        lease = await running(store, webhook=to.url())
        if event is RunEvent.STOP:
            await cancel(store, lease.run_id)
        run = (await finish(store, lease, event)).run
        async with deliverer(store):
            [got] = await to.got(1)
    assert got.json["status"] == run.status.value


async def test_a_cancelled_pending_run_is_told(store: RunStore) -> None:
    async with receiver() as to:
        await cancel(store, await admit(store, webhook=to.url()))
        async with deliverer(store):
            [got] = await to.got(1)
    assert (got.json["status"], got.json["run_started_at"]) == ("interrupted", None)


class Names:
    """A resolver whose answers change, as those of an attacker's name server do."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers, self.asked = list(answers), 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["::1"], ["93.184.216.34", "127.0.0.1"], ["::ffff:7f00:1"], []])
async def test_a_name_that_leads_inside_is_not_connected_to(store: RunStore, addresses: list[str]) -> None:
    async with receiver() as inside:
        run_id = await ended(store, webhook=inside.url(host="attacker.example"))
        public = WebhookPolicy()
        async with deliverer(store, public, sender=Sender(public.permits, resolve=Names(addresses))):
            _, [attempt] = await settled(store, run_id)
        assert inside.requests == []
    assert attempt.error == UNREACHABLE


async def test_a_name_is_looked_up_once_for_its_check_and_its_use(store: RunStore) -> None:
    async with receiver() as allowed:
        names = Names(["127.0.0.1"], ["10.0.0.1"])
        policy = WebhookPolicy(rules=LOCAL)
        run_id = await ended(store, webhook=allowed.url(host="rebinding.example"))
        async with deliverer(store, policy, sender=Sender(policy.permits, resolve=names)) as working:
            await settled(store, run_id)
            assert (names.asked, len(allowed.requests)) == (1, 1)
            assert allowed.requests[0].headers["host"] == f"rebinding.example:{allowed.port}"
            await store.webhooks.send_again(run_id)
            working.wake()
            _, history = await settled(store, run_id, 2)
    assert history[1].error == UNREACHABLE


async def test_the_next_address_of_a_name_is_tried_when_one_does_not_answer(store: RunStore) -> None:
    async with receiver() as to:
        policy = WebhookPolicy(rules=LOCAL)
        sender = Sender(policy.permits, resolve=Names(["::1", "127.0.0.1"]))
        run_id = await ended(store, webhook=to.url(host="two.example"))
        async with deliverer(store, policy, sender=sender):
            delivery, _ = await settled(store, run_id)
    assert delivery.status is DeliveryStatus.DELIVERED


async def test_a_numeric_name_of_this_machine_is_found_out_when_it_is_looked_up(store: RunStore) -> None:
    async with receiver() as inside:
        public = WebhookPolicy()
        run_id = await ended(store, webhook=inside.url(host="2130706433"))
        async with deliverer(store, public):
            _, [attempt] = await settled(store, run_id)
        assert inside.requests == []
    assert attempt.error == UNREACHABLE


async def test_a_name_that_nobody_has_is_not_told_from_one_that_leads_inside(store: RunStore) -> None:
    async def nobody(host: str, port: int) -> Sequence[str]:
        raise OSError(-2, "Name or service not known")

    policy = WebhookPolicy()
    run_id = await ended(store, webhook="https://nobody.example/")
    async with deliverer(store, policy, sender=Sender(policy.permits, resolve=nobody)):
        delivery, [attempt] = await settled(store, run_id)
    assert delivery.status is DeliveryStatus.PENDING
    assert attempt.error == UNREACHABLE


async def test_a_url_that_the_rules_no_longer_allow_is_not_told(store: RunStore) -> None:
    async with receiver() as to:
        delivery, attempt = await told_once(store, to, policy=WebhookPolicy(rules=UrlRules(require_https=True)))
        assert to.requests == []
    assert (delivery.status, attempt.error) == (
        DeliveryStatus.PENDING,
        "The webhook's URL must begin with https://.",
    )


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the certificate, with its key, of ``known.example``, which has signed itself."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl that could make a certificate")
    path = tmp_path_factory.mktemp("tls") / "known.pem"
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=known.example", "-addext", "subjectAltName=DNS:known.example", "-days", "2"]
    subprocess.run([*request, *names, "-keyout", str(path), "-out", f"{path}.crt"], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.mark.parametrize(("host", "delivered"), [("known.example", True), ("other.example", False)])
async def test_tls_verifies_the_name_in_the_url_and_not_the_address_it_led_to(
    store: RunStore, certificate: Path, host: str, delivered: bool
) -> None:
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=certificate)
    theirs.load_cert_chain(certificate)
    policy = WebhookPolicy(rules=LOCAL)
    async with receiver(tls=theirs) as to:
        run_id = await ended(store, webhook=to.url(host=host))
        sender = Sender(policy.permits, resolve=Names(["127.0.0.1"]), tls=ours)
        async with deliverer(store, policy, sender=sender):
            delivery, [attempt] = await settled(store, run_id)
    assert (delivery.status is DeliveryStatus.DELIVERED) == delivered
    assert delivered or "CERTIFICATE_VERIFY_FAILED" in str(attempt.error)


async def test_a_delivery_that_cannot_be_sent_fails_alone(store: RunStore, caplog: pytest.LogCaptureFixture) -> None:
    broken = statement("broken", "UPDATE webhook_deliveries SET run = '[]' WHERE run_id = :run_id")
    async with receiver() as to:
        bad = await ended(store, "bad", webhook=to.url())
        await turn(store, broken, bad)
        good = await ended(store, "good", webhook=to.url())
        async with deliverer(store):
            assert (await settled(store, good))[0].status is DeliveryStatus.DELIVERED
            delivery, [attempt] = await settled(store, bad)
    assert (delivery.status, attempt.error) == (DeliveryStatus.PENDING, "It could not be sent: AttributeError.")
    assert "webhook.failed" in caplog.text
