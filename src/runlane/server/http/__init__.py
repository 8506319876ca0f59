"""The ASGI edge: bytes, limits, bodies, answers, the process."""
