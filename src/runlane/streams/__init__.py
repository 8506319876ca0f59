"""Streams of runs: durable log, live fan-out, replay."""
