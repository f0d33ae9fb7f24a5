"""Tracking of a study in MLflow: one parent run, one child run per trial, metrics and best checkpoints.

It sends parameters, numbers, digests and weights, but no document text.
"""
