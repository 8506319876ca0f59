"""The documentation says what the code has: headings for what can be looked up, links and snippets that work."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import runpy
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

import runlane
import runlane.records
import runlane.server.app
import runlane.streams.bridge
import runlane.testing
from doctor_kit import DAMAGES
from documents import (
    CODE_LINK,
    DOCS,
    FENCE,
    INLINE_CODE,
    LINK,
    PAGES,
    REPLACED_WORDS,
    ROOT,
    anchors,
    definitions,
    headings,
    prose,
)
from runlane import CancelReceipt, RunManager, RunRecord, StreamEnd, StreamEvent, StreamGap, Thread, Usage
from runlane.agents.encode import Unserialisable
from runlane.agents.events import LANGGRAPH_MODES
from runlane.agents.langgraph_json import PACKAGING_KEYS, REFUSED, SECTIONS, UNSUPPORTED_KEYS
from runlane.cli.main import app as command_line
from runlane.doctor.judgements import thread_status
from runlane.errors import ConfigurationError, RunlaneError
from runlane.server.api import RESOURCES, openapi_document
from runlane.server.config.http_section import CorsSection, HttpSection
from runlane.server.http.errors import STATUSES
from runlane.server.http.requests import StreamMode
from runlane.server.http.route import SOCKET, Route
from runlane.server.routes.metrics import Metrics
from runlane.settings import Settings
from runlane.telemetry import events
from runlane.telemetry.logs import log_transitions
from signature_kit import arguments as arguments_of
from simulation.mutants import MUTANTS

REFERENCE = DOCS / "reference"
PYTHON_API = (REFERENCE / "python-api.md").read_text()

TEST_ID = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
#: A page of the project is not a novel; see also the rule of one page in CONTRIBUTING.md.
MAX_DECISION_WORDS = 400


def codes_in_headings(page: Path) -> set[str]:
    """Return what stands in backticks in the page's headings."""
    return {code for heading in headings(page) for code in re.findall(r"`([^`]+)`", heading)}


def table_rows(page: Path) -> list[list[str]]:
    """Return the cells of the rows that look something up: those whose first cell has an anchor."""
    lines = [line for line in page.read_text().splitlines() if line.startswith('| <a id="')]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def looked_up(cell: str) -> str:
    """Return the code that a row is about, which is its anchor too."""
    match = re.fullmatch(r'<a id="([^"]+)"></a>`([^`]+)`', cell)
    assert match is not None, cell
    assert match[1] == match[2], cell
    return match[1]


