"""Runs trials on Ray: Tune decides, Ray Train owns the processes, a job board stands between."""
