"""The configs that the commands find by name: ``--config configs/moe/x.yaml`` works from any folder."""
