"""The main persons of a clip: the M tracks that matter most, the first first."""

from __future__ import annotations

import numpy as np

from pipeline.tracking.clothes import exchange_mistaken
from pipeline.tracking.tracks import Findings, link

LEAST_SHARE = 0.1  # of the frames; a track that is shorter is a passer-by or a fault of the detector
LEAST_SCORE = 0.2  # mean of the joints; below, it is a pair of legs at the border, or nobody


def main_persons(findings: Findings, persons: int, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Link the findings of a clip and choose its main persons.

    A track's score is the mean score of its joints x the share of frames in which it was seen x its size (the root of
    its mean box area).

    Returns:
        row [M, T] int: which of the K findings of a frame is the person, -1 where not seen; track_id [M] int32, -1 for
        none. Persons are ordered by track score.
    """
    identity = exchange_mistaken(link(findings, threshold), findings.boxes, findings.colours)  # [K, T]
    frames = identity.shape[1]
    values = {}
    for track in range(int(identity.max(initial=-1)) + 1):
        mine = identity == track
        share = mine.sum() / frames
        score = findings.scores[mine].mean() if share else 0.0
        if share >= LEAST_SHARE and score >= LEAST_SCORE:
            size = np.sqrt(findings.boxes[mine][:, 2:].astype(float).prod(-1).mean())
            values[track] = float(score * share * size)
    rows = np.full((persons, frames), -1)
    track_id = np.full(persons, -1, np.int32)
    for m, track in enumerate(sorted(values, key=lambda track: -values[track])[:persons]):
        found, at = np.nonzero(identity == track)
        rows[m, at], track_id[m] = found, track
    return rows, track_id
