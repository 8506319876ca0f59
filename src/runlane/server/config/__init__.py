"""The sections of langgraph.json that concern the server."""
