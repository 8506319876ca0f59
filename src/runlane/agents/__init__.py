"""Agents: LangGraph graphs and plain coroutines."""
