"""What happens in a run, in order: durable log, live fan-out, replay."""
