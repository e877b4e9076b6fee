"""Stills that a pose model is tuned on: random poses, random objects in random hands, no action.

Seeds are apart from those of clips, and the subjects, clothes and backgrounds of the held-out stills are apart from
those of the training stills, so every frame that the tuned model will be used on is unseen by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.synth.actor import Actor, Grip, Holding
from pipeline.synth.body import Camera
from pipeline.synth.figure import PATTERNS, Subject
from pipeline.synth.motions import CROWN_Y, LEFT, RIGHT, Targets, standing
from pipeline.synth.objects import OBJECTS, Look
from pipeline.synth.scene import MARGIN, SIZE, draw_background, render

TRAIN_STREAM, HELD_OUT_STREAM = 7001, 7002
PER_BACKGROUND = 4  # stills that share one background, which is what makes them cheap
EMPTY_HANDS = "empty hands"
PLACES = (
    "above the head", "in front of the face", "beside the head", "stretched out in front", "in front of the chest",
    "out to the side", "at the hip",
)  # fmt: skip
BOTH = " with both hands"


@dataclass
class Still:
    """One frame with exact ground truth. `held` is a key of OBJECTS or "none"."""

    image: np.ndarray  # [SIZE, SIZE, 3] uint8 RGB
    keypoints: np.ndarray  # [17, 2] float32
    visible: np.ndarray  # [17] bool
    box: np.ndarray  # [4] x y w h
    held: str
    caption: str


def stills(stream: int, group: int, objects: tuple[str, ...] = tuple(OBJECTS)) -> Iterator[Still]:
    """The PER_BACKGROUND stills of one group of a stream; deterministic in (stream, group, objects)."""
    rng = np.random.default_rng([stream, group])
    background = draw_background(rng, rng, SIZE + 2 * MARGIN, objects)
    for _ in range(PER_BACKGROUND):
        subject = Subject.draw(rng)
        hand = int(rng.integers(2))
        targets, both = _random_pose(rng, hand)
        held = str(objects[rng.integers(len(objects))]) if rng.random() < 0.85 else "none"
        camera = Camera.draw(rng, SIZE, 1)
        look, grip = Look.draw(rng), Grip.draw(rng)
        # A still has no path to follow: any tilt that a motion can reach.
        grip = Grip(grip.tilt + float(rng.uniform(-1.2, 1.2)), grip.follow, grip.flip)
        turned = background[:, :: int(rng.choice([-1, 1]))]
        actor = Actor.stage(targets, subject, camera, Holding(held, hand, look, grip))
        rendered = render(actor, camera, turned, float(rng.uniform(0.8, 1.1)))
        where = _place_of(targets.hands[0, hand], both)
        shirt = f"a person in a {subject.pattern} shirt"
        caption = f"{shirt} with {EMPTY_HANDS}" if held == "none" else f"{shirt} holds {phrase(held)} {where}"
        yield Still(rendered.frames[0], rendered.keypoints[0], rendered.visible[0], rendered.boxes[0], held, caption)


def phrase(name: str) -> str:
    """What a caption calls an object: "an umbrella"; "empty hands" for "none"."""
    if name == "none":
        return EMPTY_HANDS
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def every_caption(objects: tuple[str, ...]) -> list[str]:
    """Every caption that stills with these objects can have, in a fixed order."""
    places = [f"{place}{hands}" for place in PLACES for hands in ("", BOTH)]
    held = [f"holds {phrase(name)} {place}" for name in objects for place in places]
    return [f"a person in a {pattern} shirt {what}" for pattern in PATTERNS for what in (f"with {EMPTY_HANDS}", *held)]


def _random_pose(rng: np.random.Generator, hand: int) -> tuple[Targets, bool]:
    """Random limbs: hands anywhere in reach, legs standing, stepping, kicking or crouching, the trunk leaning."""
    g = standing(1)
    for side, sign in ((LEFT, 1.0), (RIGHT, -1.0)):
        if side == hand or rng.random() < 0.45:
            g.hands[0, side] = _random_hand(rng) * np.array([sign, 1.0, 1.0])
        else:
            g.hands[0, side] += rng.normal(0, 0.05, 3)
    both = bool(rng.random() < 0.2)
    if both:
        g.hands[0, 1 - hand] = (
            g.hands[0, hand] * np.array([-1.0, 1.0, 1.0])
            if rng.random() < 0.5
            else g.hands[0, hand] + rng.normal(0, 0.05, 3)
        )
    legs = rng.random()
    if legs < 0.35:  # a step
        stride = rng.normal(0, 0.2)
        g.feet[0, LEFT, 2] += stride
        g.feet[0, RIGHT, 2] -= stride
    elif legs < 0.5:  # a kick or a raised knee
        g.feet[0, rng.integers(2)] += [0.0, rng.uniform(0, 0.7), rng.uniform(-0.3, 0.8)]
    elif legs < 0.6:  # a crouch
        g.root[0, 1] -= rng.uniform(0.05, 0.35)
    g.feet[0, :, 0] *= rng.uniform(0.7, 2.0)
    g.lean += rng.normal(0.05, 0.12) if rng.random() < 0.85 else rng.uniform(0.3, 1.3)
    g.twist += rng.normal(0, 0.3)
    g.nod += rng.normal(0, 0.2)
    return g, both


def _random_hand(rng: np.random.Generator) -> np.ndarray:
    """A place that a hand can reach, for the left side: near the head, overhead, in front, at the side, behind."""
    zone = rng.random()
    if zone < 0.25:
        return np.array([rng.normal(0.12, 0.1), rng.uniform(1.35, 1.72), rng.uniform(0.0, 0.35)])
    if zone < 0.5:
        return np.array([rng.normal(0.18, 0.2), rng.uniform(1.65, 2.05), rng.uniform(-0.25, 0.45)])
    if zone < 0.8:
        return np.array([rng.normal(0.10, 0.18), rng.uniform(0.85, 1.5), rng.uniform(0.2, 0.65)])
    return np.array([rng.normal(0.38, 0.15), rng.uniform(0.8, 1.8), rng.uniform(-0.25, 0.3)])


def _place_of(hand: np.ndarray, both: bool) -> str:
    """Where a hand is, in words: one of PLACES."""
    x, y, z = abs(hand[0]), hand[1], hand[2]
    if y > CROWN_Y:
        place = 0
    elif y > 1.38:
        place = 1 if x < 0.17 and z > 0.1 else 2
    elif z > 0.42:
        place = 3
    elif y > 1.05:
        place = 4 if x < 0.3 else 5
    else:
        place = 6
    return PLACES[place] + (BOTH if both else "")


def training_crop(still: Still, rng: np.random.Generator, crop_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An augmented crop [h, w, 3] of a still and its keypoints [17, 2] in crop pixels.

    Jitters the box as a detector would, rotates a little, and imitates compression and a soft lens.
    """
    x, y, w, h = still.box
    centre = np.array([x + w / 2, y + h / 2]) + rng.normal(0, 0.05, 2) * np.array([w, h])
    width, height = crop_size
    grown = max(w, h * width / height) * 1.25 * np.exp(rng.normal(0, 0.12))
    angle = rng.normal(0, 12) if rng.random() < 0.5 else 0.0
    matrix = cv2.getRotationMatrix2D((float(centre[0]), float(centre[1])), float(angle), width / grown)
    matrix[:, 2] += np.array([width / 2, height / 2]) - centre
    image = still.image
    if rng.random() < 0.6:
        _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 90))])
        image = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))
    crop = cv2.warpAffine(image, matrix, crop_size, flags=cv2.INTER_LINEAR)
    if rng.random() < 0.15:
        crop = cv2.GaussianBlur(crop, (0, 0), float(rng.uniform(0.5, 1.4)))
    if rng.random() < 0.5:
        crop = cv2.convertScaleAbs(crop, alpha=float(rng.uniform(0.75, 1.2)), beta=float(rng.uniform(-18, 18)))
    keypoints = (still.keypoints @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    return crop, keypoints
