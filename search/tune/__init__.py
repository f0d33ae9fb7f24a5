"""Execution of trials with Ray Tune: trainable, searcher, recorder, schedulers."""
