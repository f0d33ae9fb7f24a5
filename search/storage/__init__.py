"""Where a study keeps its files: the home folder and object storage."""
