"""Fetching public data with the package clients of pip, apt and npm, and from the Hugging Face hub."""
