"""Studies: a grid of runs over seeds, a table with intervals, and a verdict for each claim."""
