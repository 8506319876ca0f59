"""Telemetry: typed events of a process, with metrics, traces and log lines as observers."""
