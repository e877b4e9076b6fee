"""Joints of an extraction drawn into the frames that it looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.cache.reader import CacheReader
from pipeline.errors import PosebridgeError
from pipeline.skeleton.graph import graph_of
from pipeline.skeleton.picture import COLOURS, draw_skeleton

Row = Mapping[str, np.ndarray]  # of one clip
WANTED = ("keypoints", "scores", "person_valid", "frame_index")


def read_row(reader: CacheReader | None, clip_id: str) -> Row | None:
    """Joints in pixels of one clip, and its cue frames where it has cues; None where there are none, or are damaged."""
    if reader is None or not {*WANTED} <= {*reader.names} or reader.recipe.dimensions != 2:
        return None
    names = [*WANTED, *(["cue_frame"] if "cue_frame" in reader.names else [])]
    try:
        return {name: values[0] for name, values in reader.read([clip_id], names).items()}
    except PosebridgeError:
        return None


def frame_steps(row: Row, steps: Sequence[int]) -> list[int]:
    """The video's frames in these steps of the T sampled ones; none where one is none."""
    index = row["frame_index"]
    if not all(0 <= step < len(index) for step in steps):
        return []
    found = [int(index[step]) for step in steps]
    return found if min(found, default=-1) >= 0 else []


def draw_joints(frames: np.ndarray, row: Row, steps: Sequence[int], layout: str) -> np.ndarray:
    """The frames [n, H, W, 3], each with everyone who was seen in its step."""
    drawn, graph = np.ascontiguousarray(frames), graph_of(layout)
    thick = max(1, round(max(frames.shape[1:3]) / 240))
    for picture, step in zip(drawn, steps, strict=True):
        for person, valid in enumerate(row["person_valid"][:, step]):
            if valid:
                keypoints, scores = row["keypoints"][person, step], row["scores"][person, step]
                draw_skeleton(picture, keypoints, scores, graph, COLOURS[person % len(COLOURS)], thick)
    return drawn
