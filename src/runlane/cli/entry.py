"""The console script ``runlane``: tells whoever installed only the library what the command line needs."""

from __future__ import annotations

import sys
from importlib.metadata import version

from runlane.errors import ConfigurationError
from runlane.extras import needs_extra


def main() -> None:
    """Run the command line; without the extra ``server`` print what to install and exit with 2."""
    try:
        with needs_extra("server", "The command line"):
            from runlane.cli.main import app

            app()  # its commands import what they need
    except ConfigurationError as error:
        sys.exit(_missing(error))


def _missing(error: ConfigurationError) -> int:
    sys.stderr.write(f"runlane {version('runlane')}\nerror: {error}\n")
    return 2
