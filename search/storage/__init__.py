"""Places where a study stores its data: the home folder, and object storage for trials."""
