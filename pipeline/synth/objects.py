"""Objects a person can hold, drawn to be told apart at a pose model's resolution.

Each is a few polygons around its grip (the origin), y up, in metres, larger than life, with a dark outline and a
distinctive part near the grip. Colours are random, so identity is shape and not colour.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

OUTLINE = (24, 22, 26)
SHIFT = 4  # sub-pixel bits of OpenCV's drawing calls


@dataclass(frozen=True)
class Part:
    """One polygon [P, 2] and the role of its colour: 0 main, 1 second, 2 light, 3 dark."""

    points: np.ndarray
    role: int


@dataclass(frozen=True)
class Look:
    """The colours [4, 3] and the size of one instance, drawn without regard to what the object is."""

    colours: np.ndarray
    scale: float

    @staticmethod
    def draw(rng: np.random.Generator) -> Look:
        main = _vivid(rng)
        second = _vivid(rng)
        light = 215 + 40 * rng.random(3)
        dark = 30 + 40 * rng.random(3)
        return Look(np.stack([main, second, light, dark]), float(rng.uniform(0.92, 1.15)))


def _vivid(rng: np.random.Generator) -> np.ndarray:
    hsv = np.array([[[rng.integers(180), rng.integers(120, 256), rng.integers(130, 256)]]], dtype=np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(float)


def _box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def _oval(x: float, y: float, rx: float, ry: float, start: float = 0.0, stop: float = 2 * np.pi) -> np.ndarray:
    angles = np.linspace(start, stop, 22)
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], 1)


def _ring(x: float, y: float, outer: float, inner: float, start: float, stop: float) -> np.ndarray:
    return np.concatenate([_oval(x, y, outer, outer, start, stop), _oval(x, y, inner, inner, start, stop)[::-1]])


def _cup() -> list[Part]:
    return [
        Part(_ring(0.12, 0.02, 0.085, 0.045, -np.pi / 2, np.pi / 2), 0),
        Part(np.array([[-0.10, -0.12], [0.09, -0.12], [0.13, 0.14], [-0.14, 0.14]]), 0),
        Part(_oval(-0.005, 0.14, 0.135, 0.035), 3),
    ]


def _bottle() -> list[Part]:
    body = [[-0.08, -0.22], [0.08, -0.22], [0.08, 0.10], [0.032, 0.20], [0.032, 0.30], [-0.032, 0.30], [-0.032, 0.20]]
    return [
        Part(np.array([*body, [-0.08, 0.10]]), 0),
        Part(_box(-0.08, -0.12, 0.08, 0.04), 2),
        Part(_box(-0.042, 0.29, 0.042, 0.36), 1),
    ]


def _phone() -> list[Part]:
    return [
        Part(_box(-0.10, -0.16, 0.10, 0.20), 3),
        Part(_box(-0.078, -0.10, 0.078, 0.165), 2),
        Part(_oval(0, -0.13, 0.02, 0.02), 1),
    ]


def _microphone() -> list[Part]:
    return [
        Part(np.array([[-0.03, -0.26], [0.03, -0.26], [0.055, 0.10], [-0.055, 0.10]]), 3),
        Part(_oval(0, 0.18, 0.10, 0.10), 2),
        Part(_box(-0.10, 0.10, 0.10, 0.135), 1),
    ]


def _banana() -> list[Part]:
    # Yellow for every instance would be a cue of colour; the crescent is the cue.
    outer, inner = (
        _oval(0.20, 0.04, 0.26, 0.28, np.pi * 0.62, np.pi * 1.42),
        _oval(0.24, 0.05, 0.19, 0.22, np.pi * 0.62, np.pi * 1.42),
    )
    return [
        Part(np.concatenate([outer, inner[::-1]]), 0),
        Part(_oval(0.145, 0.29, 0.03, 0.035), 3),
        Part(_oval(0.155, -0.19, 0.025, 0.025), 3),
    ]


def _hammer() -> list[Part]:
    head = [[-0.17, 0.22], [0.10, 0.22], [0.20, 0.27], [0.10, 0.36], [-0.17, 0.36]]
    return [Part(_box(-0.033, -0.20, 0.033, 0.26), 1), Part(np.array(head), 3), Part(_box(-0.20, 0.20, -0.13, 0.38), 0)]


def _racket() -> list[Part]:
    strings = [Part(_box(x - 0.005, 0.20, x + 0.005, 0.52), 3) for x in (-0.09, -0.03, 0.03, 0.09)]
    strings += [Part(_box(-0.13, y - 0.005, 0.13, y + 0.005), 3) for y in (0.26, 0.33, 0.40, 0.47)]
    return [
        Part(_box(-0.028, -0.20, 0.028, 0.16), 3),
        Part(_oval(0, 0.36, 0.185, 0.235), 0),
        Part(_oval(0, 0.36, 0.145, 0.195), 2),
        *strings,
    ]


def _umbrella() -> list[Part]:
    canopy = np.concatenate(
        [
            _oval(0, 0.34, 0.34, 0.28, 0, np.pi),
            [[-0.34, 0.34], [-0.225, 0.39], [-0.11, 0.34], [0.0, 0.39], [0.11, 0.34], [0.225, 0.39]],
        ]
    )
    panel = np.concatenate([_oval(0, 0.34, 0.13, 0.28, 0, np.pi), [[-0.13, 0.34], [0.0, 0.385]]])
    return [
        Part(_box(-0.014, -0.18, 0.014, 0.40), 3),
        Part(_ring(-0.055, -0.18, 0.07, 0.042, np.pi, 2 * np.pi), 1),
        Part(canopy, 0),
        Part(panel, 1),
    ]


def _ball() -> list[Part]:
    return [
        Part(_oval(0, 0.05, 0.165, 0.165), 0),
        Part(_ring(-0.17, 0.05, 0.145, 0.12, -0.75, 0.75), 2),
        Part(_ring(0.17, 0.05, 0.145, 0.12, np.pi - 0.75, np.pi + 0.75), 2),
    ]


def _book() -> list[Part]:
    lines = [Part(_box(x, y, x + 0.14, y + 0.016), 3) for x in (-0.185, 0.045) for y in (-0.04, 0.03, 0.10)]
    return [
        Part(np.array([[-0.25, -0.12], [0, -0.16], [0.25, -0.12], [0.25, 0.20], [0, 0.16], [-0.25, 0.20]]), 0),
        Part(np.array([[-0.22, -0.09], [-0.012, -0.125], [-0.012, 0.15], [-0.22, 0.18]]), 2),
        Part(np.array([[0.22, -0.09], [0.012, -0.125], [0.012, 0.15], [0.22, 0.18]]), 2),
        *lines,
    ]


def _flag() -> list[Part]:
    cloth = [
        [0.0, 0.16],
        [0.13, 0.20],
        [0.26, 0.15],
        [0.40, 0.19],
        [0.40, 0.43],
        [0.26, 0.39],
        [0.13, 0.44],
        [0.0, 0.40],
    ]
    stripe = [
        [0.0, 0.245],
        [0.13, 0.285],
        [0.26, 0.235],
        [0.40, 0.275],
        [0.40, 0.345],
        [0.26, 0.305],
        [0.13, 0.355],
        [0.0, 0.315],
    ]
    return [Part(_box(-0.018, -0.24, 0.018, 0.46), 3), Part(np.array(cloth), 0), Part(np.array(stripe), 2)]


def _brush() -> list[Part]:
    bristles = [Part(_box(0.055, y, 0.15, y + 0.028), 2) for y in (0.06, 0.11, 0.16, 0.21, 0.26)]
    return [Part(_box(-0.03, -0.24, 0.03, 0.06), 0), Part(_box(-0.045, 0.04, 0.058, 0.31), 0), *bristles]


OBJECTS: dict[str, list[Part]] = {
    "cup": _cup(),
    "bottle": _bottle(),
    "phone": _phone(),
    "microphone": _microphone(),
    "banana": _banana(),
    "hammer": _hammer(),
    "racket": _racket(),
    "umbrella": _umbrella(),
    "ball": _ball(),
    "book": _book(),
    "flag": _flag(),
    "brush": _brush(),
}


@dataclass(frozen=True)
class Placement:
    """Where an object is in a frame: the pixel of its grip, its turn, and the pixels of a metre there."""

    grip: np.ndarray  # [2]
    angle: float  # radians clockwise from upright
    pixels: float
    flip: bool

    def transform(self, points: np.ndarray, look: Look) -> np.ndarray:
        """Points [P, 2] in metres around the grip, y up, to pixels; image y points down."""
        scale = self.pixels * look.scale
        c, s = np.cos(self.angle) * scale, np.sin(self.angle) * scale
        matrix = np.array([[-c if self.flip else c, s], [-s if self.flip else s, -c]])
        return points @ matrix.T + self.grip


def draw_object(image: np.ndarray, name: str, look: Look, place: Placement, light: float = 1.0) -> None:
    """Draw an object in place on an RGB image."""
    width = max(1, round(0.016 * place.pixels))
    for part in OBJECTS[name]:
        points = np.round(place.transform(part.points, look) * (1 << SHIFT)).astype(np.int32)
        r, g, b = np.clip(look.colours[part.role] * light, 0, 255)
        cv2.fillPoly(image, [points], (float(r), float(g), float(b)), cv2.LINE_AA, SHIFT)
        cv2.polylines(image, [points], True, OUTLINE, width, cv2.LINE_AA, SHIFT)


def object_box(name: str, look: Look, place: Placement) -> np.ndarray:
    """The object's box (x, y, w, h) in pixels, float32."""
    points = place.transform(np.concatenate([part.points for part in OBJECTS[name]]), look)
    low, high = points.min(0), points.max(0)
    return np.concatenate([low, high - low]).astype(np.float32)
