"""Authentications that the tests' servers ask: who sends ``Bearer NAME`` is NAME."""

from __future__ import annotations

import threading
from typing import Any

from langgraph_sdk import Auth
from starlette.exceptions import HTTPException

Context = Auth.types.AuthContext
#: Not to be found in anything that is stored or answered.
SECRET = "token-7f3a9c"


def _name(authorization: str | None) -> str:
    if not authorization:
        raise Auth.exceptions.HTTPException(401, "Who are you?", headers={"WWW-Authenticate": "Bearer"})
    return authorization.removeprefix("Bearer ")


async def authenticate(authorization: str | None) -> Any:
    """Return a user with a secret, as applications that look tokens up do."""
    name = _name(authorization)
    return {"identity": name, "permissions": [f"{name}:all"], "display_name": name.title(), "secret_token": SECRET}


plain = Auth()
plain.authenticate(authenticate)

#: Each user sees what has their stamp.
stamping = Auth()
stamping.authenticate(authenticate)


@stamping.on
async def stamp(ctx: Context, value: dict[str, Any]) -> Any:
    value["metadata"] = {**(value.get("metadata") or {}), "stamp": ctx.user.identity}
    return {"stamp": ctx.user.identity}


#: Answers of every kind, by the name that is sent.
odd = Auth()


@odd.authenticate
def authenticate_in_a_thread(authorization: str | None, path: str, path_params: dict[str, str], headers: Any) -> Any:
    name = _name(authorization)
    if name == "limited":
        raise Auth.exceptions.HTTPException(429, "Too many", headers={"Retry-After": "7"})
    if name == "banned":
        raise HTTPException(403, "Banned")
    if name == "broken":
        raise ValueError(f"cannot reach the directory with {SECRET}")
    if name in ("nobody", "anonymous"):
        return None if name == "nobody" else {"identity": "x", "is_authenticated": False}
    if name in ("*", "empty"):
        return name.removeprefix("empty")
    assert threading.current_thread() is not threading.main_thread()
    assert headers[b"authorization"].endswith(name.encode())
    return f"{name}{path_params.get('thread_id', '')[:4]}"
