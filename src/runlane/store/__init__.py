"""The ledger: contract, transactions, and a driver per database."""
