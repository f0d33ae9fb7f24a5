"""Values that travel between pool, Tune and ledger: epoch results, ended jobs, failures, events. Knows no Ray."""
