"""The ledger: the record of all trials, in an Optuna storage, and the samplers that propose them."""
