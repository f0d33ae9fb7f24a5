"""The configuration of a search: space file, overrides, dimensions, objectives, validation."""
