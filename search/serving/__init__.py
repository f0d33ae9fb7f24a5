"""HTTP service for a registered model, in one process or on replicas of Ray Serve."""
