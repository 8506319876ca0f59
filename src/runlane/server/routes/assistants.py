"""Routes of assistants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final, Literal
from uuid import UUID, uuid4

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from runlane.errors import AlreadyExists, InvalidRequest, NotFound
from runlane.records import Assistant, Owner, Thread
from runlane.server.auth.access import Access
from runlane.server.http import answers
from runlane.server.http.queries import QueryModel
from runlane.server.http.requests import (
    BadRequest,
    Body,
    Limit,
    Object,
    Offset,
    RunConfig,
    SortOrder,
    clean,
    ignore,
    path_uuid,
)
from runlane.server.http.responses import assistant_wire, json_response, raw_json, selected
from runlane.server.http.route import Resource, Route
from runlane.server.routes.authorization import authorize, canceller_of, service_of
from runlane.server.service import Service, graph_config
from runlane.store.transactions.assistants import SHARED_OWNER, AssistantFilter, NewAssistant
from runlane.store.transactions.thread_search import ThreadFilter

#: Threads that are looked up at once.
_PAGE: Final = 1000


class AssistantCreate(Body):
    nullable: ClassVar[frozenset[str]] = frozenset({"description"})

    graph_id: str
    assistant_id: UUID | None = None
    config: RunConfig | None = None
    context: Object | None = None
    metadata: Object | None = None
    name: Annotated[str, msgspec.Meta(max_length=512)] | None = None
    description: str | None = None
    if_exists: Literal["raise", "do_nothing"] = "raise"


class AssistantPatch(Body):
    graph_id: str | None = None
    config: RunConfig | None = None
    context: Object | None = None
    metadata: Object | None = None
    name: Annotated[str, msgspec.Meta(max_length=512)] | None = None
    description: str | None = None


class AssistantSearch(Body):
    metadata: Object | None = None
    graph_id: str | None = None
    name: Annotated[str, msgspec.Meta(max_length=512)] | None = None
    limit: Limit = 10
    offset: Offset = 0
    sort_by: Literal["assistant_id", "created_at", "updated_at", "name", "graph_id"] | None = None
    sort_order: SortOrder | None = None
    select: list[str] | None = None


class AssistantVersions(Body):
    metadata: Object | None = None
    limit: Limit = 10
    offset: Offset = 0


class AssistantLatest(Body):
    version: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class DeleteQuery(QueryModel):
    delete_threads: bool = False


class DrawingQuery(QueryModel):
    #: Whether subgraphs are drawn too, or how deep.
    xray: Annotated[int, msgspec.Meta(ge=1)] | bool = False


class SubgraphsQuery(QueryModel):
    recurse: bool = False


async def find_assistant(service: Service, owner: Owner, text: str) -> Assistant:
    """Return the assistant with the id *text*, or the system assistant of the graph of that name.

    Raises:
        InvalidRequest: *text* is neither a UUID nor a graph's name.
        NotFound: There is no such assistant for *owner*.
    """
    assistant = service.system_assistants.get(text)
    if assistant is not None:
        return assistant
    try:
        assistant_id = str(UUID(text))
    except ValueError:
        graphs = ", ".join(service.registry.graph_ids)
        raise InvalidRequest(f"Invalid assistant: {text!r}. It must be a UUID, or a graph: {graphs}.") from None
    return await service.store.assistants.get(assistant_id, owner=owner)


async def assistant_to_run(request: Request, text: str) -> Assistant:
    """Return what :func:`find_assistant` does, for a run: everybody may run a graph's system assistant.

    Raises:
        InvalidRequest: *text* is neither a UUID nor a graph's name.
        NotFound: There is no such assistant, or the request may not read it.
    """
    service = service_of(request)
    if text in service.system_assistants:
        return service.system_assistants[text]
    access = await authorize(request, "assistants", "read", {"assistant_id": text})
    return _permitted(access, await find_assistant(service, access.reads, text))


def _permitted(access: Access, assistant: Assistant) -> Assistant:
    if not access.permits(assistant.metadata):
        raise NotFound("assistant", assistant.assistant_id)
    return assistant


async def _named(request: Request, action: str, value: dict[str, Any] | None = None) -> tuple[Access, Assistant]:
    """Return the assistant that the path names, if *action* on it is allowed; a handler may change *value*."""
    assistant_id = path_uuid(request, "assistant")
    given: dict[str, Any] = {} if value is None else value
    given["assistant_id"] = assistant_id
    access = await authorize(request, "assistants", action, given)
    return access, _permitted(access, await service_of(request).store.assistants.get(assistant_id, owner=access.reads))


def _settings(config: RunConfig | None, context: dict[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return config and context, each mirrored into the other as the API does."""
    plain: dict[str, Any] = {} if config is None else clean(config)
    configurable = plain.get("configurable")
    if configurable and context:
        raise BadRequest("Give config.configurable or context, not both.")
    if context:
        return {**plain, "configurable": context}, context
    return plain, dict(configurable or {})


