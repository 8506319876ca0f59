"""The parts of ``RunManager``: one module for each kind of call."""
