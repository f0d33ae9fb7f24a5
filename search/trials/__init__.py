"""Values that travel between pool, Tune and ledger: trial specs, jobs, epoch results, failures. Does not import Ray."""
