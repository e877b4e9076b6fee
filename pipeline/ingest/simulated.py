"""The names of a complete NTU-120, for measuring and testing: see `posebridge bench ingest`."""

from __future__ import annotations

from itertools import islice, product

from pipeline.ingest.ntu import CAMERAS, PAIRS, REPLICATIONS, actions_of, name_of

# As many pairs of setup and performer as there are; which performer was recorded in which setup is made up.
PAIRS_OF_SETUPS = (
    *islice(product(range(1, 41), range(1, 18)), PAIRS[60]),
    *islice(product(range(41, 107), range(18, 33)), PAIRS[120] - PAIRS[60]),
)  # (performer, setup)


def ntu120_names() -> list[str]:
    """114 480 paths, in a folder a setup."""
    return [
        f"nturgbd_rgb_s{setup:03d}/{name_of((setup, camera, performer, replication, action))}_rgb.avi"
        for performer, setup in PAIRS_OF_SETUPS
        for camera, replication, action in product(CAMERAS, REPLICATIONS, actions_of(setup))
    ]
