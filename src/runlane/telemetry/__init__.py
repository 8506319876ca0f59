"""What happens in a process, as typed events: metrics, traces and log lines are observers of them."""
