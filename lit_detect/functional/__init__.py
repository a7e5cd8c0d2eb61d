"""Pure functions on tensors and strings that detectors, attacks, metrics and reports use."""
