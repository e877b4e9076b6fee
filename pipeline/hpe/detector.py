"""Where the persons are: RTMDet through ONNX Runtime, in batches of frames where the graph takes more than one.

Reads an .onnx file of one of two forms: the head's maps, one a stride, [N, H, W, 5] = score logit, and the distances
left, top, right, bottom in pixels; or mmdeploy's `dets` [N, K, 5] = x1, y1, x2, y2, score and `labels` [N, K].
Source: RTMDet (Lyu et al., arXiv 2212.07784), with letterbox (corner top left, grey 114) and normalisation as in mmdet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from pipeline.errors import PosebridgeError
from pipeline.files.device import CPU
from pipeline.hpe.onnx_file import load_graph
from pipeline.hpe.onnx_session import open_session, provider_of, run_session

MEAN = np.array([103.53, 116.28, 123.675], np.float32)  # BGR
STD = np.array([57.375, 57.12, 58.395], np.float32)
GREY = 114
MOST_SIDE = 4096  # of an input; and no more pixels than such a square's in all its frames
SIDE = 640  # of the input, for a graph that takes any size
BATCH = 8  # frames in one call of a graph that takes any number
PERSON = 0  # COCO's first class
OVERLAP = 0.5  # IoU above which the weaker of two boxes is dropped


@dataclass(frozen=True)
class Letterboxed:
    """A frame as the graph's input [3, H, W], with input pixels per frame pixel and the frame's height and width."""

    image: np.ndarray
    scale: float
    size: tuple[int, int]


class Detector:
    """RTMDet over frames. Raises PosebridgeError for a graph of neither form, or none for `device`.

    Args:
        path: the .onnx file.

    Attributes:
        together: how many frames the graph looks at in one call. Fewer are filled up, so that what is found in a frame
            depends on no other.
        provider: ONNX Runtime's name of what it runs on.
    """

    def __init__(self, path: Path, device: torch.device = CPU):
        # one thread, as frames are detected while the pose model works
        self._session = open_session(load_graph(path), path.name, device, threads=1)
        inputs = self._session.get_inputs()
        shape = list(inputs[0].shape) if inputs else []
        sides = [side for side in shape[2:] if isinstance(side, int)]
        if len(inputs) != 1 or len(shape) != 4 or shape[1] != 3 or not all(0 < side <= MOST_SIDE for side in sides):
            raise PosebridgeError(f"{path.name} is no RTMDet: its input should be [N, 3, H, W], not {shape}.")
        self._input, self._name = inputs[0].name, path.name
        self._height, self._width = (side if isinstance(side, int) else SIDE for side in shape[2:])
        most = MOST_SIDE**2 // (self._height * self._width)
        fixed = isinstance(shape[0], int)
        if fixed and not 0 < shape[0] <= most:
            raise PosebridgeError(f"{path.name} takes {shape[0]} frames at a time, not 1 to {most}; export it for one.")
        names = [output.name for output in self._session.get_outputs()]
        self._form = "dets" if {"dets", "labels"} <= set(names) else "maps"
        self._outputs = ["dets", "labels"] if self._form == "dets" else names
        self.provider, self.together = provider_of(self._session), shape[0] if fixed else min(BATCH, most)
        black = np.zeros((3, self._height, self._width), np.float32)
        try:
            found = self._run([black])
        except PosebridgeError:
            if fixed:
                raise
            self.together = 1  # it declares any number, and is made for one
            found = self._run([black])
        if not all(np.isfinite(values).all() for values in found):
            raise PosebridgeError(f"{path.name} gives numbers that are not finite for a test picture; bring it again.")

    def _run(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs for up to `together` inputs [3, H, W]. Raises PosebridgeError for those of no RTMDet."""
        n = self.together
        batch = np.stack([*images, *[images[-1]] * (n - len(images))])
        found = run_session(self._session, self._outputs, {self._input: batch}, self._name)
        shapes = [value.shape for value in found]
        if self._form == "dets":
            good = len(shapes[0]) == 3 and shapes[0][::2] == (n, 5) and shapes[1] == shapes[0][:2]
        else:
            good = all(len(shape) == 4 and shape[::3] == (n, 5) and min(shape) > 0 for shape in shapes)
        if not good:
            yields = ", ".join(f"{name} {list(shape)}" for name, shape in zip(self._outputs, shapes, strict=True))
            raise PosebridgeError(
                f"{self._name} is no RTMDet for persons: it should yield `dets` [{n}, K, 5] and `labels` [{n}, K], or "
                f"maps [{n}, H, W, 5]; it yields {yields}."
            )
        return found

    def detect(self, frame: np.ndarray, threshold: float, most: int = 100) -> tuple[np.ndarray, np.ndarray]:
        """Persons in a uint8 RGB frame [H, W, 3].

        Returns:
            boxes [P, 4] float32 (x, y, w, h in pixels of the frame, inside it) and scores [P] float32, best first;
            P <= `most`, scores >= `threshold`, no two boxes with an IoU above 0.5.
        """
        return self.detect_together([self.letterbox(frame)], threshold, most)[0]

    def detect_together(
        self, frames: Sequence[Letterboxed], threshold: float, most: int = 100
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """As `detect`, of up to `together` frames."""
        outputs = self._run([frame.image for frame in frames])
        found = []
        for row, frame in enumerate(frames):
            values = [output[row] for output in outputs]
            corners, scores = _read_dets(*values) if self._form == "dets" else _read_maps(values, self._height)
            found.append(_persons(corners / frame.scale, scores, frame.size, threshold, most))
        return found

    def letterbox(self, frame: np.ndarray) -> Letterboxed:
        """A uint8 RGB frame [H, W, 3] as `detect_together` takes it."""
        height, width = frame.shape[:2]
        scale = min(self._height / height, self._width / width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        canvas = np.full((self._height, self._width, 3), GREY, np.uint8)
        canvas[: size[1], : size[0]] = cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR)
        image = np.empty((3, self._height, self._width), np.float32)
        for i, plane in enumerate(reversed(cv2.split(canvas))):  # to BGR; plane by plane, which is ten times as fast
            np.divide(plane - MEAN[i], STD[i], out=image[i])
        return Letterboxed(image, scale, (height, width))


def _persons(
    corners: np.ndarray, scores: np.ndarray, size: tuple[int, int], threshold: float, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and scores, see `Detector.detect`, of corners [P, 4] in pixels of a frame of this height and width."""
    likely = scores >= threshold
    corners, scores = corners[likely], scores[likely]
    height, width = size
    corners = corners.clip(0, [width, height, width, height])
    real = (corners[:, 2:] - corners[:, :2] >= 1).all(1)
    corners, scores = corners[real], scores[real]
    kept = suppress(corners, scores, OVERLAP)[:most]
    boxes = np.concatenate([corners[kept, :2], corners[kept, 2:] - corners[kept, :2]], 1)
    return boxes.astype(np.float32), scores[kept].astype(np.float32)


def _read_maps(maps: list[np.ndarray], height: int) -> tuple[np.ndarray, np.ndarray]:
    """Corners [P, 4] in input pixels and scores [P] of all cells of the maps [h, w, 5]."""
    corners, scores = [], []
    for cells in maps:
        stride = height / cells.shape[0]
        y, x = np.mgrid[: cells.shape[0], : cells.shape[1]] * stride  # a cell's own point is its top left corner
        left, top, right, bottom = np.moveaxis(cells[..., 1:], -1, 0)
        corners.append(np.stack([x - left, y - top, x + right, y + bottom], -1).reshape(-1, 4))
        scores.append(1 / (1 + np.exp(-cells[..., 0].astype(np.float64))).ravel())
    return np.concatenate(corners), np.concatenate(scores)


def _read_dets(dets: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    persons = dets[labels == PERSON]
    return persons[:, :4].astype(np.float64), persons[:, 4].astype(np.float64)


def suppress(corners: np.ndarray, scores: np.ndarray, overlap: float) -> np.ndarray:
    """Non-maximum suppression: the rows of corners [P, 4] that stay, best first.

    Not by `cv2.dnn.NMSBoxes`: it compares scores and IoU in single precision, in which the scores of a sure detector
    and boxes that share just a half are ties; and it knows no box of score 0.
    """
    order = np.argsort(-scores, kind="stable")
    areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        sides = np.minimum(corners[best, 2:], corners[order, 2:]) - np.maximum(corners[best, :2], corners[order, :2])
        shared = sides.clip(0).prod(1)
        order = order[shared <= overlap * (areas[best] + areas[order] - shared)]
    return np.array(kept, np.int64)
