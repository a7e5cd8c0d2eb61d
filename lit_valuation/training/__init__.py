"""Training a classifier again with shared samples, with coresets, or as trees."""