def _changed_settings(config: RunConfig | None, context: dict[str, Any] | None) -> dict[str, Any]:
    """Return what a change of an assistant replaces; a configuration that configures nothing keeps the context."""
    changed, mirrored = _settings(config, context)
    kept = config is not None and not config.configurable and context is None
    return {"config": changed} if kept else {"config": changed, "context": mirrored}


def _known_graph(service: Service, graph_id: str) -> None:
    if graph_id not in service.registry.graph_ids:
        raise NotFound("graph", graph_id)


def _own_metadata(request: Request, metadata: dict[str, Any] | None) -> dict[str, Any]:
    """Return *metadata* without the claim that the system made the assistant, by which clients tell a graph's own."""
    given = metadata or {}
    if given.get("created_by") != "system":
        return given
    ignore(request, {"metadata.created_by"}, "fields")
    return {name: value for name, value in given.items() if name != "created_by"}


def _writable(assistant: Assistant) -> None:
    if assistant.owner == SHARED_OWNER:
        raise InvalidRequest(
            f"Assistant {assistant.assistant_id!r} is the system assistant of graph {assistant.graph_id!r} and cannot "
            "be changed; create your own from the graph."
        )


async def search_assistants(request: Request, body: AssistantSearch) -> Response:
    """Find assistants; the total is in X-Pagination-Total."""
    service = service_of(request)
    if body.graph_id is not None:
        _known_graph(service, body.graph_id)
    owner, where = await _searched(request, body)
    found = await service.store.assistants.search(
        owner=owner,
        where=where,
        sort_by=body.sort_by or "created_at",
        order=body.sort_order or "desc",
        limit=body.limit,
        offset=body.offset,
    )
    total = await service.store.assistants.count(owner=owner, where=where)
    rows = [selected(assistant_wire(one), body.select) for one in found]
    return json_response(rows, headers=pagination(total, body.offset, len(found)))


async def _searched(request: Request, body: AssistantSearch) -> tuple[Owner, AssistantFilter]:
    value: dict[str, Any] = {
        "graph_id": body.graph_id,
        "metadata": body.metadata or {},
        "limit": body.limit,
        "offset": body.offset,
    }
    access = await authorize(request, "assistants", "search", value)
    where = AssistantFilter(graph_id=body.graph_id, name=body.name, metadata=value["metadata"], where=access.where)
    return access.reads, where


def pagination(total: int, offset: int, got: int) -> dict[str, str]:
    """Return the headers that tell how many there are and where the next page begins."""
    headers = {"X-Pagination-Total": str(total)}
    if offset + got < total and got:
        headers["X-Pagination-Next"] = str(offset + got)
    return headers


async def count_assistants(request: Request, body: AssistantSearch) -> Response:
    """Count assistants."""
    owner, where = await _searched(request, body)
    return json_response(await service_of(request).store.assistants.count(owner=owner, where=where))


