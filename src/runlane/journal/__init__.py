"""The attempt journal: events and checkpoints in one ordered, fenced queue."""
