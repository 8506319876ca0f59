"""What one attempt writes: events and checkpoints in one ordered, fenced queue."""
