"""Retraining of classifiers with shared samples: networks one at a time or many at once, and trees."""
