"""The Agent2Agent protocol: every assistant that takes messages is an agent that others can call."""
