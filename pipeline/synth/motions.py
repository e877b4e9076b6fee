"""Motions: where hands, feet and trunk go over a clip, in the frame of the body.

The body's frame is in metres of a person 1.75 m tall: x to the person's left, y up from the floor, z forward.
A motion never knows which object is held: duration, hand, speed and amplitude are drawn independently of it, so that
true skeletons say nothing of the object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LEFT, RIGHT = 0, 1
HIP_Y, MOUTH_Y, CROWN_Y = 0.92, 1.56, 1.75


@dataclass
class Targets:
    """End-effector targets over F frames, before inverse kinematics."""

    hands: np.ndarray  # [F, 2, 3] left, right; rotates with the trunk
    feet: np.ndarray  # [F, 2, 3] ankles
    root: np.ndarray  # [F, 3] displacement of the pelvis
    lean: np.ndarray  # [F] forward pitch of the trunk, radians
    twist: np.ndarray  # [F] yaw of the shoulders against the hips, radians
    nod: np.ndarray  # [F] pitch of the head, radians


@dataclass(frozen=True)
class Style:
    """How this clip performs its motion; drawn from the trajectory seed alone."""

    hand: int  # LEFT or RIGHT leads
    both: bool  # the other hand joins, where the motion allows it
    cycles: float  # repetitions of a periodic motion
    phase: float  # 0..1
    amplitude: float  # about 1
    delay: float  # share of the clip before the motion starts
    noise: np.ndarray  # [12, 3] frequencies, phases and sizes of the idle sway

    @staticmethod
    def draw(rng: np.random.Generator) -> Style:
        return Style(
            hand=int(rng.integers(2)),
            both=bool(rng.random() < 0.4),
            cycles=float(rng.uniform(1.6, 2.8)),
            phase=float(rng.random()),
            amplitude=float(rng.uniform(0.85, 1.15)),
            delay=float(rng.uniform(0.0, 0.12)),
            noise=np.stack([rng.uniform(0.5, 2.0, 12), rng.uniform(0, 2 * np.pi, 12), rng.normal(0, 1, 12)], 1),
        )


def perform(motion: str, style: Style, frames: int) -> Targets:
    """The targets of `motion` over `frames` frames. Raises KeyError for an unknown motion."""
    t = np.clip((np.linspace(0, 1, frames) - style.delay) / (1 - style.delay), 0, 1)
    targets = standing(frames)
    MOTIONS[motion](targets, t, style)
    _sway(targets, style)
    return targets


def standing(frames: int) -> Targets:
    """A person at rest, arms hanging."""
    hands = np.tile(np.array([[0.27, 0.80, 0.06], [-0.27, 0.80, 0.06]]), (frames, 1, 1))
    feet = np.tile(np.array([[0.13, 0.08, 0.0], [-0.13, 0.08, 0.0]]), (frames, 1, 1))
    zero = np.zeros(frames)
    return Targets(hands, feet, np.zeros((frames, 3)), zero.copy(), zero.copy(), zero.copy())


def _sway(targets: Targets, style: Style) -> None:
    """Idle movement of a living body: slow sines on every end effector."""
    frames = len(targets.lean)
    t = np.linspace(0, 1, frames)[:, None]
    wave = np.sin(2 * np.pi * style.noise[:, 0] * t + style.noise[:, 1]) * style.noise[:, 2]  # [F, 12]
    targets.hands += 0.014 * wave[:, :6].reshape(frames, 2, 3)
    targets.root[:, [0, 2]] += 0.012 * wave[:, 6:8]
    targets.lean += 0.03 * wave[:, 8]
    targets.twist += 0.06 * wave[:, 9]
    targets.nod += 0.06 * wave[:, 10]


def _ease(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _blend(start: np.ndarray, goal: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return start + (goal - start) * weight[:, None]


def _place(style: Style, x: float, y: float, z: float) -> np.ndarray:
    """A point given for the left hand, mirrored where the right hand leads."""
    return np.array([x if style.hand == LEFT else -x, y, z])


def _mirrored(points: np.ndarray) -> np.ndarray:
    return points * np.array([-1.0, 1.0, 1.0])


def _cycle(t: np.ndarray, style: Style, rate: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * (style.cycles * rate * t + style.phase))


def _mouth(g: Targets, t: np.ndarray, s: Style) -> None:
    near = _place(s, 0.07, MOUTH_Y - 0.12, 0.24)
    sip = _ease(t / 0.3) * (0.9 + 0.1 * _cycle(t, s))
    g.hands[:, s.hand] = _blend(_place(s, 0.22, 1.05, 0.30), near, sip)
    g.nod += -0.18 * sip * s.amplitude


def _ear(g: Targets, t: np.ndarray, s: Style) -> None:
    near = _place(s, 0.20, MOUTH_Y - 0.02, 0.04)
    up = _ease(t / 0.3)
    g.hands[:, s.hand] = _blend(_place(s, 0.25, 1.0, 0.22), near, up)
    g.hands[:, s.hand, 1] += 0.02 * up * _cycle(t, s)


def _offer(g: Targets, t: np.ndarray, s: Style) -> None:
    out = _ease(t / 0.4) * (0.93 + 0.07 * _cycle(t, s, 0.7)) * np.clip(s.amplitude, 0.9, 1.05)
    start, goal = _place(s, 0.20, 1.10, 0.22), _place(s, 0.10, 1.30, 0.60)
    g.hands[:, s.hand] = _blend(start, goal, out)
    if s.both:
        g.hands[:, 1 - s.hand] = _mirrored(g.hands[:, s.hand])
    g.lean += 0.12 * out


def _wave(g: Targets, t: np.ndarray, s: Style) -> None:
    up = _ease(t / 0.2)
    g.hands[:, s.hand] = _blend(_place(s, 0.30, 1.2, 0.20), _place(s, 0.26, CROWN_Y + 0.13, 0.12), up)
    g.hands[:, s.hand, 0] += 0.26 * s.amplitude * up * _cycle(t, s, 1.2)
    g.hands[:, s.hand, 1] -= 0.05 * up * np.abs(_cycle(t, s, 1.2))


def _lift(g: Targets, t: np.ndarray, s: Style) -> None:
    up = _ease((t - 0.12) / 0.74)
    # By way of a point in front of the face, so that the hand does not pass through the head.
    low, way, high = _place(s, 0.16, 0.98, 0.32), _place(s, 0.16, 1.50, 0.42), _place(s, 0.15, CROWN_Y + 0.12, 0.08)
    g.hands[:, s.hand] = _blend(_blend(low, way, _ease(up / 0.55)), high, _ease((up - 0.4) / 0.6))
    if s.both:
        g.hands[:, 1 - s.hand] = _mirrored(g.hands[:, s.hand])
    g.nod += -0.25 * up


def _chop(g: Targets, t: np.ndarray, s: Style) -> None:
    phase = (s.cycles * 0.9 * t + s.phase) % 1.0
    # A slow rise and a fast blow.
    down = np.where(phase < 0.6, 1 - _ease(phase / 0.6), _ease((phase - 0.6) / 0.25))
    high, way, low = _place(s, 0.20, CROWN_Y + 0.10, 0.02), _place(s, 0.16, 1.45, 0.50), _place(s, 0.12, 0.98, 0.46)
    g.hands[:, s.hand] = _blend(_blend(high, way, _ease(down / 0.6)), low, _ease((down - 0.35) / 0.65))
    if s.both:
        g.hands[:, 1 - s.hand] = g.hands[:, s.hand] + _place(s, -0.10, -0.06, 0.0)
    g.lean += 0.05 + 0.25 * down * s.amplitude


def _shake(g: Targets, t: np.ndarray, s: Style) -> None:
    g.hands[:, s.hand] = _blend(_place(s, 0.25, 0.95, 0.20), _place(s, 0.16, 1.22, 0.36), _ease(t / 0.15))
    g.hands[:, s.hand, 1] += 0.13 * s.amplitude * _ease(t / 0.15) * _cycle(t, s, 2.2)


THROW_RELEASE = 0.62  # share of the motion at which a thrown object leaves the hand


def _throw(g: Targets, t: np.ndarray, s: Style) -> None:
    back, swing = _ease(t / 0.42), _ease((t - 0.46) / 0.22)
    start, cocked = _place(s, 0.22, 1.15, 0.28), _place(s, 0.38, CROWN_Y - 0.06, -0.22)
    over, follow = _place(s, 0.18, CROWN_Y + 0.02, 0.42), _place(s, -0.05, 1.05, 0.50)
    path = _blend(_blend(start, cocked, back), over, _ease(swing / 0.6))
    g.hands[:, s.hand] = _blend(path, follow, _ease((t - 0.64) / 0.25))
    turn = 1.0 if s.hand == LEFT else -1.0
    g.twist += turn * 0.5 * s.amplitude * (back - 1.6 * swing)
    g.lean += -0.08 * back + 0.28 * swing
    g.feet[:, 1 - s.hand, 2] += 0.22 * back


def _clap(g: Targets, t: np.ndarray, s: Style) -> None:
    gap = 0.03 + 0.20 * s.amplitude * (0.5 + 0.5 * _cycle(t, s, 1.6))
    g.hands[:, LEFT] = np.stack([gap, np.full_like(t, 1.25), np.full_like(t, 0.36)], 1)
    g.hands[:, RIGHT] = _mirrored(g.hands[:, LEFT])


def _bow(g: Targets, t: np.ndarray, s: Style) -> None:
    g.lean += 1.15 * s.amplitude * _ease(t / 0.4) * (1 - 0.8 * _ease((t - 0.65) / 0.35))


def _jump(g: Targets, t: np.ndarray, s: Style) -> None:
    phase = (s.cycles * 0.8 * t + s.phase) % 1.0
    height = (
        np.where(phase < 0.5, -0.14 * np.sin(2 * np.pi * phase), 0.26 * np.sin(2 * np.pi * (phase - 0.5))) * s.amplitude
    )
    g.root[:, 1] += height
    g.feet[:, :, 1] += np.maximum(height, 0)[:, None]
    g.hands[:, :, 1] += (0.15 + 1.2 * np.maximum(height, 0))[:, None]
    g.hands[:, :, 2] += 0.12


def _walk(g: Targets, t: np.ndarray, s: Style) -> None:
    step = _cycle(t, s)
    lift = np.cos(2 * np.pi * (s.cycles * t + s.phase))
    for side, sign in ((LEFT, 1.0), (RIGHT, -1.0)):
        g.feet[:, side, 2] += sign * 0.32 * s.amplitude * step
        g.feet[:, side, 1] += 0.10 * np.maximum(sign * lift, 0)
        g.hands[:, side, 2] -= sign * 0.26 * s.amplitude * step
    g.root[:, 1] -= 0.03


def _kick(g: Targets, t: np.ndarray, s: Style) -> None:
    phase = (s.cycles * 0.7 * t + s.phase) % 1.0
    out = np.sin(np.pi * phase) ** 2 * s.amplitude
    # Up to the hip and a little outwards, so that it shows from the front as well.
    g.feet[:, s.hand] += out[:, None] * _place(s, 0.20, 0.74, 0.78)
    g.lean += -0.18 * out
    g.hands[:, :, 1] += 0.25 * out[:, None]
    g.hands[:, :, 0] += 0.15 * out[:, None] * np.array([1.0, -1.0])


MOTIONS: dict[str, Callable[[Targets, np.ndarray, Style], None]] = {
    "mouth": _mouth,
    "ear": _ear,
    "offer": _offer,
    "wave": _wave,
    "lift": _lift,
    "chop": _chop,
    "shake": _shake,
    "throw": _throw,
    "clap": _clap,
    "bow": _bow,
    "jump": _jump,
    "walk": _walk,
    "kick": _kick,
}
