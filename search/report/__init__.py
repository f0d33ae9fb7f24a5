"""Report of a study for the terminal and as an HTML page."""
