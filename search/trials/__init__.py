"""Values that pool, Tune and ledger exchange: trial specs, jobs, epoch results, failures. Does not import Ray."""
