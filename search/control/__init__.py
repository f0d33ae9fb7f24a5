"""Commands to a running search: their record in the ledger, the decisions on them, and the state that results."""
