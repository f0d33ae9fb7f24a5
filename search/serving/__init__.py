"""HTTP service for a registered model, on Ray Serve."""