async def create_assistant(request: Request, body: AssistantCreate) -> Response:
    """Create an assistant, version 1."""
    service = service_of(request)
    _known_graph(service, body.graph_id)
    config, context = _settings(body.config, body.context)
    value: dict[str, Any] = {
        "assistant_id": str(body.assistant_id or uuid4()),
        "graph_id": body.graph_id,
        "config": config,
        "context": context,
        "metadata": _own_metadata(request, body.metadata),
        "if_exists": body.if_exists,
        "name": "Untitled" if body.name is None else body.name,
    }
    access = await authorize(request, "assistants", "create", value)
    new = NewAssistant(
        assistant_id=value["assistant_id"],
        owner=access.owner,
        graph_id=body.graph_id,
        name=value["name"],
        description=body.description,
        config=value["config"],
        context=value["context"],
        metadata=_own_metadata(request, value["metadata"]),
    )
    return json_response(assistant_wire(await _made(service, access, new, body.if_exists)))


async def _made(service: Service, access: Access, new: NewAssistant, if_exists: str) -> Assistant:
    try:
        return await service.store.assistants.create(new)
    except AlreadyExists:
        if if_exists != "do_nothing":
            raise
        try:
            return _permitted(access, await service.store.assistants.get(new.assistant_id, owner=access.reads))
        except NotFound:
            raise AlreadyExists("assistant", new.assistant_id) from None


async def get_assistant(request: Request) -> Response:
    """Return an assistant."""
    _, found = await _named(request, "read")
    return json_response(assistant_wire(found))


async def patch_assistant(request: Request, body: AssistantPatch) -> Response:
    """Change an assistant, which makes a new version."""
    service = service_of(request)
    metadata = _own_metadata(request, body.metadata)
    value: dict[str, Any] = {"graph_id": body.graph_id, "name": body.name, "metadata": metadata}
    access, assistant = await _named(request, "update", value)
    _writable(assistant)
    changes: dict[str, Any] = {}
    if body.graph_id is not None:
        _known_graph(service, body.graph_id)
        changes["graph_id"] = body.graph_id
    if body.config is not None or body.context is not None:
        changes |= _changed_settings(body.config, body.context)
    if value["metadata"]:
        changes["metadata"] = _own_metadata(request, value["metadata"])
    for name in ("name", "description"):
        if getattr(body, name) is not None:
            changes[name] = getattr(body, name)
    changed = await service.store.assistants.update(assistant.assistant_id, owner=access.reads, changes=changes)
    return json_response(assistant_wire(changed))


async def delete_assistant(request: Request, query: DeleteQuery) -> Response:
    """Delete an assistant with its versions; with ``delete_threads`` also the threads that it ran on last."""
    service = service_of(request)
    access, assistant = await _named(request, "delete")
    _writable(assistant)
    if query.delete_threads:  # first, so that whoever is cut off can ask again
        await _delete_threads(request, assistant.assistant_id)
    await service.store.assistants.delete(assistant.assistant_id, owner=access.reads)
    if query.delete_threads:  # those that came between
        await _delete_threads(request, assistant.assistant_id)
    return Response(status_code=204)


async def _delete_threads(request: Request, assistant_id: str) -> None:
    """Stop the runs of all threads of the assistant that the request may delete, and delete the threads."""
    service, value = service_of(request), {"metadata": {"assistant_id": assistant_id}}
    searching = await authorize(request, "threads", "search", value)
    where = ThreadFilter(metadata=value["metadata"], where=searching.where)
    thread_ids: list[str] = []
    page: Sequence[Thread] | None = None
    while page is None or len(page) == _PAGE:
        page = await service.store.threads.all(
            owner=searching.reads,
            where=where,
            after=thread_ids[-1] if thread_ids else "",
            limit=_PAGE,
            with_values=False,
        )
        thread_ids += [thread.thread_id for thread in page]
    for thread_id in thread_ids:
        access = await authorize(request, "threads", "delete", {"thread_id": thread_id})
        try:
            thread = await service.store.threads.get(thread_id, owner=access.reads, with_values=False)
            if access.permits(thread.metadata):
                await service.delete_thread(thread_id, access.reads, canceller_of(request))
        except NotFound:
            continue


