"""Headers of the HTTP API that the server sets and the command line reads."""

from __future__ import annotations

from typing import Final

#: The version of the server, in each answer of the API.
VERSION_HEADER: Final = "runlane-version"
