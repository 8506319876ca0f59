"""What can be run: LangGraph graphs and plain coroutines."""
