"""The requests of the differential test: what clients send, and what they send by mistake."""

from __future__ import annotations

from typing import Any

from differential import Step

NOWHERE = "00000000-0000-4000-8000-000000000000"
HI = {"messages": [{"role": "human", "content": "hi there", "id": "m1"}]}
THREAD = "/threads/{thread}"
MODES = ("values", "updates", "messages", "messages-tuple", "custom", "tasks", "checkpoints", "debug", "events")
#: Fields of a new run that a client may send as null.
RUN_FIELDS = (
    "input",
    "command",
    "config",
    "context",
    "metadata",
    "webhook",
    "interrupt_before",
    "interrupt_after",
    "stream_mode",
    "stream_subgraphs",
    "stream_resumable",
    "feedback_keys",
    "multitask_strategy",
    "if_not_exists",
    "after_seconds",
    "checkpoint",
    "checkpoint_id",
    "durability",
    "on_disconnect",
    "on_completion",
    "langsmith_tracer",
)


def get(name: str, path: str, **given: Any) -> Step:
    return Step(name=name, method="GET", path=path, **given)


def post(name: str, path: str, body: Any, **given: Any) -> Step:
    return Step(name=name, method="POST", path=path, body=body, **given)


def patch(name: str, path: str, body: Any) -> Step:
    return Step(name=name, method="PATCH", path=path, body=body)


def delete(name: str, path: str, **given: Any) -> Step:
    return Step(name=name, method="DELETE", path=path, **given)


def new_thread(**body: Any) -> Step:
    return post("thread", "/threads", body, keep={"thread": ["thread_id"]})


def wait(name: str, graph: str, **body: Any) -> Step:
    return post(name, f"{THREAD}/runs/wait", {"assistant_id": graph, **body})


def stream(name: str, graph: str, **body: Any) -> Step:
    return post(name, f"{THREAD}/runs/stream", {"assistant_id": graph, **body})


def _nulls(path: str, names: tuple[str, ...], **body: Any) -> list[Step]:
    """Return a request with each of *names* as null."""
    return [post(f"{path.rpartition('/')[2]} {name}", path, {**body, name: None}) for name in names]


