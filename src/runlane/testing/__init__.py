"""For tests of what runs on virtual time: an event loop whose clock jumps, and processes that can be killed on it."""
