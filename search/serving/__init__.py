"""A registered model behind HTTP, on Ray Serve."""
