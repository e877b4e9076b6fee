"""Measurements: of speed, of what cues know, and of what leaks would add. Nothing of the product imports them."""
