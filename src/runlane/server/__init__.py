"""The HTTP API. It needs the extra ``server``."""

from __future__ import annotations

from runlane.extras import needs_extra

with needs_extra("server", "runlane.server"):
    import cronsim as _cronsim  # noqa: F401  # an application with Starlette may lack it
    import starlette as _starlette  # noqa: F401  # the check is the import
