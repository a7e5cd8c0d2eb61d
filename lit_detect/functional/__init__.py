"""Pure functions behind detectors, attacks and metrics."""
