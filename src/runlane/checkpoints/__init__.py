"""LangGraph's checkpoints and long-term store in the ledger, fenced by the lease of the attempt that writes them."""
