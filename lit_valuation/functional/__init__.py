"""Pure functions of tensors: last-layer gradients, matching pursuit, nearest neighbours, distances, data values."""
