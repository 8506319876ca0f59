"""Fenced LangGraph checkpointers and long-term stores per backend."""
