"""Authentications that the tests' servers ask: who sends ``Bearer NAME`` is NAME."""

from __future__ import annotations

import json
import threading
from pathlib import Path
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

#: Whoever's name is a permission has it.
with_operators = Auth()


@with_operators.authenticate
async def authenticate_operator(authorization: str | None) -> Any:
    name = _name(authorization)
    return {"identity": name, "permissions": [name]}


#: A token is the path of a file with the user's name; it is good as long as there is the file.
expiring = Auth()


@expiring.authenticate
def authenticate_by_file(authorization: str | None) -> Any:
    file = Path(_name(authorization))
    if not file.is_file():
        raise Auth.exceptions.HTTPException(401, "Expired")
    return file.read_text()


def is_known(identity: str) -> bool:
    return identity != "gone"


#: Each user sees what has their stamp.
stamping = Auth()
stamping.authenticate(authenticate)


@stamping.on
async def stamp(ctx: Context, value: dict[str, Any]) -> Any:
    value["metadata"] = {**(value.get("metadata") or {}), "stamp": ctx.user.identity}
    return {"stamp": ctx.user.identity}


#: The same, but a search is narrowed by its own condition, and no filter is returned.
narrowing = Auth()
narrowing.authenticate(authenticate)


@narrowing.on.threads.create
async def stamp_a_thread(ctx: Context, value: dict[str, Any]) -> None:
    value["metadata"] = {**(value.get("metadata") or {}), "stamp": ctx.user.identity}


@narrowing.on.threads.search
async def narrow(ctx: Context, value: dict[str, Any]) -> None:
    value["metadata"] = {**(value.get("metadata") or {}), "stamp": ctx.user.identity}


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
    if name == "nobody":
        return None
    if name.startswith("is:"):
        return {"identity": "x", "is_authenticated": json.loads(name.removeprefix("is:"))}
    if name in ("*", "empty"):
        return name.removeprefix("empty")
    assert threading.current_thread() is not threading.main_thread()
    assert headers[b"authorization"].endswith(name.encode())
    return f"{name}{path_params.get('thread_id', '')[:4]}"


#: Handlers of every rank, each of which says which it was.
ranked = Auth()
ranked.authenticate(authenticate)


def _says(rank: str) -> Any:
    async def handler(ctx: Context, value: dict[str, Any]) -> None:
        assert (ctx.user.identity, list(ctx.permissions)) == ("ann", ["ann:all"])
        value.setdefault("metadata", {})["by"] = f"{rank} {ctx.resource}.{ctx.action}"

    return handler


ranked.on.threads.create(_says("both"))
ranked.on.threads(_says("resource"))
ranked.on(actions="create")(_says("action"))
ranked.on(_says("global"))

#: Each assistant says who created it.
naming = Auth()
naming.authenticate(authenticate)


@naming.on.assistants.create
async def name_the_creator(ctx: Context, value: dict[str, Any]) -> None:
    value["metadata"]["created_by"] = ctx.user.identity


#: ``NAME@TEAM`` shares threads with the team; nothing is said of anything else.
sharing = Auth()


@sharing.authenticate
async def authenticate_member(authorization: str | None) -> Any:
    name, _, team = _name(authorization).partition("@")
    return {"identity": name, "team": team}


@sharing.on.threads
async def share(ctx: Context, value: dict[str, Any]) -> Any:
    if ctx.action in ("create", "create_run"):
        value["metadata"] = {**(value.get("metadata") or {}), "teams": [ctx.user["team"]]}
    return {"teams": {"$contains": ctx.user["team"]}}


@sharing.on.threads.delete
async def only_its_creator_deletes(ctx: Context, value: dict[str, Any]) -> Any:
    return ctx.user.identity == "ann"


@sharing.on.threads.update
async def guests_change_nothing(ctx: Context, value: dict[str, Any]) -> Any:
    assert ctx.user.identity != "guest", "Guests only look."
    return {"$or": [{"teams": {"$contains": ctx.user["team"]}}]}


@sharing.on.store
async def under_the_team(ctx: Context, value: dict[str, Any]) -> Any:
    value["namespace"] = (ctx.user["team"], *(value.get("namespace") or ()))
    value["note"] = "a handler may leave things behind"
    return {"nothing": "has this"}


#: Answers of every kind to whether a thread may be read, by the name that is sent.
verdicts = Auth()
verdicts.authenticate(authenticate)


@verdicts.on.threads.read
async def verdict(ctx: Context, value: dict[str, Any]) -> Any:
    match ctx.user.identity:
        case "asserting":
            raise AssertionError("Not on Mondays.")
        case "legal":
            raise Auth.exceptions.HTTPException(451, "Ask the court", headers={"Link": "<https://law.example>"})
        case "broken":
            raise ValueError(f"no database at {SECRET}")
        case "list":
            return {"owner": ["list"]}
        case "ne":
            return {"owner": {"$ne": "ne"}}
        case "text":
            return "yes"
    return ctx.user.identity == "yes"


#: A handler that wants the body, or the whole request, which the route reads after it.
reading = Auth()


@reading.authenticate
async def authenticate_by_the_body(
    body: dict[str, Any], request: Any, method: str, query_params: dict[str, str]
) -> Any:
    if method == "POST":
        assert await request.json() == body
        return body["metadata"]["sender"]
    return query_params["sender"]


#: A user who is an object, known for a while by their token.
counted = Auth()


class Member:
    """A user of an application with classes."""

    asked = 0

    def __init__(self, identity: str) -> None:
        Member.asked += 1
        self.identity, self.permissions, self.asked_so_far = identity, {"read"}, Member.asked


@counted.authenticate
def authenticate_once(authorization: str | None) -> Any:
    return Member(_name(authorization))


@counted.on.threads.create
async def count(ctx: Context, value: dict[str, Any]) -> None:
    value["metadata"]["asked"] = ctx.user.asked_so_far
