"""Whose data helps, and which few samples should change hands: Mycroft as PyTorch Lightning parts."""
