"""Analysis of the trials of a study: comparisons with their uncertainty, trends and the Pareto front."""
