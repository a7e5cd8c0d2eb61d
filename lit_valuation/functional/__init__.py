"""Pure tensor functions: gradients of the last layer, matching pursuit, search, distances and values."""
