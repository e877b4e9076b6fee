"""How a subject looks and is drawn: shaded limbs, trunk with patterned clothes, a head with hair and a face."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.synth.body import HEAD, LEFT_HAND, NECK, Proportions
from pipeline.synth.objects import OUTLINE, SHIFT

PATTERNS = ("plain", "striped", "checked", "dotted")
SKIN = np.array([[244, 208, 177], [224, 172, 105], [198, 134, 66], [141, 85, 36], [92, 56, 28], [255, 219, 190]], float)
HAIR = np.array([[30, 24, 20], [80, 50, 28], [150, 104, 52], [205, 175, 110], [120, 120, 122], [150, 60, 30]], float)


@dataclass(frozen=True)
class Subject:
    """One person: body, skin, hair and clothes."""

    body: Proportions
    skin: np.ndarray
    hair: np.ndarray
    top: np.ndarray
    accent: np.ndarray
    trousers: np.ndarray
    shoes: np.ndarray
    pattern: str
    sleeves: bool
    shorts: bool
    long_hair: bool

    @staticmethod
    def draw(rng: np.random.Generator) -> Subject:
        return Subject(
            body=Proportions.draw(rng),
            skin=SKIN[rng.integers(len(SKIN))] * rng.uniform(0.9, 1.05),
            hair=HAIR[rng.integers(len(HAIR))] * rng.uniform(0.8, 1.1),
            top=rng.uniform(30, 235, 3),
            accent=rng.uniform(20, 245, 3),
            trousers=rng.uniform(25, 190, 3),
            shoes=rng.uniform(15, 230, 3),
            pattern=PATTERNS[rng.integers(len(PATTERNS))],
            sleeves=bool(rng.random() < 0.5),
            shorts=bool(rng.random() < 0.25),
            long_hair=bool(rng.random() < 0.4),
        )


def draw_figure(
    image: np.ndarray,
    subject: Subject,
    pixels: np.ndarray,
    depths: np.ndarray,
    focal: float,
    light: float,
    held: list[tuple[float, Callable[[], None]]],
) -> None:
    """Draw one frame's person in place, far things first.

    `pixels` [22, 2] and `depths` [22] are the projected joints; `held` are further things to draw, each with its depth.
    """
    scale = focal / depths  # pixels of a metre at each joint

    def limb(a: int, b: int, colour: np.ndarray, radius: float) -> Callable[[], None]:
        width = 2 * radius * (scale[a] + scale[b]) / 2
        return lambda: _capsule(image, pixels[a], pixels[b], colour * light, width)

    def blob(centre: np.ndarray, radius: float, colour: np.ndarray) -> Callable[[], None]:
        return lambda: _blob(image, centre, radius, colour * light)

    lower_arm = subject.top if subject.sleeves else subject.skin
    lower_leg = subject.skin if subject.shorts else subject.trousers
    things: list[tuple[float, Callable[[], None]]] = list(held)
    for side in (0, 1):
        shoulder, elbow, wrist, hip, knee, ankle = (joint + side for joint in (5, 7, 9, 11, 13, 15))
        hand = LEFT_HAND + side
        things += [
            (_mean(depths, hip, knee), limb(hip, knee, subject.trousers, 0.072)),
            (_mean(depths, knee, ankle), limb(knee, ankle, lower_leg, 0.052)),
            (float(depths[ankle]), blob(pixels[ankle] + [0, 0.03 * scale[ankle]], 0.065 * scale[ankle], subject.shoes)),
            (_mean(depths, shoulder, elbow), limb(shoulder, elbow, subject.top, 0.054)),
            (_mean(depths, elbow, wrist), limb(elbow, wrist, lower_arm, 0.040)),
            (float(depths[hand]) - 0.01, blob(pixels[[hand, hand, wrist]].mean(0), 0.055 * scale[wrist], subject.skin)),
        ]
    trunk_depth = depths[[5, 6, 11, 12]].mean()
    things.append((trunk_depth, lambda: _trunk(image, subject, pixels, scale, light)))
    things.append((depths[HEAD], lambda: _head(image, subject, pixels, depths, scale, light)))
    for _, draw in sorted(things, key=lambda thing: -thing[0]):
        draw()


def _mean(depths: np.ndarray, a: int, b: int) -> float:
    return float(depths[a] + depths[b]) / 2


def _fixed(point: np.ndarray) -> tuple[int, int]:
    x, y = point.tolist()  # plain numbers: this is called for every stroke
    return round(x * (1 << SHIFT)), round(y * (1 << SHIFT))


def _rgb(colour: np.ndarray) -> tuple[float, float, float]:
    r, g, b = (min(max(value, 0.0), 255.0) for value in colour.tolist())
    return r, g, b


def _capsule(image: np.ndarray, a: np.ndarray, b: np.ndarray, colour: np.ndarray, width: float) -> None:
    """A limb: dark rim, body, and a lit stripe towards the light, which comes from above left."""
    thickness = max(2, round(width))
    start, stop = _fixed(a), _fixed(b)
    cv2.line(image, start, stop, _rgb(colour * 0.5), thickness + 2, cv2.LINE_AA, SHIFT)
    cv2.line(image, start, stop, _rgb(colour), thickness, cv2.LINE_AA, SHIFT)
    lit = np.array([-0.16, -0.16]) * width
    cv2.line(
        image, _fixed(a + lit), _fixed(b + lit), _rgb(colour * 1.18 + 8), max(1, thickness // 3), cv2.LINE_AA, SHIFT
    )


def _blob(image: np.ndarray, centre: np.ndarray, radius: float, colour: np.ndarray) -> None:
    size = max(1, round(radius * (1 << SHIFT)))
    cv2.circle(image, _fixed(centre), size + (1 << SHIFT) // 2, _rgb(colour * 0.5), -1, cv2.LINE_AA, SHIFT)
    cv2.circle(image, _fixed(centre), size, _rgb(colour), -1, cv2.LINE_AA, SHIFT)


def _trunk(image: np.ndarray, subject: Subject, pixels: np.ndarray, scale: np.ndarray, light: float) -> None:
    left, right, left_hip, right_hip = pixels[5], pixels[6], pixels[11], pixels[12]
    # A trunk has depth: seen from the side it stays as wide as a chest.
    across, across_hip = left - right, left_hip - right_hip
    width, width_hip = 0.22 * scale[NECK], 0.20 * scale[NECK]
    across = across * max(1.0, width / max(np.linalg.norm(across), 1e-6)) / 2
    across_hip = across_hip * max(1.0, width_hip / max(np.linalg.norm(across_hip), 1e-6)) / 2
    top, bottom = (left + right) / 2, (left_hip + right_hip) / 2
    down = bottom - top
    corners = np.stack(
        [
            top - across * 1.08,
            top + across * 1.08,
            bottom + across_hip * 1.15 + down * 0.06,
            bottom - across_hip * 1.15 + down * 0.06,
        ]
    )
    points = np.round(corners * (1 << SHIFT)).astype(np.int32)
    colour = subject.top * light
    cv2.line(
        image,
        _fixed(pixels[NECK]),
        _fixed(pixels[HEAD]),
        _rgb(subject.skin * light * 0.85),
        max(2, round(0.09 * scale[NECK])),
        cv2.LINE_AA,
        SHIFT,
    )
    cv2.polylines(image, [points], True, _rgb(colour * 0.5), max(2, round(0.09 * scale[NECK])), cv2.LINE_AA, SHIFT)
    cv2.polylines(image, [points], True, _rgb(colour), max(1, round(0.07 * scale[NECK])), cv2.LINE_AA, SHIFT)
    cv2.fillPoly(image, [points], _rgb(colour), cv2.LINE_AA, SHIFT)
    accent, thin = _rgb(subject.accent * light), max(1, round(0.035 * scale[NECK]))
    at = lambda u, v: (corners[0] * (1 - u) + corners[1] * u) * (1 - v) + (corners[3] * (1 - u) + corners[2] * u) * v  # noqa: E731
    if subject.pattern in ("striped", "checked"):
        for v in (0.12, 0.32, 0.52, 0.72, 0.92):
            cv2.line(image, _fixed(at(0.0, v)), _fixed(at(1.0, v)), accent, thin, cv2.LINE_AA, SHIFT)
    if subject.pattern == "checked":
        for u in (0.2, 0.5, 0.8):
            cv2.line(image, _fixed(at(u, 0.0)), _fixed(at(u, 1.0)), accent, thin, cv2.LINE_AA, SHIFT)
    if subject.pattern == "dotted":
        for v in (0.2, 0.5, 0.8):
            for u in (0.2, 0.5, 0.8):
                cv2.circle(image, _fixed(at(u, v)), thin * (1 << SHIFT), accent, -1, cv2.LINE_AA, SHIFT)


def _head(
    image: np.ndarray, subject: Subject, pixels: np.ndarray, depths: np.ndarray, scale: np.ndarray, light: float
) -> None:
    centre, radius = pixels[HEAD], subject.body.head * scale[HEAD]
    up = centre - pixels[NECK]
    up = up / max(np.linalg.norm(up), 1e-6)
    angle = float(np.degrees(np.arctan2(up[0], -up[1])))
    facing = depths[HEAD] - depths[0]  # positive where the nose is nearer to the camera
    size = _fixed(np.array([radius * 0.86, radius * 1.12]))
    hair, skin = _rgb(subject.hair * light), _rgb(subject.skin * light)
    if subject.long_hair:
        _blob(image, centre - up * radius * -0.35, radius * 1.12, subject.hair * light)
    cv2.ellipse(
        image,
        _fixed(centre + up * radius * 0.12),
        (round(size[0] * 1.16), round(size[1] * 1.10)),
        angle,
        0,
        360,
        _rgb(subject.hair * light * 0.6),
        -1,
        cv2.LINE_AA,
        SHIFT,
    )
    if facing < -0.02:  # from behind: hair only
        cv2.ellipse(image, _fixed(centre), size, angle, 0, 360, hair, -1, cv2.LINE_AA, SHIFT)
        return
    cv2.ellipse(image, _fixed(centre), size, angle, 0, 360, skin, -1, cv2.LINE_AA, SHIFT)
    # The hair line turns with the face: a cap opposite to the nose.
    toward = (pixels[0] - centre) / max(radius, 1e-6)
    cap = centre + up * radius * 0.55 - toward * radius * 0.25
    cv2.ellipse(
        image,
        _fixed(cap),
        (round(size[0] * 1.02), round(size[1] * 0.55)),
        angle,
        180,
        360,
        hair,
        -1,
        cv2.LINE_AA,
        SHIFT,
    )
    for ear in (3, 4):
        if depths[ear] < depths[HEAD] + 0.01:
            cv2.circle(
                image,
                _fixed(pixels[ear]),
                round(radius * 0.2 * (1 << SHIFT)),
                _rgb(subject.skin * light * 0.8),
                -1,
                cv2.LINE_AA,
                SHIFT,
            )
    for eye in (1, 2):
        if depths[eye] < depths[HEAD]:
            cv2.circle(
                image,
                _fixed(pixels[eye]),
                round(max(radius * 0.15, 0.9) * (1 << SHIFT)),
                (250, 250, 250),
                -1,
                cv2.LINE_AA,
                SHIFT,
            )
            cv2.circle(
                image,
                _fixed(pixels[eye]),
                round(max(radius * 0.09, 0.6) * (1 << SHIFT)),
                OUTLINE,
                -1,
                cv2.LINE_AA,
                SHIFT,
            )
    cv2.circle(
        image,
        _fixed(pixels[0]),
        round(max(radius * 0.13, 0.8) * (1 << SHIFT)),
        _rgb(subject.skin * light * 0.72),
        -1,
        cv2.LINE_AA,
        SHIFT,
    )
    mouth = pixels[0] - up * radius * 0.45 - toward * radius * 0.12
    side = np.array([-up[1], up[0]]) * radius * 0.22
    cv2.line(image, _fixed(mouth - side), _fixed(mouth + side), (120, 40, 45), 1, cv2.LINE_AA, SHIFT)
