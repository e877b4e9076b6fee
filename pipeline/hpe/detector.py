"""Where the persons are: RTMDet through ONNX Runtime, one frame at a time.

Reads an .onnx file of one of two forms: the head's maps, one a stride, [1, H, W, 5] = score logit, and the distances
left, top, right, bottom in pixels; or mmdeploy's `dets` [1, K, 5] = x1, y1, x2, y2, score and `labels` [1, K].
Source: RTMDet (Lyu et al., arXiv 2212.07784), with letterbox (corner top left, grey 114) and normalisation as in mmdet.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.hpe.onnx_file import load_graph, open_session, run_session

MEAN = np.array([103.53, 116.28, 123.675], np.float32)  # BGR
STD = np.array([57.375, 57.12, 58.395], np.float32)
GREY = 114
MOST_SIDE = 4096  # of an input
SIDE = 640  # of the input, for a graph that takes any size
PERSON = 0  # COCO's first class
OVERLAP = 0.5  # IoU above which the weaker of two boxes is dropped


class Detector:
    """RTMDet over one frame. Raises PosebridgeError for a graph of neither form.

    Args:
        path: the .onnx file.
        threads: of ONNX Runtime; one by default, as frames are detected while the pose model works.
    """

    def __init__(self, path: Path, threads: int = 1):
        self._session = open_session(load_graph(path), path.name, threads)
        inputs = self._session.get_inputs()
        shape = list(inputs[0].shape) if inputs else []
        sides = [side for side in shape[2:] if isinstance(side, int)]
        if len(inputs) != 1 or len(shape) != 4 or shape[1] != 3 or not all(0 < side <= MOST_SIDE for side in sides):
            raise PosebridgeError(f"{path.name} is no RTMDet: its input should be [1, 3, H, W], not {shape}.")
        self._input, self._name = inputs[0].name, path.name
        self._height, self._width = (side if isinstance(side, int) else SIDE for side in shape[2:])
        names = [output.name for output in self._session.get_outputs()]
        self._form = "dets" if {"dets", "labels"} <= set(names) else "maps"
        self._outputs = ["dets", "labels"] if self._form == "dets" else names
        found = self._run(np.zeros((1, 3, self._height, self._width), np.float32))
        if not all(np.isfinite(values).all() for values in found):
            raise PosebridgeError(f"{path.name} gives numbers that are not finite for a test picture; bring it again.")

    def _run(self, image: np.ndarray) -> list[np.ndarray]:
        """The outputs for an input [1, 3, H, W]. Raises PosebridgeError for those of no RTMDet."""
        found = run_session(self._session, self._outputs, {self._input: image}, self._name)
        shapes = [value.shape for value in found]
        if self._form == "dets":
            good = len(shapes[0]) == 3 and shapes[0][::2] == (1, 5) and shapes[1] == shapes[0][:2]
        else:
            good = all(len(shape) == 4 and shape[::3] == (1, 5) and min(shape) > 0 for shape in shapes)
        if not good:
            yields = ", ".join(f"{name} {list(shape)}" for name, shape in zip(self._outputs, shapes, strict=True))
            raise PosebridgeError(
                f"{self._name} is no RTMDet for persons: it should yield `dets` [1, K, 5] and `labels` [1, K], or maps "
                f"[1, H, W, 5]; it yields {yields}."
            )
        return found

    def detect(self, frame: np.ndarray, threshold: float, most: int = 100) -> tuple[np.ndarray, np.ndarray]:
        """Persons in a uint8 RGB frame [H, W, 3].

        Returns:
            boxes [P, 4] float32 (x, y, w, h in pixels of the frame, inside it) and scores [P] float32, best first;
            P <= `most`, scores >= `threshold`, no two boxes with an IoU above 0.5.
        """
        image, scale = self._letterbox(frame)
        outputs = self._run(image)
        if self._form == "dets":
            corners, scores = _read_dets(outputs[0][0], outputs[1][0])
        else:
            corners, scores = _read_maps(outputs, self._height)
        likely = scores >= threshold
        corners, scores = corners[likely] / scale, scores[likely]
        height, width = frame.shape[:2]
        corners = corners.clip(0, [width, height, width, height])
        real = (corners[:, 2:] - corners[:, :2] >= 1).all(1)
        corners, scores = corners[real], scores[real]
        kept = suppress(corners, scores, OVERLAP)[:most]
        boxes = np.concatenate([corners[kept, :2], corners[kept, 2:] - corners[kept, :2]], 1)
        return boxes.astype(np.float32), scores[kept].astype(np.float32)

    def _letterbox(self, frame: np.ndarray) -> tuple[np.ndarray, float]:
        """The frame as the graph's input [1, 3, H, W], and input pixels per frame pixel."""
        height, width = frame.shape[:2]
        scale = min(self._height / height, self._width / width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        canvas = np.full((self._height, self._width, 3), GREY, np.uint8)
        canvas[: size[1], : size[0]] = cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR)
        image = (canvas[..., ::-1] - MEAN) / STD  # to BGR
        return np.ascontiguousarray(image.transpose(2, 0, 1)[None]), scale


def _read_maps(maps: list[np.ndarray], height: int) -> tuple[np.ndarray, np.ndarray]:
    """Corners [P, 4] in input pixels and scores [P] of all cells of the maps [1, h, w, 5]."""
    corners, scores = [], []
    for cells in maps:
        cells = cells[0]
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
