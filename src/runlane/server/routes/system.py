"""Routes about the server itself."""

from __future__ import annotations

from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from runlane.server.http import answers
from runlane.server.http.queries import QueryModel
from runlane.server.http.responses import json_response
from runlane.server.http.route import Resource, Route
from runlane.server.routes.authorization import service_of

_DOCS = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Runlane API</title><style>
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
code{font-size:.95em}summary{cursor:pointer;padding:.3rem 0}b{display:inline-block;min-width:4.5rem}
pre{background:#f4f4f4;padding:.7rem;overflow:auto}details{border-bottom:1px solid #ddd}</style></head><body>
<h1>Runlane API</h1><p>The whole document: <a href="openapi.json">openapi.json</a></p><div id="routes">Loading</div>
<script>
fetch("openapi.json").then(r => r.json()).then(doc => {
  const root = document.getElementById("routes"); root.textContent = "";
  for (const [path, methods] of Object.entries(doc.paths)) for (const [method, op] of Object.entries(methods)) {
    const [details, summary, verb, code, text] = ["details", "summary", "b", "code", "pre"]
      .map(name => document.createElement(name));
    verb.textContent = method.toUpperCase(); code.textContent = path;
    summary.append(verb, code, " " + (op.summary || "")); details.append(summary);
    const ref = op.requestBody && op.requestBody.content["application/json"].schema.$ref;
    const schema = ref && doc.components.schemas[ref.split("/").pop()];
    text.textContent = (op.description || "") + (schema ? "\\n\\nBody: " + JSON.stringify(schema, null, 2) : "")
      + "\\n\\nAnswers: " + Object.keys(op.responses).join(", ");
    details.append(text); root.append(details);
  }
});
</script></body></html>"""


class HealthQuery(QueryModel):
    check_db: bool = False


async def ok(request: Request, query: HealthQuery) -> Response:
    """Report that the server answers; with ``check_db`` also that its database accepts writes."""
    services = {}
    if query.check_db:
        await service_of(request).probe.check()
        services["database"] = "healthy"
    return json_response({"ok": True, "services": services})


async def info(request: Request) -> Response:
    """Describe the server."""
    return json_response(
        {
            "version": version("runlane"),
            "langgraph_py_version": version("langgraph"),
            "flags": {
                "assistants": True,
                "crons": True,
                "strict_resume": True,
                "langsmith": False,
                "langsmith_tracing_replicas": False,
                "langsmith_tracing_session_on_runs": False,
            },
            "host": {
                "kind": "self-hosted",
                "project_id": None,
                "host_revision_id": None,
                "revision_id": None,
                "tenant_id": None,
            },
        }
    )


async def docs(_: Request) -> Response:
    """Show the API's routes, from the server's own document, with nothing from the network."""
    return HTMLResponse(_DOCS)


HEALTH = Resource(
    tag="System",
    group=None,
    routes=(
        Route("GET /ok", ok, answer=answers.Health, public=True),
        Route("GET /", ok, answer=answers.Health, public=True),
    ),
)
META = Resource(
    tag="System",
    group="meta",
    routes=(
        Route("GET /info", info, answer=answers.Info, public=True),
        Route("GET /docs", docs, public=True, documented=False),
    ),
)
