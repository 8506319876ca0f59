"""The page on OpenID Connect: its handler, with tokens of a provider that signs them."""

from __future__ import annotations

import http.server
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from server.test_cookbook import FILE
from server_kit import running_server

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "authenticate-with-oidc.md"
ISSUER = "https://login.example.com/realms/main"
AUDIENCE = "agents"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
AGENT = "async def graph(run): ...\n"


def token(key: Any = KEY, kid: str = "one", **claims: Any) -> str:
    said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": time.time() + 60, **claims}
    return jwt.encode({name: value for name, value in said.items() if value is not None}, key, "RS256", {"kid": kid})


@pytest.fixture
def provider() -> Iterator[str]:
    """Serve the provider's public keys, and give their address."""
    public = {**json.loads(RSAAlgorithm.to_jwk(KEY.public_key())), "kid": "one", "use": "sig", "alg": "RS256"}
    body = json.dumps({"keys": [public]}).encode()

    class Keys(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keys) as listening:
        thread = threading.Thread(target=listening.serve_forever, name="provider")
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}/keys"
        listening.shutdown()
        thread.join()


Ask = Callable[[str | None], httpx.Response]


@pytest.fixture
def ask(tmp_path: Path, provider: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """Give what asks a server with the page's files who sends a request."""
    for name, content in FILE.findall(PAGE.read_text()):
        (tmp_path / name).write_text(content)
    (tmp_path / "agent.py").write_text(AGENT)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name, value in {"OIDC_ISSUER": ISSUER, "OIDC_AUDIENCE": AUDIENCE, "OIDC_JWKS_URL": provider}.items():
        monkeypatch.setenv(name, value)
    with running_server(f"sqlite:///{tmp_path}/runlane.db", tmp_path / "langgraph.json") as server:

        def asked(authorization: str | None) -> httpx.Response:
            headers = {} if authorization is None else {"authorization": authorization}
            return httpx.get(f"{server.url}/me", headers=headers)

        yield asked


def test_a_token_of_the_provider_says_who_sends_a_request(ask: Ask) -> None:
    assert ask(f"Bearer {token()}").json()["owner"] == "ada"
    operator = ask(f"Bearer {token(sub='rita', scope='operator:runs:read')}").json()
    assert (operator["identity"], operator["operator"], operator["scopes"]) == ("rita", True, ["runs:read"])


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "Basic YWRhOmFkYQ==",
        "Bearer",
        "Bearer nonsense",
        f"Bearer {token(OTHER_KEY)}",
        f"Bearer {token(kid='unknown')}",
        f"Bearer {token(exp=time.time() - 60)}",
        f"Bearer {token(exp=None)}",
        f"Bearer {token(sub=None)}",
        f"Bearer {token(aud='another')}",
        f"Bearer {token(iss='https://elsewhere.example')}",
        "Bearer " + jwt.encode({"sub": "ada", "iss": ISSUER, "aud": AUDIENCE}, None, "none", {"kid": "one"}),
    ],
    ids=["none", "basic", "empty", "nonsense", "forged", "unknown key", "expired", "endless", "nobody", "audience",
         "issuer", "unsigned"],
)  # fmt: skip
def test_anything_else_is_refused(ask: Ask, authorization: str | None) -> None:
    assert ask(authorization).status_code == 401
