"""Checkpoints of Hugging Face's transformers, in and out."""

from lit_moe.interop.exporting import export_model
from lit_moe.interop.families import FAMILIES
from lit_moe.interop.importing import import_model
from lit_moe.interop.sharded import load_sharded

__all__ = ["FAMILIES", "export_model", "import_model", "load_sharded"]
