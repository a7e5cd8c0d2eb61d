"""Time, money and memory of a run, computed before it starts."""
