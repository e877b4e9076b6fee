"""One clip: who does what with which object, before which camera and background; rendered with exact ground truth.

Every random choice has its own seed, so that twins (equal in everything but the held object) and counterfactual swaps
are made by changing one field of `ClipSpec`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from pipeline.synth.actor import Actor, Grip, Holding, between
from pipeline.synth.body import Camera
from pipeline.synth.disturb import darken, foreground
from pipeline.synth.figure import Subject
from pipeline.synth.knobs import AS_IT_IS, Knobs
from pipeline.synth.motions import MOTIONS, THROW_RELEASE, Style, perform
from pipeline.synth.objects import OBJECTS, Look, Placement, draw_object

SIZE, FRAMES, FPS = 256, 32, 16
MARGIN = 8  # the background is rendered larger by this, so that the camera can shake
SUBFRAMES = 8  # in a frame interval: pictures that an open shutter averages
BEHIND = 0.5  # metres; a bystander never hides the person


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


@dataclass
class Rendered:
    """A rendered clip with exact ground truth, all in pixels of the frame."""

    frames: np.ndarray  # [F, H, W, 3] uint8 RGB
    keypoints: np.ndarray  # [F, 17, 2] float32
    visible: np.ndarray  # [F, 17] bool: in the frame and not behind the trunk, the head or a thing in the foreground
    boxes: np.ndarray  # [F, 4] float32, x y w h of the joints: says nothing of the object
    object_boxes: np.ndarray  # [F, 4] float32; zero where nothing is held
    subject: Subject
    camera: Camera


def stage(spec: ClipSpec, frames: int = FRAMES, size: int = SIZE, zoom: float = 1.0) -> tuple[Actor, Camera]:
    """The person of a clip and the camera: all that its skeleton depends on. Deterministic in `spec`."""
    style = Style.draw(_stream(spec.trajectory, 2))
    camera = Camera.draw(_stream(spec.camera, 3), size, frames)
    camera = replace(camera, focal=camera.focal * zoom)
    look_stream = _stream(spec.look, 4)
    look, grip = Look.draw(look_stream), Grip.draw(look_stream)
    release = style.delay + THROW_RELEASE * (1 - style.delay) if spec.motion == "throw" else None
    holding = Holding(spec.object, style.hand, look, grip, release)
    subject = Subject.draw(_stream(spec.subject, 1))
    return Actor.stage(perform(spec.motion, style, frames), subject, camera, holding), camera


def render_clip(spec: ClipSpec, frames: int = FRAMES, size: int = SIZE, knobs: Knobs = AS_IT_IS) -> Rendered:
    """Render a clip. Deterministic in `spec` and `knobs`, of which `crf` and `redraw` are the caller's."""
    actor, camera = stage(spec, frames, size, knobs.zoom)
    background = draw_background(_stream(spec.background, 5), _stream(spec.distractors, 6), size + 2 * MARGIN)
    light = float(_stream(spec.background, 7).uniform(0.82, 1.08))
    others = []
    if knobs.bystander is not None:
        others.append(_bystander(_stream(spec.trajectory, 21), camera, knobs.bystander, frames))
    rendered = render(actor, camera, background, light, size, others, knobs.exposure)
    if knobs.occlusion:
        _occlude(rendered, _stream(spec.trajectory, 22), knobs.occlusion, size)
    if knobs.gain != 1:
        rendered.frames = darken(_stream(spec.trajectory, 23), rendered.frames, knobs.gain)
    return rendered


def _stream(seed: int, kind: int) -> np.random.Generator:
    return np.random.default_rng([seed, kind])


def render(
    actor: Actor,
    camera: Camera,
    background: np.ndarray,
    light: float = 1.0,
    size: int = SIZE,
    others: Sequence[Actor] = (),
    exposure: float = 0.0,
) -> Rendered:
    """Render one person over F frames, and `others` behind; each frame is what `exposure` frame intervals show."""
    frames = len(actor.pixels)
    images = np.empty((frames, size, size, 3), np.uint8)

    def picture(moment: float) -> np.ndarray:
        dx, dy = (int(v) for v in np.round(between(camera.jitter, moment)))
        image = background[MARGIN - dy : MARGIN - dy + size, MARGIN - dx : MARGIN - dx + size].copy()
        for person in (*others, actor):
            person.draw(image, moment, camera.focal, light)
        return image

    for f in range(frames):
        if exposure:
            pictures = math.ceil(exposure * SUBFRAMES)
            moments = f + exposure * ((np.arange(pictures) + 0.5) / pictures - 0.5)
            images[f] = np.mean([picture(moment) for moment in np.clip(moments, 0, frames - 1)], 0).round()
        else:
            images[f] = picture(f)
    keypoints = actor.pixels[:, :17].astype(np.float32)
    low, high = keypoints.min(1), keypoints.max(1)
    return Rendered(
        frames=images,
        keypoints=keypoints,
        visible=_visible(actor.pixels, actor.depths, size),
        boxes=np.concatenate([low, high - low], 1),
        object_boxes=np.stack([actor.object_box(f) for f in range(frames)]),
        subject=actor.subject,
        camera=camera,
    )


def _bystander(rng: np.random.Generator, camera: Camera, aside: float, frames: int) -> Actor:
    """Somebody else who does anything with anything, to the left or to the right."""
    style, look, grip = Style.draw(rng), Look.draw(rng), Grip.draw(rng)
    targets = perform(str(rng.choice(list(MOTIONS))), style, frames)
    holding = Holding(str(rng.choice([*OBJECTS, "none"])), style.hand, look, grip)
    return Actor.stage(targets, Subject.draw(rng), camera, holding, (float(rng.choice([-1, 1])) * aside, -BEHIND))


def _occlude(rendered: Rendered, rng: np.random.Generator, share: float, size: int) -> None:
    """Put things in front of the person, in place; they stand still in the room. Joints behind them are not visible."""
    low, high = rendered.boxes[:, :2].min(0), (rendered.boxes[:, :2] + rendered.boxes[:, 2:]).max(0)
    things, hides = foreground(rng, size + 2 * MARGIN, np.concatenate([low + MARGIN, high - low]), share)
    for f, image in enumerate(rendered.frames):
        dx, dy = (int(v) for v in rendered.camera.jitter[f])
        window = np.s_[MARGIN - dy : MARGIN - dy + size, MARGIN - dx : MARGIN - dx + size]
        image[hides[window]] = things[window][hides[window]]
        columns, rows = np.clip(rendered.keypoints[f].astype(int), 0, size - 1).T
        rendered.visible[f] &= ~hides[window][rows, columns]


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
    for name, look, place in distracting(distractors, size, names):
        draw_object(image, name, look, place)
    return cv2.GaussianBlur(image, (3, 3), 0) if rng.random() < 0.4 else image


def distracting(
    rng: np.random.Generator, size: int, names: tuple[str, ...] = tuple(OBJECTS)
) -> list[tuple[str, Look, Placement]]:
    """One to three things that nobody holds: which, how they look, where they lie."""
    things = []
    for _ in range(rng.integers(1, 4)):
        grip = np.array([rng.uniform(0.05, 0.95) * size, rng.uniform(0.35, 0.95) * size])
        look, angle = Look.draw(rng), float(rng.uniform(-1.6, 1.6))
        place = Placement(grip, angle, float(rng.uniform(0.28, 0.46) * size), bool(rng.random() < 0.5))
        things.append((names[rng.integers(len(names))], look, place))
    return things
