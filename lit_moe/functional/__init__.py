"""Pure tensor functions: routing, routing drift, and the loss of each token."""
