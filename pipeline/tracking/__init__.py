"""Persons with an identity over time: from what was found in each frame to the tracks of a clip. Numbers only."""
