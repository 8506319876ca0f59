"""The nginx of ``deploy/`` before servers of a test."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from program_kit import program

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "deploy" / "nginx" / "runlane.conf"
#: Everything that nginx would write elsewhere is in its folder.
AROUND = """
{user}
daemon off;
worker_processes 1;
error_log stderr notice;
pid {folder}/nginx.pid;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/proxied;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/runlane.conf;
}}
"""


def nginx_program() -> str:
    """Return the program, or skip the test."""
    return program("nginx", package="nginx")


def nginx_configuration(folder: Path, port: int, servers: Sequence[int]) -> Path:
    """Write a configuration with the shipped file, for nodes on these ports of this machine, and return its path."""
    text = SHIPPED.read_text()
    changes: dict[str, Any] = {"listen 8080;": f"listen 127.0.0.1:{port};"}
    changes |= {f"api-{number}:2024": f"127.0.0.1:{server}" for number, server in enumerate(servers, 1)}
    for shipped, here in changes.items():
        assert text.count(shipped) == 1, shipped
        text = text.replace(shipped, here)
    (folder / "runlane.conf").write_text(text)
    configuration = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""  # only root may change it, and the folder is the test's
    configuration.write_text(AROUND.format(folder=folder, user=user))
    return configuration