def commands(command: Any, name: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each command with its flags, those that help does not show left out."""
    for sub, found in getattr(command, "commands", {}).items():
        yield from commands(found, f"{name} {sub}")
    if not hasattr(command, "commands"):
        options = [option for option in command.params if option.param_type_name == "option" and not option.hidden]
        yield name, [option.opts[0] for option in options]


def all_commands() -> list[tuple[str, list[str]]]:
    return list(commands(command_line, "runlane"))


def error_classes() -> dict[str, type[Exception]]:
    """Return the class of every error code."""
    for module in pkgutil.walk_packages(runlane.__path__, "runlane."):
        if "migrations" not in module.name:
            importlib.import_module(module.name)
    classes: list[type[RunlaneError]] = [RunlaneError]
    found: dict[str, type[Exception]] = {"unserialisable": Unserialisable}
    while classes:
        kind = classes.pop()
        if "code" in vars(kind):
            assert found.setdefault(kind.code, kind) is kind, f"two classes have the code {kind.code}"
        classes += [sub for sub in kind.__subclasses__() if sub.__module__.startswith("runlane.")]
    return found


def codes_without_a_class() -> dict[str, int | None]:
    """Return the codes that the server's sources answer by name, with their status if it stands there."""
    found: dict[str, int | None] = {}
    for file in (ROOT / "src" / "runlane" / "server").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in {
                "_refuse",
                "error_response",
            }:
                parts = node.args
            elif isinstance(node, ast.Tuple):
                parts = node.elts
            else:
                continue
            constants = [part.value for part in parts if isinstance(part, ast.Constant)]
            codes = [text for text in constants if isinstance(text, str) and re.fullmatch(r"[a-z_]+", text)]
            statuses = [number for number in constants if isinstance(number, int) and 400 <= number < 600]
            if codes and (statuses or isinstance(node, ast.Call)):
                found[codes[0]] = statuses[0] if statuses else None
    return found


def routes() -> set[str]:
    paths = openapi_document()["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


def runnable_snippets() -> list[tuple[str, str]]:
    """Return the Python snippets below ``<!-- run -->``, with the place where each begins."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in FENCE.finditer(text):
            if match[1] == "python" and text[: match.start()].endswith("<!-- run -->\n"):
                line = text.count("\n", 0, match.start()) + 1
                found.append((f"{page.relative_to(ROOT)}:{line}", match[3]))
    return found


def test_every_setting_is_in_the_table_once_with_its_default() -> None:
    def written(default: object) -> str:
        number = f"{default:,}".removesuffix(".0") if isinstance(default, int | float) else str(default)
        text = str(default).lower() if isinstance(default, bool) else number
        return f"`{text}`" if text else "empty"

    documented = [(looked_up(cells[0]), cells[1]) for cells in table_rows(REFERENCE / "settings.md")]
    assert sorted(documented) == sorted((field.name, written(field.default)) for field in fields(Settings))


def test_the_range_of_a_setting_is_the_documented_one() -> None:
    checked = 0
    for name, _, limits, *_ in table_rows(REFERENCE / "settings.md"):
        if " – " not in limits:
            continue
        setting, kind = looked_up(name), type(getattr(Settings(), looked_up(name)))
        low, high = (kind(text.replace(",", "")) for text in limits.split(" – "))
        for fits in (low, high):
            Settings(**{setting: fits})
        below, above = (low - 1, high + 1) if kind is int else (low * 0.9 or -0.001, high * 1.001)
        for outside in (below, above):
            with pytest.raises(ConfigurationError, match=setting):
                Settings(**{setting: outside})
        checked += 1
    assert checked >= 20


def test_every_command_and_every_flag_has_a_heading() -> None:
    documented = codes_in_headings(REFERENCE / "cli.md")
    expected = set()
    for name, flags in all_commands():
        expected |= {name, *flags}
    assert documented == expected


def test_every_flag_is_named_in_the_section_of_its_command() -> None:
    missing = []
    sections = re.split(r"^## ", (REFERENCE / "cli.md").read_text(), flags=re.MULTILINE)
    for name, flags in all_commands():
        [section] = [text for text in sections if text.startswith(f"`{name}`")]
        missing += [f"{name} {flag}" for flag in flags if f"`{flag}`" not in section]
    assert missing == []


def test_every_route_has_a_heading() -> None:
    documented = {code for code in codes_in_headings(REFERENCE / "http-api.md") if re.match(r"[A-Z]+ /", code)}
    assert documented == routes()


def declared_routes() -> list[Route]:
    return [route for resource in RESOURCES for route in resource.routes if route.documented and route.method != SOCKET]


@pytest.mark.parametrize("route", declared_routes(), ids=lambda route: route.name)
def test_a_routes_parameters_and_fields_are_in_the_reference(route: Route) -> None:
    page = (REFERENCE / "http-api.md").read_text()
    name = f"`{route.name.replace(':path', '')}`"
    [section] = [text for text in re.split(r"^#+ ", page, flags=re.MULTILINE) if name in text.partition("\n")[0]]
    taken = route.arguments
    query = fields_of(taken.query) - {"limit", "offset"}  # which "Conventions" has for all
    assert {field for field in query if field not in section} == set()
    assert {field for field in fields_of(taken.body) if f"`{field}`" not in page} == set()


def fields_of(model: type[msgspec.Struct] | None) -> set[str]:
    return set() if model is None else {field.encode_name for field in msgspec.structs.fields(model)}


def test_every_error_code_is_in_the_table_once_with_its_class_and_status() -> None:
    def status(kind: type[Exception]) -> str:
        return next((str(status) for handled, status in STATUSES if issubclass(kind, handled)), "—")

    documented = [(looked_up(cells[0]), *cells[1:3]) for cells in table_rows(REFERENCE / "errors.md")]
    with_a_class = [(code, f"`{kind.__name__}`", status(kind)) for code, kind in error_classes().items()]
    assert sorted(row for row in documented if row[1]) == sorted(with_a_class)
    answered = codes_without_a_class()
    assert sorted(code for code, name, _ in documented if not name) == sorted(answered)
    statuses = {code: written for code, name, written in documented if not name}
    assert [code for code, number in answered.items() if number and str(number) != statuses[code]] == []


def test_every_public_name_is_in_the_python_reference() -> None:
    names = [*runlane.__all__, *runlane.testing.__all__]
    assert [name for name in names if not re.search(rf"`{name}[`(]", PYTHON_API)] == []


def test_every_name_that_the_python_reference_explains_is_public() -> None:
    homes = (runlane, runlane.testing, runlane.records, runlane.streams.bridge, runlane.server.app)
    names = [code for code in codes_in_headings(REFERENCE / "python-api.md") if code != "runlane"]
    assert [name for name in names if not any(hasattr(home, name) for home in homes)] == []


def documented_signatures() -> list[str]:
    """Return the signatures of the Python reference: those in blocks, and those in the table of the manager."""
    blocks = [code for language, _, code in FENCE.findall(PYTHON_API) if language == "text"]
    [manager] = [text for text in re.split(r"^## ", PYTHON_API, flags=re.MULTILINE) if text.startswith("`RunManager`")]
    cells = "".join(re.findall(r"^\| (`.*?) \| ", manager, re.MULTILINE))
    return [*blocks, *(f"runlane.RunManager.{method}" for method in re.findall(r"`(\w+\([^`]*\))`", cells))]


@pytest.mark.parametrize("signature", documented_signatures(), ids=lambda signature: signature.partition("(")[0])
def test_a_documented_signature_has_the_arguments_that_there_are(signature: str) -> None:
    name, _, arguments = signature.strip().removeprefix("runlane.").partition("(")
    [function] = ast.parse(f"def documented({arguments.replace(', …', '').replace('…', '...')}: ...").body
    assert isinstance(function, ast.FunctionDef)
    documented = [argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)]
    found: Any = runlane
    for part in name.split("."):
        found = getattr(found, part)
    parameters = arguments_of(found)
    assert [argument for argument in documented if argument not in parameters] == []
    if not name.startswith("RunManager."):  # whose common arguments stand above the table
        assert set(documented) == parameters


def test_create_app_returns_what_the_reference_says() -> None:
    [section] = [text for text in re.split(r"^## ", PYTHON_API, flags=re.MULTILINE) if text.startswith("`create_app`")]
    returned = inspect.signature(runlane.server.app.create_app, eval_str=True).return_annotation
    assert f"Returns the `{returned.__name__}` application" in section


@pytest.mark.parametrize("kind", [CancelReceipt, RunRecord, StreamEnd, StreamEvent, StreamGap, Thread, Usage])
def test_every_field_of_a_public_record_is_in_the_python_reference(kind: type) -> None:
    [section] = [
        text for text in re.split(r"^## ", PYTHON_API, flags=re.MULTILINE) if text.startswith(f"`{kind.__name__}`")
    ]
    names = kind.__struct_fields__ if issubclass(kind, msgspec.Struct) else [field.name for field in fields(kind)]
    assert [name for name in names if f"`{name}`" not in section] == []


def test_every_method_of_the_manager_is_in_the_python_reference() -> None:
    names = [name for name in vars(RunManager) if not name.startswith("_")]
    documented = [name if isinstance(vars(RunManager)[name], property) else f"{name}(" for name in names]
    assert [name for name in documented if f"`{name}" not in PYTHON_API] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_local_link_resolves(page: Path) -> None:
    broken = []
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        wanted = (page.parent / path).resolve() if path else page
        if not wanted.exists() or (anchor and wanted.suffix == ".md" and anchor not in anchors(wanted)):
            broken.append(target)
    assert broken == []


def test_a_link_to_code_leads_to_the_definition_that_it_names() -> None:
    wrong = []
    for page in PAGES:
        for name, path, line in CODE_LINK.findall(page.read_text()):
            lines = definitions((page.parent / path).resolve()).get(name)
            # Close enough to be seen: `./dev docs` makes it exact, and not every change of code has to change the page.
            if lines is None or not line or not lines.start - 20 <= int(line) <= lines.stop + 20:
                wrong.append(f"{page.relative_to(ROOT)}: {path}::{name} at {line or 'no line'}")
    assert wrong == [], "run ./dev docs; it fails for names that are gone"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_uses_the_terms_of_the_field(page: Path) -> None:
    text = LINK.sub("", INLINE_CODE.sub("", prose(page)))
    found = {
        match[0]: better for pattern, better in REPLACED_WORDS.items() for match in [re.search(pattern, text)] if match
    }
    assert found == {}


def test_every_stream_mode_has_langgraphs_own_and_its_events_in_the_reference() -> None:
    modes = set(get_args(StreamMode))
    assert modes == {*LANGGRAPH_MODES, "events"}
    [row] = [line for line in (REFERENCE / "streams.md").read_text().splitlines() if line.startswith("| `values`, ")]
    assert {mode for mode in modes if f"`{mode}`" not in row} == set()


def test_every_metric_is_in_the_reference_and_the_reverse() -> None:
    found = {metric.name for metric in Metrics().registry.collect() if metric.name.startswith("runlane_")}
    documented = set(re.findall(r"`(runlane_\w+?)(?:_total)?`", (REFERENCE / "metrics.md").read_text()))
    assert documented == found


def test_every_event_of_the_log_is_in_its_page() -> None:
    page = (REFERENCE / "logs.md").read_text()
    rows = re.findall(r"^\| `(\w+\.\w+)` \|", page, flags=re.MULTILINE)
    logged: set[str] = set()
    for file in (ROOT / "src").rglob("*.py"):
        logged |= set(re.findall(r'log\.\w+\(\s*(?:\w+,\s*)?"([a-z]+\.[a-z_%]+)', file.read_text()))
    logged = logged - {"graph.own_%s"} | {"graph.own_checkpointer", "graph.own_store"}
    transitions = set(re.findall(r"on\((\w+)", inspect.getsource(log_transitions)))
    assert sorted(rows) == sorted(logged | {vars(events)[name].key for name in transitions})


def test_every_attribute_of_spans_is_in_its_page() -> None:
    page = (REFERENCE / "traces.md").read_text()
    [table] = [text for text in re.split(r"^## ", page, flags=re.MULTILINE) if text.startswith("Attributes")]
    rows = {name for line in table.splitlines() for name in re.findall(r"`([a-z_]+\.[a-z_.]+)`", line.split(" | ")[0])}
    made: set[str] = set()
    for file in ("telemetry/tracing.py", "agents/spans.py", "execution/spans.py"):
        text = (ROOT / "src/runlane" / file).read_text()
        made |= set(re.findall(r'"((?:gen_ai|runlane|error)\.[a-z_.]+)"', text))
    assert rows == made - {"runlane.cancel_observed"}


def test_every_event_of_telemetry_is_in_the_reference_with_its_fields() -> None:
    kinds = {name: kind for name, kind in vars(events).items() if inspect.isclass(kind)}
    expected = {
        name: [field for field in kind.__struct_fields__ if field not in events.OfRun.__struct_fields__]
        if issubclass(kind, events.OfRun)
        else list(kind.__struct_fields__)
        for name, kind in kinds.items()
        if issubclass(kind, events.TelemetryEvent) and kind not in (events.TelemetryEvent, events.OfRun)
    }
    [section] = [text for text in re.split(r"^## ", PYTHON_API, flags=re.MULTILINE) if text.startswith("Telemetry")]
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| `")]
    assert {row[0].strip("| `"): re.findall(r"`(\w+)`", row[1]) for row in rows} == expected


def test_every_finding_of_the_doctor_is_in_its_page() -> None:
    page = (DOCS / "how-to" / "check-and-repair-the-database.md").read_text()
    cells = "".join(line.split(" | ")[0] for line in page.splitlines() if line.startswith("| `"))
    damages = {code for damage in DAMAGES.values() for code in (*damage.codes, *damage.also)}
    not_by_sql = {
        "file.integrity",
        "schema.row_security",
        "thread.state",
        "thread.head",
        "run.no_worker",
        "item.vector_rows",
    }
    assert set(re.findall(r"`([a-z]+\.[a-z_]+)`", cells)) == damages | not_by_sql


def test_the_finding_that_the_page_of_the_doctor_shows_is_what_it_prints() -> None:
    page = (DOCS / "how-to" / "check-and-repair-the-database.md").read_text()
    found = thread_status({"thread_id": "8f0c", "status": "busy", "active": 0}, True)
    assert f"\n{found.line}\n" in page


def test_every_key_of_langgraph_json_is_in_its_page() -> None:
    page = (REFERENCE / "langgraph-json.md").read_text()
    fields_of_http = {
        field.encode_name for kind in (HttpSection, CorsSection) for field in msgspec.structs.fields(kind)
    }
    keys = {*PACKAGING_KEYS, *UNSUPPORTED_KEYS, *SECTIONS, *REFUSED, "graphs", "dependencies", "env", *fields_of_http}
    assert sorted(key for key in keys if f"`{key}`" not in page) == []


def test_the_number_of_planted_bugs_is_counted() -> None:
    stated = {int(number) for page in PAGES for number in re.findall(r"\b(\d+) planted bugs", page.read_text())}
    assert stated == {len(MUTANTS)}


def test_the_architecture_page_lists_every_folder() -> None:
    folders = {path.parent.name for path in (ROOT / "src" / "runlane").glob("*/__init__.py")}
    rows = [
        line for line in (DOCS / "explanation" / "architecture.md").read_text().splitlines() if line.startswith("| `")
    ]
    listed = set(re.findall(r"`(\w+)/`", "".join(row.split(" | ")[0] for row in rows)))
    assert listed == folders


def test_the_sources_use_the_terms_of_the_field() -> None:
    found = {
        f"{file.relative_to(ROOT)}:{number}: {match[0]}": better
        for file in (ROOT / "src").rglob("*.py")
        for number, line in enumerate(file.read_text().splitlines(), 1)
        for pattern, better in REPLACED_WORDS.items()
        for match in [re.search(pattern, line)]
        if match
    }
    assert found == {}


def test_the_changelog_fixes_only_what_a_release_had() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text()
    released = re.search(r"^## \[\d+\.\d+\.\d+\]", changes, re.MULTILINE)
    assert released is not None or "### Fixed" not in changes


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_how_long_the_tests_take_and_what_they_install_is_said(page: str) -> None:
    took = re.search(r"about \d+ minutes on 2 cores", (ROOT / "dev").read_text())
    text = (ROOT / page).read_text()
    assert took is not None
    assert [fact for fact in (took[0], "hromium", "apt-get", "npm") if fact not in text] == []


def test_every_page_is_linked_from_the_index() -> None:
    index = (DOCS / "README.md").read_text()
    pages = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if page != DOCS / "README.md"]
    assert [page for page in pages if f"({page})" not in index] == []


def test_every_test_that_a_page_names_exists() -> None:
    missing = []
    for page in PAGES:
        for path, name in TEST_ID.findall(page.read_text()):
            file = ROOT / path
            if not file.is_file() or (name and name not in function_names(file)):
                missing.append(f"{page.relative_to(ROOT)}: {path}::{name}")
    assert missing == []


def test_every_source_file_and_folder_that_a_page_names_exists() -> None:
    places = (ROOT, ROOT / "src" / "runlane", ROOT / "tests")
    missing = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in PAGES
        for name in re.findall(r"`(\w+/[\w/.-]*?(?:/|\.(?:py|toml|md)))`", page.read_text())
        if not any((place / name).exists() for place in (*places, page.parent))
    ]
    assert missing == []


def function_names(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("page", sorted(DOCS.glob("decisions/*.md")), ids=lambda page: page.name)
def test_a_decision_is_one_page_of_context_choice_and_consequence(page: Path) -> None:
    text = page.read_text()
    assert re.fullmatch(r"\d{4}-[\w-]+\.md", page.name)
    assert text.startswith(f"# {int(page.name[:4])}. ")
    assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == ["Context", "Choice", "Consequence"]
    assert len(text.split()) <= MAX_DECISION_WORDS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_python_snippet_parses(page: Path) -> None:
    for language, _, code in FENCE.findall(page.read_text()):
        if language == "python":
            # A snippet may be the inside of a coroutine, or a signature.
            compile(code, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_readme_and_the_tutorial_have_snippets_that_run() -> None:
    pages = {place.partition(":")[0] for place, _ in runnable_snippets()}
    assert {"README.md", "docs/tutorial/first-run.md"} <= pages


@pytest.mark.parametrize(("place", "code"), runnable_snippets(), ids=[place for place, _ in runnable_snippets()])
def test_a_snippet_that_is_marked_to_run_runs_and_prints_what_the_page_says(
    place: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "snippet.py"
    script.write_text(code)
    runpy.run_path(str(script), run_name="snippet")
    assert capsys.readouterr().out.splitlines() == re.findall(r"#> (.*)$", code, re.MULTILINE)
