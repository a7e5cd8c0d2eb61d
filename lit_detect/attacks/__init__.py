"""Attacks, one file per method."""

from lit_detect.attacks.base import Attack, Attacked, Edit, apply_edits

__all__ = ["Attack", "Attacked", "Edit", "apply_edits"]
