"""Tracking in MLflow: a parent run a study, a child run a trial, its curve, its best checkpoint.

Nothing of a document's text goes there: parameters, numbers, digests and weights only.
"""