def _a2a(name: str, method: str, params: Any, agent: str = "{agent}", **given: Any) -> Step:
    return post(name, f"/a2a/{agent}", {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, **given)


def _agent(graph: str, name: str = "agent") -> Step:
    return post(name, "/assistants/search", {"graph_id": graph}, keep={name: [0, "assistant_id"]})


def _say(text: str, **more: Any) -> dict[str, Any]:
    return {"message": {"role": "user", "messageId": "m1", "parts": [{"kind": "text", "text": text}], **more}}


_SYSTEM = [
    get("ok", "/ok"),
    get("ok, checked", "/ok?check_db=1"),
    get("root", "/"),
    get("nowhere", "/nowhere"),
    post("wrong method", "/ok", {}),
]
_SLASHES = [
    new_thread(),
    get("system", "/ok/"),
    get("thread", f"{THREAD}/"),
    post("search", "/threads/search/", {"limit": 1, "ids": []}),
    post("create", "/threads/", {}),
    get("state", f"{THREAD}/state/"),
    post("run", f"{THREAD}/runs/wait/", {"assistant_id": "steps", "input": {"steps": 1}}),
    get("runs", f"{THREAD}/runs/"),
    get("nowhere", "/nowhere/"),
]
_ASSISTANTS = [
    post(
        "create",
        "/assistants",
        {"graph_id": "settings", "name": "Mine", "context": {"mood": "good"}, "metadata": {"a": 1}},
        keep={"mine": ["assistant_id"]},
    ),
    get("get", "/assistants/{mine}"),
    patch("patch", "/assistants/{mine}", {"metadata": {"b": 2}, "config": {"tags": ["x"]}}),
    patch("patch context", "/assistants/{mine}", {"context": {"mood": "bad"}}),
    patch("patch configurable", "/assistants/{mine}", {"config": {"configurable": {"mood": "odd"}}}),
    patch("patch description", "/assistants/{mine}", {"description": "new"}),
    *(
        patch(f"patch {name} null", "/assistants/{mine}", {name: None})
        for name in ("graph_id", "config", "context", "metadata", "name", "description")
    ),
    post("versions", "/assistants/{mine}/versions", {}),
    post("search", "/assistants/search", {"name": "mine"}),
    post("count", "/assistants/count", {"name": "mine"}),
    get("graph", "/assistants/{mine}/graph"),
    get("schemas", "/assistants/{mine}/schemas"),
    get("subgraphs", "/assistants/{mine}/subgraphs"),
    post("taken", "/assistants", {"graph_id": "settings", "assistant_id": "{mine}"}),
    post("unknown graph", "/assistants", {"graph_id": "nothing"}),
    post("both", "/assistants", {"graph_id": "settings", "context": {"a": 1}, "config": {"configurable": {"b": 1}}}),
    post("creator", "/assistants", {"graph_id": "steps", "metadata": {"created_by": "ann"}}),
    get("by name", "/assistants/settings"),
    get("missing", f"/assistants/{NOWHERE}"),
    post("bad limit", "/assistants/search", {"limit": 0}),
    post("bad sort", "/assistants/search", {"sort_by": "colour"}),
    delete("delete", "/assistants/{mine}"),
    delete("delete again", "/assistants/{mine}"),
]
_THREADS = [
    new_thread(metadata={"colour": "red"}),
    get("get", THREAD),
    patch("patch", THREAD, {"metadata": {"shape": "round"}}),
    post("search", "/threads/search", {"ids": ["{thread}"]}),
    get("empty state", f"{THREAD}/state"),
    post("empty history", f"{THREAD}/history", {}),
    post("update without a graph", f"{THREAD}/state", {"values": {"steps": 1}}),
    post("taken", "/threads", {"thread_id": "{thread}"}),
    post("taken, do nothing", "/threads", {"thread_id": "{thread}", "if_exists": "do_nothing"}),
    get("missing", f"/threads/{NOWHERE}"),
    get("no id", "/threads/nonsense"),
    post("bad status", "/threads/search", {"status": "asleep"}),
    delete("delete", THREAD),
    delete("delete again", THREAD),
]
_STATES = [
    new_thread(),
    wait("run", "steps", input={"steps": 2}, metadata={"why": "test"}),
    get("thread row", THREAD),
    get("state", f"{THREAD}/state", keep={"checkpoint": ["checkpoint_id"]}),
    post("history", f"{THREAD}/history", {"limit": 10}),
    get("state at", f"{THREAD}/state/{{checkpoint}}"),
    get("state nowhere", f"{THREAD}/state/{NOWHERE}"),
    post("update", f"{THREAD}/state", {"values": {"steps": 5}}),
    get("updated", f"{THREAD}/state"),
    post("unknown node", f"{THREAD}/state", {"values": {"steps": 5}, "as_node": "nobody"}),
    get("runs", f"{THREAD}/runs"),
    post("copy", f"{THREAD}/copy", {}, keep={"copied": ["thread_id"]}),
    get("copied", "/threads/{copied}/state"),
]
_RUNS = [
    new_thread(),
    post(
        "create",
        f"{THREAD}/runs",
        {"assistant_id": "steps", "input": {"steps": 1}, "config": {"configurable": {"x": "y"}}},
        keep={"run": ["run_id"]},
    ),
    get("join", f"{THREAD}/runs/{{run}}/join"),
    get("get", f"{THREAD}/runs/{{run}}"),
    get("list", f"{THREAD}/runs"),
    get("thread row", THREAD),
    wait("wait", "steps", input={"steps": 1}),
    wait("context", "settings", context={"mood": "good"}),
    wait("failure", "failing", input={"kind": "value"}),
    get("failed thread", THREAD),
    get("failed state", f"{THREAD}/state"),
    wait("unknown graph", "nothing"),
    wait("missing assistant", NOWHERE),
    post("missing thread", f"/threads/{NOWHERE}/runs/wait", {"assistant_id": "steps"}),
    wait("both", "settings", context={"a": 1}, config={"configurable": {"b": 1}}),
    wait("bad mode", "steps", stream_mode="tools"),
    wait("bad strategy", "steps", multitask_strategy="wish"),
    wait("bad checkpoint", "steps", checkpoint_id="nonsense"),
    get("missing run", f"{THREAD}/runs/{NOWHERE}"),
    get("missing join", f"{THREAD}/runs/{NOWHERE}/join"),
    get("missing stream", f"{THREAD}/runs/{NOWHERE}/stream"),
    post("missing cancel", f"{THREAD}/runs/{NOWHERE}/cancel", {}),
    post("cancel ended", f"{THREAD}/runs/{{run}}/cancel", {}),
    delete("delete", f"{THREAD}/runs/{{run}}"),
    delete("delete again", f"{THREAD}/runs/{{run}}"),
    post("later", f"{THREAD}/runs", {"assistant_id": "steps", "after_seconds": 3600}, keep={"late": ["run_id"]}),
    get("busy", THREAD),
    post("cancel", f"{THREAD}/runs/{{late}}/cancel?wait=1", {}),
    get("cancelled", f"{THREAD}/runs/{{late}}"),
    Step(name="no body", method="POST", path=f"{THREAD}/runs/wait"),
    Step(name="no json", method="POST", path=f"{THREAD}/runs/wait", raw="{nonsense"),
    post("no object", f"{THREAD}/runs/wait", []),
]
_STATELESS = [
    post("wait", "/runs/wait", {"assistant_id": "steps", "input": {"steps": 1}}),
    post("stream", "/runs/stream", {"assistant_id": "steps", "input": {"steps": 1}, "stream_mode": ["values"]}),
    post("create", "/runs", {"assistant_id": "steps", "input": {"steps": 1}}),
    post("resume", "/runs/wait", {"assistant_id": "approval", "command": {"resume": 1}}),
    post("batch", "/runs/batch", [{"assistant_id": "steps"}, {"assistant_id": "steps"}]),
    post("empty batch", "/runs/batch", []),
    post("cancel nothing", "/runs/cancel", {}),
]
_STREAMS = [
    new_thread(),
    stream("failure", "failing", input={"kind": "value"}),
    stream("masked failure", "failing", input={"kind": "custom"}),
    stream("writer", "writer", input={}, stream_mode=["custom", "values"]),
    stream("several", "chat", input=HI, stream_mode=["values", "updates", "messages-tuple"]),
    stream("hidden", "hidden", input={}, stream_mode="events"),
    stream("resumable", "steps", input={"steps": 1}, stream_resumable=True),
    *(stream(mode, "chat", input=HI, stream_mode=mode) for mode in MODES),
]
_SUBGRAPHS = [
    new_thread(),
    *(stream(mode, "nested", input=HI, stream_mode=mode, stream_subgraphs=True) for mode in MODES),
    *(
        stream(f"{mode}, root only", "nested", input=HI, stream_mode=mode)
        for mode in ("messages", "messages-tuple", "debug")
    ),
    get("state", f"{THREAD}/state?subgraphs=true"),
]
_TOOLS = [
    new_thread(),
    stream(
        "updates", "tools", input={"messages": [{"role": "human", "content": "add", "id": "m1"}]}, stream_mode="updates"
    ),
    stream("messages", "tools", input={"messages": [{"role": "human", "content": "add"}]}, stream_mode="messages"),
    stream("tuples", "tools", input={"messages": [{"role": "human", "content": "add"}]}, stream_mode="messages-tuple"),
    stream("events", "tools", input={"messages": [{"role": "human", "content": "add"}]}, stream_mode="events"),
]
_QUESTIONS = [
    new_thread(),
    stream("ask", "approval", input={"topic": "tea"}, stream_mode=["values", "updates", "tasks"]),
    get("thread row", THREAD),
    get("state", f"{THREAD}/state"),
    wait("nothing new", "approval", input=None),
    stream("answer", "approval", command={"resume": "yes"}),
    wait("breakpoint", "steps", input={"steps": 1}, interrupt_before="*"),
    post("second thread", "/threads", {}, keep={"thread": ["thread_id"]}),
    stream("events", "approval", input={"topic": "tea"}, stream_mode="events"),
    wait("two questions", "approvals", input={"topic": "tea"}),
    get("two on the row", THREAD),
    post("third thread", "/threads", {}, keep={"thread": ["thread_id"]}),
    stream("nested", "nested_approval", input={"topic": "tea"}, stream_subgraphs=True, stream_mode=["values", "debug"]),
    get("nested state", f"{THREAD}/state?subgraphs=true"),
]
_CONFIGURATION = [
    new_thread(metadata={"of": "thread"}),
    wait("keys", "keys", input={}, config={"configurable": {"mine": 1}, "metadata": {"my": 1}}),
    post("run", f"{THREAD}/runs", {"assistant_id": "keys", "input": {}}, keep={"run": ["run_id"]}),
    get("joined", f"{THREAD}/runs/{{run}}/join"),
    get("run row", f"{THREAD}/runs/{{run}}"),
    get("thread row", THREAD),
    post("history", f"{THREAD}/history", {"limit": 1}),
    *(
        post(kind, "/runs/wait", {"assistant_id": "values", "input": {"kinds": [kind]}})
        for kind in (
            "address",
            "address6",
            "network",
            "zone",
            "path",
            "decimal",
            "uuid",
            "set",
            "frozenset",
            "bytes",
            "instant",
            "date",
            "span",
            "tuple",
        )
    ),
]
_NULLS = [new_thread(), *_nulls(f"{THREAD}/runs/wait", RUN_FIELDS, assistant_id="keys", input={})]
_OTHER_NULLS = [
    new_thread(),
    *_nulls("/threads/search", ("metadata", "values", "status", "limit", "offset", "sort_by", "ids"), ids=["{thread}"]),
    post("thread metadata", "/threads", {"metadata": None}),
    post("thread id", "/threads", {"thread_id": None}),
    post("thread if_exists", "/threads", {"if_exists": None}),
    post("thread ttl", "/threads", {"ttl": None}),
    patch("patch metadata", THREAD, {"metadata": None}),
    *(
        post(f"threads {name}", "/threads/search", {"ids": ["{thread}"], name: None})
        for name in ("select", "extract", "sort_order")
    ),
    *(
        post(f"update {name}", f"{THREAD}/state", {"values": {}, name: None})
        for name in ("values", "as_node", "checkpoint", "checkpoint_id")
    ),
    *(
        post(f"namespaces {name}", "/store/namespaces", {"prefix": ["nulls"], name: None})
        for name in ("prefix", "suffix", "max_depth", "limit", "offset")
    ),
    *_nulls("/runs/wait", ("input", "on_completion", "checkpoint_id", "config"), assistant_id="keys"),
    *_nulls(f"{THREAD}/history", ("before", "metadata", "checkpoint", "select")),
    *(
        post(f"assistant {name}", "/assistants", {"graph_id": "steps", name: None})
        for name in ("assistant_id", "config", "context", "metadata", "name", "description", "if_exists")
    ),
    *(
        post(f"assistants search {name}", "/assistants/search", {"name": "nobody", name: None})
        for name in ("metadata", "graph_id", "limit", "offset", "sort_by", "select")
    ),
    *(
        post(f"cron {name}", "/runs/crons", {"schedule": "0 0 1 1 *", "assistant_id": "steps", name: None})
        for name in ("input", "metadata", "config", "context", "webhook", "end_time", "enabled", "timezone")
    ),
    *(
        post(f"crons search {name}", "/runs/crons/search", {"thread_id": NOWHERE, name: None})
        for name in ("assistant_id", "limit", "offset", "metadata", "sort_by")
    ),
    *(
        post(f"items search {name}", "/store/items/search", {"namespace_prefix": ["nulls"], name: None})
        for name in ("filter", "query", "limit", "offset", "refresh_ttl")
    ),
    *(
        Step(
            name=f"item {name}",
            method="PUT",
            path="/store/items",
            body={"namespace": ["n"], "key": "k", "value": {}, name: None},
        )
        for name in ("index", "ttl")
    ),
]
_CRONS = [
    new_thread(),
    post("create", f"{THREAD}/runs/crons", {"schedule": "0 0 1 1 *", "assistant_id": "steps"}, keep={"c": ["cron_id"]}),
    post("search", "/runs/crons/search", {"thread_id": "{thread}"}),
    post("count", "/runs/crons/count", {"thread_id": "{thread}"}),
    get("get", "/runs/crons/{c}"),
    patch("patch", "/runs/crons/{c}", {"schedule": "0 0 2 1 *", "metadata": {"a": 1}}),
    patch("empty patch", "/runs/crons/{c}", {}),
    *(
        patch(f"patch {name} null", "/runs/crons/{c}", {name: None, "metadata": {"b": 1}})
        for name in ("schedule", "end_time", "timezone", "input", "config", "enabled")
    ),
    post("bad schedule", "/runs/crons", {"schedule": "sometimes", "assistant_id": "steps"}),
    post("missing", "/runs/crons", {"schedule": "0 0 1 1 *", "assistant_id": NOWHERE}),
    delete("delete thread", THREAD),
    get("after its thread", "/runs/crons/{c}"),
    post("stateless", "/runs/crons", {"schedule": "0 0 1 1 *", "assistant_id": "steps"}, keep={"s": ["cron_id"]}),
    delete("delete", "/runs/crons/{s}"),
    delete("delete again", "/runs/crons/{s}"),
]
_ITEM = {"namespace": ["docs", "one"], "key": "k", "value": {"n": 1}}
_STORE = [
    Step(name="put", method="PUT", path="/store/items", body=_ITEM),
    get("get", "/store/items?namespace=docs.one&key=k"),
    get("missing", "/store/items?namespace=docs.one&key=nothing"),
    post("search", "/store/items/search", {"namespace_prefix": ["docs"]}),
    post("filter", "/store/items/search", {"namespace_prefix": ["docs"], "filter": {"n": {"$gt": 0}}}),
    post("query", "/store/items/search", {"namespace_prefix": ["docs"], "query": "anything"}),
    post("namespaces", "/store/namespaces", {"prefix": ["docs"]}),
    Step(name="bad label", method="PUT", path="/store/items", body={**_ITEM, "namespace": ["a.b"]}),
    Step(name="empty label", method="PUT", path="/store/items", body={**_ITEM, "namespace": [""]}),
    Step(name="no namespace", method="PUT", path="/store/items", body={**_ITEM, "namespace": []}),
    get("no key", "/store/items?namespace=docs"),
    delete("delete", "/store/items", body={"namespace": ["docs", "one"], "key": "k"}),
    delete("delete again", "/store/items", body={"namespace": ["docs", "one"], "key": "k"}),
]
_WEBHOOK = [
    new_thread(),
    wait("run", "steps", input={"steps": 1}, webhook="/received"),
    get("received", "/received", again=True),
    wait("nowhere", "steps", input={"steps": 1}, webhook="nonsense"),
]
_A2A = [
    _agent("chat"),
    _agent("steps", "deaf"),
    _a2a("send", "message/send", _say("hi"), keep={"task": ["result", "id"], "context": ["result", "contextId"]}),
    _a2a("get", "tasks/get", {"id": "{task}", "contextId": "{context}"}),
    _a2a("history", "tasks/get", {"id": "{task}", "contextId": "{context}", "historyLength": 10}),
    _a2a("stream", "message/stream", _say("hi")),
    _a2a("missing task", "tasks/get", {"id": f"{NOWHERE}:{NOWHERE}", "contextId": NOWHERE}),
    _a2a("unknown method", "message/think", {}),
    _a2a("no message", "message/send", {}),
    _a2a("missing agent", "message/send", _say("hi"), agent=NOWHERE),
    _a2a("no agent", "message/send", _say("hi"), agent="{deaf}"),
    _a2a("bad agent", "message/send", _say("hi"), agent="nonsense"),
    Step(name="no json", method="POST", path="/a2a/{agent}", raw="{nonsense"),
    post("no rpc", "/a2a/{agent}", {"hello": 1}),
    get("card", "/a2a/{agent}/.well-known/agent-card.json"),
    get("card of old", "/a2a/{agent}/.well-known/agent.json"),
    get("card by query", "/.well-known/agent-card.json?assistant_id={agent}"),
    get("old card by query", "/.well-known/agent.json?assistant_id={agent}"),
    get("card of nobody", "/.well-known/agent-card.json"),
    get("card of a missing agent", f"/a2a/{NOWHERE}/.well-known/agent-card.json"),
    get("card of no agent", "/a2a/{deaf}/.well-known/agent-card.json"),
]
_PROTOCOL = [
    new_thread(),
    post(
        "start",
        f"{THREAD}/commands",
        {"id": 1, "method": "run.start", "params": {"assistant_id": "approval", "input": {"topic": "tea"}}},
    ),
    post("events", f"{THREAD}/stream/events", {"channels": ["values", "lifecycle", "input", "messages"]}),
    post("unknown command", f"{THREAD}/commands", {"id": 2, "method": "run.think", "params": {}}),
    post("no channel", f"{THREAD}/stream/events", {"channels": ["smells"]}),
    post("no channels", f"{THREAD}/stream/events", {}),
]
SCENARIOS = {
    "system": _SYSTEM,
    "slashes": _SLASHES,
    "assistants": _ASSISTANTS,
    "threads": _THREADS,
    "states": _STATES,
    "runs": _RUNS,
    "stateless": _STATELESS,
    "streams": _STREAMS,
    "subgraphs": _SUBGRAPHS,
    "tools": _TOOLS,
    "questions": _QUESTIONS,
    "configuration": _CONFIGURATION,
    "nulls": _NULLS,
    "other nulls": _OTHER_NULLS,
    "crons": _CRONS,
    "store": _STORE,
    "webhook": _WEBHOOK,
    "a2a": _A2A,
    "protocol": _PROTOCOL,
}
