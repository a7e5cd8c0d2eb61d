"""Is this text machine-written, and does the detector survive the wild and an attacker?"""
