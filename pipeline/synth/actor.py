"""A person who moves and may hold something, as a camera sees it; drawn at any moment of the clip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.synth.body import LEFT_HAND, Camera, solve
from pipeline.synth.figure import Subject, draw_figure
from pipeline.synth.motions import Targets
from pipeline.synth.objects import Look, Placement, draw_object, object_box


@dataclass(frozen=True)
class Grip:
    """How an object sits in the hand: drawn without regard to which object it is."""

    tilt: float
    follow: float  # 0: stays upright, 1: turns with the forearm
    flip: bool

    @staticmethod
    def draw(rng: np.random.Generator) -> Grip:
        return Grip(float(rng.normal(0, 0.22)), float(rng.uniform(0.2, 0.6)), bool(rng.random() < 0.5))


@dataclass(frozen=True)
class Holding:
    """What is held, in which hand, and until which share of the clip (None: throughout)."""

    name: str  # a key of OBJECTS, or "none"
    hand: int
    look: Look
    grip: Grip
    release: float | None = None


@dataclass(frozen=True)
class Actor:
    """A person over F frames, projected."""

    subject: Subject
    holding: Holding
    pixels: np.ndarray  # [F, 22, 2]
    depths: np.ndarray  # [F, 22] metres
    per_metre: np.ndarray  # [F, 22] pixels of a metre at each joint
    at: np.ndarray  # [F, 2] the pixel of the held object
    angle: np.ndarray  # [F]

    @staticmethod
    def stage(
        targets: Targets, subject: Subject, camera: Camera, holding: Holding, place: tuple[float, float] = (0.0, 0.0)
    ) -> Actor:
        """A person who does `targets`, `place` metres beside and nearer than where the camera looks."""
        pixels, depths = camera.project(solve(targets, subject.body) + camera.beside(*place))
        at, angle = _held_path(pixels, holding, camera)
        return Actor(subject, holding, pixels, depths, camera.focal / depths, at, angle)

    def object_box(self, frame: int) -> np.ndarray:
        """The held object's box (x, y, w, h) in pixels, float32; zero where nothing is held."""
        if self.holding.name == "none":
            return np.zeros(4, np.float32)
        return object_box(self.holding.name, self.holding.look, self._placement(frame))

    def draw(self, image: np.ndarray, moment: float, focal: float, light: float) -> None:
        """Draw the person as it is at `moment`, in frames."""
        depths = between(self.depths, moment)
        things: list[tuple[float, Callable[[], None]]] = []
        if self.holding.name != "none":
            # A hand closes around what it holds: the object lies just behind the fingers.
            depth = float(depths[LEFT_HAND + self.holding.hand]) + 0.005
            place = self._placement(moment)
            things.append((depth, partial(draw_object, image, self.holding.name, self.holding.look, place, light)))
        draw_figure(image, self.subject, between(self.pixels, moment), depths, focal, light, things)

    def _placement(self, moment: float) -> Placement:
        size = float(between(self.per_metre, moment)[LEFT_HAND + self.holding.hand])
        return Placement(between(self.at, moment), float(between(self.angle, moment)), size, self.holding.grip.flip)


def between(values: np.ndarray, moment: float) -> np.ndarray:
    """`values` [F, ...] at a moment between two frames, linearly; exactly those of a frame at a whole moment."""
    frame = int(moment)
    weight = moment - frame
    return values[frame] if weight == 0 else values[frame] * (1 - weight) + values[frame + 1] * weight


def _held_path(pixels: np.ndarray, holding: Holding, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Pixel [F, 2] and angle [F] of the held object; after the release it flies."""
    frames, hand = len(pixels), holding.hand
    wrist, elbow = pixels[:, 9 + hand], pixels[:, 7 + hand]
    forearm = wrist - elbow
    # Unwrapped, or the object would spin when the forearm passes straight down.
    direction = np.unwrap(np.arctan2(forearm[:, 0], -forearm[:, 1]))
    direction -= 2 * np.pi * np.round(direction.mean() / (2 * np.pi))
    angle = holding.grip.tilt + holding.grip.follow * np.clip(direction, -2.2, 2.2)
    at = pixels[:, LEFT_HAND + hand].copy()
    if holding.release is not None:
        first = min(int(holding.release * (frames - 1)) + 1, frames - 1)
        speed = np.clip(at[first - 1] - at[first - 2], -14, 14) + np.array([np.sin(camera.yaw) * -6.0, -1.0])
        steps = np.arange(1, frames - first + 1)[:, None]
        at[first:] = at[first - 1] + speed * steps + np.array([0.0, 0.45]) * steps**2
        angle[first:] = angle[first - 1] + 0.25 * steps[:, 0]
    return at, angle
