"""Moving in: a whole ledger from one database to another, and what other servers have stored."""
