"""Tuning a pose model, on rendered stills or on COCO: sources of crops, losses, the loop, how good the result is."""
