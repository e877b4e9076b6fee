"""One clip: who does what with which object, before which camera and background; rendered with exact ground truth.

Every random choice has its own seed, so that twins (equal in everything but the held object) and counterfactual swaps
are made by changing one field of `ClipSpec`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np

from pipeline.synth.body import LEFT_HAND, Camera, solve
from pipeline.synth.figure import Subject, draw_figure
from pipeline.synth.motions import THROW_RELEASE, Style, Targets, perform
from pipeline.synth.objects import OBJECTS, Look, Placement, draw_object, object_box

SIZE, FRAMES, FPS = 256, 32, 16
MARGIN = 8  # the background is rendered larger by this, so that the camera can shake


@dataclass(frozen=True)
class ClipSpec:
    """Everything that determines a clip. Seeds are independent streams."""

    motion: str
    object: str  # a key of OBJECTS, or "none"
    subject: int
    trajectory: int
    camera: int
    background: int
    look: int  # colours and size of the held object, its grip
    distractors: int

    def with_object(self, name: str) -> ClipSpec:
        """The twin that holds another object."""
        return replace(self, object=name)


@dataclass
class Rendered:
    """A rendered clip with exact ground truth, all in pixels of the frame."""

    frames: np.ndarray  # [F, H, W, 3] uint8 RGB
    keypoints: np.ndarray  # [F, 17, 2] float32
    visible: np.ndarray  # [F, 17] bool: in the frame and not behind the trunk or the head
    boxes: np.ndarray  # [F, 4] float32, x y w h of the joints: says nothing of the object
    object_boxes: np.ndarray  # [F, 4] float32; zero where nothing is held


@dataclass(frozen=True)
class Grip:
    """How an object sits in the hand: drawn without regard to which object it is."""

    tilt: float
    follow: float  # 0: stays upright, 1: turns with the forearm
    flip: bool

    @staticmethod
    def draw(rng: np.random.Generator) -> Grip:
        return Grip(float(rng.normal(0, 0.22)), float(rng.uniform(0.2, 0.6)), bool(rng.random() < 0.5))


def render_clip(spec: ClipSpec, frames: int = FRAMES, size: int = SIZE) -> Rendered:
    """Render a clip. Deterministic in `spec`."""
    stream = lambda seed, kind: np.random.default_rng([seed, kind])  # noqa: E731
    subject = Subject.draw(stream(spec.subject, 1))
    style = Style.draw(stream(spec.trajectory, 2))
    camera = Camera.draw(stream(spec.camera, 3), size, frames)
    grip_stream = stream(spec.look, 4)
    look, grip = Look.draw(grip_stream), Grip.draw(grip_stream)
    background = draw_background(stream(spec.background, 5), stream(spec.distractors, 6), size + 2 * MARGIN)
    targets = perform(spec.motion, style, frames)
    release = style.delay + THROW_RELEASE * (1 - style.delay) if spec.motion == "throw" else None
    light = float(stream(spec.background, 7).uniform(0.82, 1.08))
    return render(targets, subject, camera, background, spec.object, style.hand, look, grip, light, release, size)


def render(
    targets: Targets,
    subject: Subject,
    camera: Camera,
    background: np.ndarray,
    held: str,
    hand: int,
    look: Look,
    grip: Grip,
    light: float = 1.0,
    release: float | None = None,
    size: int = SIZE,
) -> Rendered:
    """Render one person over F frames; `hand` holds `held`, until the share `release` of the clip if one is given."""
    joints = solve(targets, subject.body)
    pixels, depths = camera.project(joints)  # [F, 22, 2], [F, 22]
    frames = len(joints)
    at, angle = _held_path(pixels, hand, grip, frames, release, camera, depths)
    images = np.empty((frames, size, size, 3), np.uint8)
    boxes = np.zeros((frames, 4), np.float32)
    for f in range(frames):
        dx, dy = (int(v) for v in camera.jitter[f])
        image = background[MARGIN - dy : MARGIN - dy + size, MARGIN - dx : MARGIN - dx + size].copy()
        things: list[tuple[float, Callable[[], None]]] = []
        if held != "none":
            per_metre = camera.focal / depths[f, LEFT_HAND + hand]
            place = Placement(at[f], float(angle[f]), float(per_metre), grip.flip)
            boxes[f] = object_box(held, look, place)
            # A hand closes around what it holds: the object lies just behind the fingers.
            depth = float(depths[f, LEFT_HAND + hand]) + 0.005
            things.append((depth, partial(draw_object, image, held, look, place, light)))
        draw_figure(image, subject, pixels[f], depths[f], camera.focal, light, things)
        images[f] = image
    keypoints = pixels[:, :17].astype(np.float32)
    low, high = keypoints.min(1), keypoints.max(1)
    visible = _visible(pixels, depths, size)
    return Rendered(images, keypoints, visible, np.concatenate([low, high - low], 1), boxes)


def _held_path(
    pixels: np.ndarray, hand: int, grip: Grip, frames: int, release: float | None, camera: Camera, depths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pixel [F, 2] and angle [F] of the held object; after the release it flies."""
    wrist, elbow = pixels[:, 9 + hand], pixels[:, 7 + hand]
    forearm = wrist - elbow
    # Unwrapped, or the object would spin when the forearm passes straight down.
    direction = np.unwrap(np.arctan2(forearm[:, 0], -forearm[:, 1]))
    direction -= 2 * np.pi * np.round(direction.mean() / (2 * np.pi))
    angle = grip.tilt + grip.follow * np.clip(direction, -2.2, 2.2)
    at = pixels[:, LEFT_HAND + hand].copy()
    if release is not None:
        first = min(int(release * (frames - 1)) + 1, frames - 1)
        speed = np.clip(at[first - 1] - at[first - 2], -14, 14) + np.array([np.sin(camera.yaw) * -6.0, -1.0])
        steps = np.arange(1, frames - first + 1)[:, None]
        at[first:] = at[first - 1] + speed * steps + np.array([0.0, 0.45]) * steps**2
        angle[first:] = angle[first - 1] + 0.25 * steps[:, 0]
    return at, angle


