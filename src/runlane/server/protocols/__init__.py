"""Protocols beside the LangGraph Server API: A2A, MCP, event streaming."""