async def draw_assistant(request: Request, query: DrawingQuery) -> Response:
    """Return the graph's nodes and edges."""
    service, text = service_of(request), request.path_params["assistant_id"]
    access = await authorize(request, "assistants", "read", {"assistant_id": text})
    assistant = _permitted(access, await find_assistant(service, access.reads, text))
    states = service.states(access, graph_config(assistant))
    return raw_json(await service.on_agents(lambda: states.draw(assistant.graph_id, xray=query.xray)))


async def assistant_schemas(request: Request) -> Response:
    """Return the graph's JSON Schemas."""
    service = service_of(request)
    access, assistant = await _named(request, "read")
    states = service.states(access, graph_config(assistant))
    return raw_json(await service.on_agents(lambda: states.schemas(assistant.graph_id)))


async def assistant_subgraphs(request: Request, query: SubgraphsQuery) -> Response:
    """Return the schemas of the graph's subgraphs."""
    service = service_of(request)
    access, assistant = await _named(request, "read")
    states, namespace = service.states(access, graph_config(assistant)), request.path_params.get("namespace")
    return raw_json(
        await service.on_agents(
            lambda: states.subgraphs(assistant.graph_id, namespace=namespace, recurse=query.recurse)
        )
    )


async def assistant_versions(request: Request, body: AssistantVersions) -> Response:
    """Return an assistant's versions, newest first."""
    access, assistant = await _named(request, "read")
    found = await service_of(request).store.assistants.versions(
        assistant.assistant_id,
        owner=access.reads,
        metadata=body.metadata,
        limit=body.limit,
        offset=body.offset,
    )
    return json_response([assistant_wire(one) for one in found])


async def set_latest(request: Request, body: AssistantLatest) -> Response:
    """Make an earlier version the current one, with its config and context."""
    access, assistant = await _named(request, "update", {"version": body.version})
    _writable(assistant)
    changed = await service_of(request).store.assistants.set_latest(
        assistant.assistant_id, owner=access.reads, version=body.version
    )
    return json_response(assistant_wire(changed))


ASSISTANTS = Resource(
    tag="Assistants",
    group="assistants",
    routes=(
        Route("POST /assistants/search", search_assistants, answer=list[answers.WireAssistant], errors=(404,)),
        Route("POST /assistants/count", count_assistants, answer=int),
        Route("POST /assistants", create_assistant, answer=answers.WireAssistant, errors=(404, 409)),
        Route("GET /assistants/{assistant_id}", get_assistant, answer=answers.WireAssistant, errors=(404,)),
        Route(
            "PATCH /assistants/{assistant_id}",
            patch_assistant,
            answer=answers.WireAssistant,
            errors=(404,),
            example={"name": "Support"},
        ),
        Route("DELETE /assistants/{assistant_id}", delete_assistant, success=(204,), errors=(404, 409)),
        Route("GET /assistants/{assistant_id}/graph", draw_assistant, answer=answers.GraphDrawing, errors=(404,)),
        Route("GET /assistants/{assistant_id}/schemas", assistant_schemas, answer=answers.GraphSchemas, errors=(404,)),
        Route(
            "GET /assistants/{assistant_id}/subgraphs",
            assistant_subgraphs,
            answer=dict[str, answers.SubgraphSchemas],
            errors=(404,),
        ),
        Route(
            "GET /assistants/{assistant_id}/subgraphs/{namespace:path}",
            assistant_subgraphs,
            answer=dict[str, answers.SubgraphSchemas],
            errors=(404,),
        ),
        Route(
            "POST /assistants/{assistant_id}/versions",
            assistant_versions,
            answer=list[answers.WireAssistant],
            errors=(404,),
            example={"limit": 10},
        ),
        Route(
            "POST /assistants/{assistant_id}/latest",
            set_latest,
            answer=answers.WireAssistant,
            errors=(404,),
            example={"version": 1},
        ),
    ),
)