def _visible(pixels: np.ndarray, depths: np.ndarray, size: int) -> np.ndarray:
    """COCO's visibility: inside the frame, and not behind the trunk (limbs) or the head (face)."""
    inside = ((pixels[:, :17] >= 0) & (pixels[:, :17] < size)).all(-1)
    corners = pixels[:, [5, 6, 11, 12]]
    low, high = corners.min(1), corners.max(1)
    over = ((pixels[:, :17] > low[:, None]) & (pixels[:, :17] < high[:, None])).all(-1)
    behind = depths[:, :17] > depths[:, [5, 6, 11, 12]].mean(1)[:, None] + 0.08
    hidden = over & behind
    hidden[:, [0, 1, 2, 5, 6, 11, 12]] = False
    hidden[:, :5] |= depths[:, :5] > depths[:, 19:20] + 0.03  # the far side of the head
    return inside & ~hidden


def draw_background(
    rng: np.random.Generator, distractors: np.random.Generator, size: int, names: tuple[str, ...] = tuple(OBJECTS)
) -> np.ndarray:
    """A room [size, size, 3] uint8: wall, floor, clutter, texture; and things (`names`) that nobody holds."""
    wall, floor = rng.uniform(60, 235, 3), rng.uniform(40, 200, 3)
    horizon = int(size * rng.uniform(0.60, 0.80))
    shade = np.linspace(rng.uniform(0.75, 1.0), rng.uniform(0.9, 1.15), size)[None, :, None]
    image = np.empty((size, size, 3), np.float32)
    image[:horizon] = wall * shade
    image[horizon:] = floor * shade
    coarse = cv2.resize(
        rng.normal(0, rng.uniform(4, 16), (9, 9, 3)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC
    )
    fine = cv2.resize(rng.normal(0, rng.uniform(2, 10), (64, 64, 1)).astype(np.float32), (size, size))[..., None]
    image = np.clip(image + coarse + fine, 0, 255).astype(np.uint8)
    for _ in range(rng.integers(3, 9)):  # shelves, pictures, furniture
        x, y = rng.integers(0, size, 2)
        w, h = rng.integers(size // 12, size // 3, 2)
        colour = tuple(float(v) for v in rng.uniform(30, 240, 3))
        kind = rng.integers(3)
        if kind == 0:
            cv2.rectangle(image, (int(x), int(y)), (int(x + w), int(y + h)), colour, -1)
            cv2.rectangle(image, (int(x), int(y)), (int(x + w), int(y + h)), tuple(c * 0.6 for c in colour), 2)
        elif kind == 1:
            cv2.ellipse(image, (int(x), int(y)), (int(w // 2), int(h // 2)), 0, 0, 360, colour, -1, cv2.LINE_AA)
        else:
            cv2.line(
                image,
                (int(x), int(y)),
                (int(x + w), int(y + h - size // 6)),
                colour,
                int(rng.integers(1, 6)),
                cv2.LINE_AA,
            )
    for _ in range(distractors.integers(1, 4)):
        grip = np.array([distractors.uniform(0.05, 0.95) * size, distractors.uniform(0.35, 0.95) * size])
        look = Look.draw(distractors)
        angle = float(distractors.uniform(-1.6, 1.6))
        place = Placement(grip, angle, float(distractors.uniform(0.28, 0.46) * size), bool(distractors.random() < 0.5))
        draw_object(image, names[distractors.integers(len(names))], look, place)
    return cv2.GaussianBlur(image, (3, 3), 0) if rng.random() < 0.4 else image
