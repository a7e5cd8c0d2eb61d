"""Networks of the trained detectors."""
