"""A skeleton drawn into a picture."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.skeleton.graph import Graph

MOST = 1 << 14  # pixels that a joint may lie outside: OpenCV knows no number of any size
SURE = 0.3  # joints below this score are not drawn
COLOURS = ((80, 200, 255), (255, 150, 60), (120, 230, 120), (230, 120, 230), (250, 220, 80), (150, 150, 255))


def draw_skeleton(
    picture: np.ndarray, keypoints: np.ndarray, scores: np.ndarray, graph: Graph, colour: tuple[int, int, int],
    thick: int,
) -> None:  # fmt: skip
    """Draw the bones and joints that are seen into `picture` [H, W, 3] uint8, in place. `keypoints` [V, 2] are pixels
    of it, `scores` [V].
    """
    seen = (scores >= SURE) & np.isfinite(keypoints).all(-1)
    points = np.where(seen[:, None], keypoints, 0).clip(-MOST, MOST).round().astype(int).tolist()
    for a, b in graph.bones:
        if seen[a] and seen[b]:
            cv2.line(picture, points[a], points[b], colour, thick, cv2.LINE_AA)
    for joint in np.flatnonzero(seen):
        cv2.circle(picture, points[joint], thick + 1, (255, 255, 255), -1, cv2.LINE_AA)
