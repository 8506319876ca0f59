"""What ``RunManager`` is made of: one module for each kind of call."""
