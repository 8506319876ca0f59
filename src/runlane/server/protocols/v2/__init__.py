"""The event-streaming protocol (version 2): commands to a thread and the events of all its runs, over SSE or WebSocket.

Source: ``langchain-protocol``, in the spelling of ``langgraph-sdk``.
"""
