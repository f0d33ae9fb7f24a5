"""Conversion of text to model input: token windows, examples and padded batches."""
