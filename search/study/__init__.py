"""A study from start to end: the search, its lock, its checkpoints, its progress display."""
