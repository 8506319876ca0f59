"""What is a secret by its name, what is one in a text, and that nothing else is touched."""

from __future__ import annotations

from typing import Any

import pytest

from runlane.errors import InvalidRequest
from runlane.redaction import (
    MAX_SECRETS,
    MAX_TEXT,
    RunSecrets,
    check_secrets,
    has_secrets,
    names_secret,
    redact_text,
    redacted,
    redacted_configuration,
    shortened,
)
from runlane.store.rows import dumps

SECRET = "planted-secret-0123456789"


@pytest.mark.parametrize(
    "name",
    [
        *("api_key", "apiKey", "apikey", "OPENAI_API_KEY", "openaiApiKey", "x-api-key", "apiKeys", "token"),
        *("accessToken", "auth_token", "secret", "client_secret", "password", "db-password", "Authorization"),
        *("cookie", "private_key", "aws_secret_access_key", "credentials", "refreshToken", "userPassword"),
        *("openAIApiKey", "AzureOpenAIAPIKey", "OPENAI_API_KEY_PROD", "auth_header", "api_key_2"),
        *("authHeaders", "DB_PASS", "apiKeyDev", "token1", "secret_value", "connectionString", "TOKEN_OLD"),
        "x" * 1000 + "_password",
    ],
)
def test_what_is_called_like_a_secret_is_one(name: str) -> None:
    assert names_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        *("key", "keys", "max_tokens", "tokenizer", "token_count", "monkey", "keyboard", "author", "custom_key"),
        *("thread_id", "model", "passenger", "primary_key_name", "auth_mode", "session_key_length", "", "prod", "2"),
        *("page_token", "nextPageToken", "max_output_tokens", "eos_token", "public_key", "cookie_policy", "secretary"),
    ],
)
def test_other_names_are_not(name: str) -> None:
    given = {name: 5, "inner": [{name: None}]}
    assert redacted(given) == given
    assert not names_secret(name)


@pytest.mark.parametrize(
    "value",
    [
        *("postgres://u:pw@h", "redis://:pw@cache:6379/0", "Bearer abcdefgh", "Basic dXNlcjpwYXNz"),
        *("AKIAIOSFODNN7EXAMPLE", "sk-proj-0123456789abcdef", "ghp_0123456789abcdefghij"),
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc_def",
    ],
)
def test_a_value_in_the_form_of_a_secret_is_one_whatever_its_name(value: str) -> None:
    given = {"configurable": {"db": value, "all": [value, "x"]}, "metadata": {"db": value}}
    shown = {"configurable": {"db": "***", "all": ["***", "x"]}, "metadata": {"db": value}}
    assert redacted_configuration(given) == shown
    said = RunSecrets([given]).out_of(dumps({"db": value}).encode())
    assert said == b'{"db":"***"}'


@pytest.mark.parametrize("value", ["https://example.org/a:b?c=d@e", "use postgres://u:pw@h here", "sk-learn"])
def test_a_value_that_only_mentions_one_is_not(value: str) -> None:
    assert redacted({"text": value}) == {"text": value}


def test_metadata_is_the_clients_own() -> None:
    assert not has_secrets({"metadata": {"token": SECRET}, "tags": ["a"]})


def test_more_secrets_than_can_be_kept_out_of_events_are_refused() -> None:
    check_secrets({"configurable": {f"token_{n}": f"v{n}" for n in range(MAX_SECRETS)}}, None)
    for many in ({f"token_{n}": "v" for n in range(20_000)}, {"tokens": ["v"] * 20_000}):
        with pytest.raises(InvalidRequest, match="more than 100 secrets"):
            check_secrets(None, many)


def test_a_text_is_cut_before_it_is_looked_through() -> None:
    assert len(redact_text("a " * MAX_TEXT)) == MAX_TEXT
    assert shortened("short", 10) == "short"
    assert shortened("a" * 600 + "b" * 600, 400) == f"{'a' * 300}... (800 characters left out) ...{'b' * 100}"


def test_only_secrets_are_replaced_at_any_depth() -> None:
    given = {"api_key": SECRET, "model": "m", "max_tokens": 5, "list": [{"password": SECRET}], "token": None}
    assert redacted(given) == {**given, "api_key": "***", "list": [{"password": "***"}]}
    assert redacted({"apiKeys": {"OPENAI": SECRET}}) == {"apiKeys": "***"}
    assert redacted({"tokens": [SECRET], "secret": ""}) == {"tokens": "***", "secret": ""}


def test_events_lose_the_fields_and_long_secrets_wherever_they_stand() -> None:
    short, quoted = "hunter2", 'a"quoted\u00e9\nsecret-value'
    config: dict[str, Any] = {"api_key": SECRET, "password": short, "token": quoted}
    secrets = RunSecrets([{"configurable": config}])
    assert secrets
    said = dumps({"metadata": config, "text": f"the key is {SECRET}: {quoted}", "about": short}).encode()
    left = secrets.out_of(said).decode()
    assert SECRET not in left
    assert "quoted" not in left
    assert left.count(short) == 1, "a short secret may be a word"
    assert secrets.out_of_text(f"bad key {SECRET}") == "bad key ***"


@pytest.mark.parametrize(
    "line",
    [
        f"connect to postgresql://ann:{SECRET}@db:5432/app failed",
        f"postgres://:{SECRET}@db",
        f"Authorization: Bearer {SECRET}",
        f"headers=[('authorization', 'Basic {SECRET}=='), ('a', 'b')]",
        f"headers=[(b'x-api-key', b'{SECRET}')]",
        f'{{"api_key": "{SECRET}", "model": "m"}}',
        f"{{'password': '{SECRET}'}}",
        f"GET https://example.org/?token={SECRET}&a=1",
        f"x-api-key: {SECRET}",
        f"cookie=b'session={SECRET}; theme=dark'",
        f"[(b'accept', b'a'), (b'cookie', b'theme=dark; session={SECRET}')]",
        f"Set-Cookie: session={SECRET}; Path=/",
        f"OPENAI_API_KEY={SECRET}",
        "Incorrect API key provided: sk-proj-abcdefghijklmnop0123456789",
        "jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc_def-123456",
        f"Authorization: Token {SECRET}",
        f'{{\\"api_key\\": \\"{SECRET}\\"}}',
        f"OPENAI_API_KEY_PROD={SECRET} auth_header={SECRET}",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET.replace('-', '')}\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_a_line_of_a_log_loses_its_secret_only(line: str) -> None:
    left = redact_text(line)
    assert "***" in left
    assert not any(part in left for part in (SECRET, SECRET.replace("-", ""), "abcdefghijklmnop", "eyJzdWIi")), left
    assert redact_text(left) == left


@pytest.mark.parametrize(
    "line",
    [
        "event=run.finished run_id=1 attempt=2 reason=completed duration_s=1.84",
        "event=http.request client=127.0.0.1:5000 method=GET path=/threads/a@b/runs status=200",
        "max_tokens=4096 tokens=15000 page_token=abcdef token_count=5 key=value http://localhost:8124/docs",
        "basic authentication failed; the token is missing",
    ],
)
def test_an_ordinary_line_stays_as_it_is(line: str) -> None:
    assert redact_text(line) == line
