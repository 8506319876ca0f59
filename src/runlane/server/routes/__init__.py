"""The LangGraph Server API, one module per resource."""
