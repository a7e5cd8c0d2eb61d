"""Callbacks that also work on somebody else's LightningModule."""
