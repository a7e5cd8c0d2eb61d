"""Evaluation by condition, quality of attacked texts, and pages of ``lit-detect report``."""
