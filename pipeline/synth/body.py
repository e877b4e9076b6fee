"""The articulated person: inverse kinematics from targets to joints, and the camera that projects them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.synth.motions import HIP_Y, Targets

# After the 17 joints of COCO (coco17 in skeleton/graph.py) come points that only the drawing needs.
NECK, PELVIS, HEAD, LEFT_HAND = 17, 18, 19, 20  # and the right hand


@dataclass(frozen=True)
class Proportions:
    """A subject's body, in metres."""

    height: float
    shoulder: float  # half width
    hip: float
    upper_arm: float
    forearm: float
    thigh: float
    shin: float
    trunk: float
    head: float  # radius

    @staticmethod
    def draw(rng: np.random.Generator) -> Proportions:
        height = rng.uniform(1.55, 1.92)
        s = height / 1.75
        part = lambda size: float(size * s * rng.uniform(0.94, 1.06))  # noqa: E731
        return Proportions(
            height, part(0.195), part(0.115), part(0.29), part(0.26), part(0.43), part(0.42), part(0.50), part(0.115)
        )


def solve(targets: Targets, body: Proportions) -> np.ndarray:
    """Joints [F, 22, 3] in metres in the body's frame: COCO-17, then neck, pelvis, head centre, left and right hand."""
    scale = body.height / 1.75
    frames = len(targets.lean)
    joints = np.zeros((frames, 22, 3))
    pelvis = targets.root * scale + np.array([0.0, HIP_Y * scale, 0.0])
    trunk = _pitch(targets.lean)  # [F, 3, 3]
    shoulders = trunk @ _yaw(targets.twist)
    head_turn = shoulders @ _pitch(targets.nod)
    neck = pelvis + trunk @ np.array([0.0, body.trunk, 0.0])
    joints[:, PELVIS], joints[:, NECK] = pelvis, neck
    centre = neck + trunk @ np.array([0.0, 0.09 * scale, 0.0]) + head_turn @ np.array([0.0, body.head, 0.02])
    joints[:, HEAD] = centre
    r = body.head
    for index, offset in enumerate(
        ([0, -0.1, 1.05], [0.36, 0.22, 0.88], [-0.36, 0.22, 0.88], [0.92, 0.02, 0.05], [-0.92, 0.02, 0.05])
    ):
        joints[:, index] = centre + head_turn @ (np.array(offset, dtype=float) * r)
    for side, sign in ((0, 1.0), (1, -1.0)):
        shoulder = neck + shoulders @ np.array([sign * body.shoulder, -0.04 * scale, 0.0])
        hip = pelvis + np.array([sign * body.hip, -0.02, 0.0])
        # Hand targets turn with the trunk about the pelvis; not with its twist: hands stay where the motion puts them.
        relative = targets.hands[:, side] * scale - np.array([0.0, HIP_Y * scale, 0.0])
        goal = pelvis + np.einsum("fij,fj->fi", trunk, relative)
        pole = np.einsum("fij,j->fi", shoulders, np.array([sign * 0.55, -0.75, -0.45]))
        elbow, wrist = _two_bones(shoulder, goal, body.upper_arm, body.forearm, pole)
        foot = targets.feet[:, side] * scale + targets.root * np.array([1.0, 0.0, 1.0])
        knee, ankle = _two_bones(hip, foot, body.thigh, body.shin, np.tile([sign * 0.1, 0.0, 1.0], (frames, 1)))
        joints[:, 5 + side], joints[:, 7 + side], joints[:, 9 + side] = shoulder, elbow, wrist
        joints[:, 11 + side], joints[:, 13 + side], joints[:, 15 + side] = hip, knee, ankle
        joints[:, LEFT_HAND + side] = wrist + 0.30 * (wrist - elbow)
    return joints


def _two_bones(
    start: np.ndarray, goal: np.ndarray, first: float, second: float, pole: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Analytic two-bone inverse kinematics: the middle and end joint [F, 3], bent towards the pole direction."""
    reach = goal - start
    distance = np.linalg.norm(reach, axis=1, keepdims=True)
    axis = reach / np.maximum(distance, 1e-6)
    distance = np.clip(distance, abs(first - second) + 0.02, (first + second) * 0.995)
    along = (first**2 - second**2 + distance**2) / (2 * distance)
    height = np.sqrt(np.maximum(first**2 - along**2, 0.0))
    bend = pole - (pole * axis).sum(1, keepdims=True) * axis
    bend /= np.maximum(np.linalg.norm(bend, axis=1, keepdims=True), 1e-6)
    return start + axis * along + bend * height, start + axis * distance


def _pitch(angle: np.ndarray) -> np.ndarray:
    """Rotation about x, forward for positive angles, [F, 3, 3]."""
    c, s, o, i = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    return np.stack([i, o, o, o, c, -s, o, s, c], -1).reshape(-1, 3, 3)


def _yaw(angle: np.ndarray) -> np.ndarray:
    """Rotation about y, to the left for positive angles, [F, 3, 3]."""
    c, s, o, i = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    return np.stack([c, o, s, o, i, o, -s, o, c], -1).reshape(-1, 3, 3)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that looks at the person's middle."""

    yaw: float  # radians, 0 = from the front
    distance: float  # metres
    height: float  # metres above the floor
    focal: float  # pixels
    centre: tuple[float, float]  # the image of the point looked at
    jitter: np.ndarray  # [F, 2] pixels, the shake of a hand-held camera

    @staticmethod
    def draw(rng: np.random.Generator, size: int, frames: int) -> Camera:
        distance = float(rng.uniform(3.4, 5.0))
        share = rng.uniform(0.54, 0.66)  # of the frame's height, for a person of 1.75 m
        jitter = np.cumsum(rng.normal(0, 0.35, (frames, 2)), 0) * 0.5
        return Camera(
            yaw=float(rng.uniform(-0.95, 0.95)),
            distance=distance,
            height=float(rng.uniform(0.9, 1.9)),
            focal=float(share * size * distance / 1.75),
            centre=(size * float(rng.uniform(0.42, 0.58)), size * float(rng.uniform(0.58, 0.63))),  # room overhead
            jitter=np.clip(np.round(jitter - jitter.mean(0)), -4, 4),
        )

    def beside(self, across: float, nearer: float) -> np.ndarray:
        """[3] the step in the body's frame that the camera sees as so many metres to the right and nearer."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.array([c * across - s * nearer, 0.0, s * across + c * nearer])

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Project points [F, J, 3] to pixels [F, J, 2] and depths [F, J] in metres."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        turned = points @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T
        tilt = np.arctan2(self.height - 0.95, self.distance)
        y, z = turned[..., 1] - 0.95, turned[..., 2]
        depth = self.distance - (z * np.cos(tilt) + y * np.sin(tilt))
        across, up = turned[..., 0], y * np.cos(tilt) - z * np.sin(tilt)
        pixels = np.stack([across, -up], -1) * (self.focal / depth)[..., None] + np.array(self.centre)
        return pixels + self.jitter[: len(points), None], depth
