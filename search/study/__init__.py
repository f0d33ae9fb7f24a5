"""One study: its plan, its search, its lock, its checkpoints and its progress display."""
