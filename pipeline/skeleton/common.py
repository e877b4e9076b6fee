"""One form of joints for all layouts, so that an encoder that has learnt from one is shown another: `common17`.

A view of what was extracted, made when it is read; no store holds it. The 17 joints are in the order of Human3.6M's:

| joint           | coco17            | openpose18        | ntu25          | kinect20        |
|-----------------|-------------------|-------------------|----------------|-----------------|
| twelve of limbs | the same          | the same          | the same       | the same        |
| hip_centre      | mean of hips      | mean of hips      | spine_base     | hip_centre      |
| shoulder_centre | mean of shoulders | neck              | spine_shoulder | shoulder_centre |
| spine           | mean of all four  | mean of all four  | spine_middle   | spine           |
| head            | mean of ears      | mean of ears      | head           | head            |
| nose            | nose              | nose              | absent         | absent          |

(OpenPose's neck is the mean of the shoulders in what it was trained on.) The score of a mean is the least of its parts.
What a layout lacks is absent: score 0, and it stands where the middle of the hips does, so that it tells nothing.

Two dimensions are pixels, x to the right and y down; three are metres in Kinect's camera space, right-handed: x to the
sensor's left, y up, z away from it. Three are kept where both sides have them. Else they are projected along z: x and y
change sign, in millimetres, which are to that side what pixels are to the other; `normalise` takes the size away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.skeleton.graph import COMMON, COMMON_17, GRAPHS, graph_of

MILLIMETRES = 1000.0

_HIPS, _SHOULDERS, _EARS = ("left_hip", "right_hip"), ("left_shoulder", "right_shoulder"), ("left_ear", "right_ear")
_OF_COCO = {"hip_centre": _HIPS, "spine": (*_HIPS, *_SHOULDERS), "head": _EARS}
# layout -> joint of the form -> joints of the layout whose mean it is; other joints are those of the same name
MEANS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "coco17": _OF_COCO | {"shoulder_centre": _SHOULDERS},
    "openpose18": _OF_COCO | {"shoulder_centre": ("neck",)},
    "ntu25": {
        "hip_centre": ("spine_base",),
        "spine": ("spine_middle",),
        "shoulder_centre": ("spine_shoulder",),
    },
    "kinect20": {},
    COMMON: {},
}


def sources(layout: str) -> tuple[tuple[int, ...], ...]:
    """For each joint of the form those of the layout whose mean it is; empty where the layout lacks it.

    Raises PosebridgeError for a layout that is not of these.
    """
    if layout not in MEANS:
        raise PosebridgeError(
            f"There is no common form for the joint layout {layout!r}, only for {', '.join(GRAPHS)}; extract or import "
            "skeletons of one of these."
        )
    joints = graph_of(layout).joints
    means = MEANS[layout]
    return tuple(
        tuple(joints.index(part) for part in means.get(name, (name,) if name in joints else ()))
        for name in COMMON_17.joints
    )


def in_common(keypoints: np.ndarray, scores: np.ndarray, layout: str) -> tuple[np.ndarray, np.ndarray]:
    """The form of keypoints [..., V, C] and scores [..., V]: [..., 17, C] and [..., 17], of the dtypes given."""
    places = np.empty((*keypoints.shape[:-2], len(COMMON_17.joints), keypoints.shape[-1]), keypoints.dtype)
    sure = np.zeros(places.shape[:-1], scores.dtype)
    parts = sources(layout)
    middle = parts[COMMON_17.joints.index("hip_centre")]
    for joint, own in enumerate(parts):
        places[..., joint, :] = keypoints[..., own or middle, :].mean(-2)
        if own:
            sure[..., joint] = scores[..., own].min(-1)
    return places, sure


def projected(keypoints: np.ndarray) -> np.ndarray:
    """Metres [..., 3] as a camera far away would see them, in millimetres [..., 2], x to the right and y down."""
    return -MILLIMETRES * keypoints[..., :2]


@dataclass(frozen=True)
class Form:
    """What both sides are brought to: C, M and T."""

    dimensions: int
    persons: int
    frames: int


def comparable(
    keypoints: np.ndarray, scores: np.ndarray, person_valid: np.ndarray, layout: str, other: str, form: Form
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Skeletons of one layout as they are to be beside those of an `other`.

    keypoints [N, M, T, V, C], scores [N, M, T, V], person_valid [N, M, T] bool, all to the dimensions, persons and
    frames of the form: persons beyond these are left out, others are absent, and joints move evenly between frames. A
    joint that the other layout lacks is absent here, too. How sure a pose model was means nothing beside another's: the
    scores of joints that both have are 1, and who is lost for some frames stands where last seen, or first, as a joint
    that was not seen does. What is always there in training and not in the test would else be magnified without bound
    by an encoder's batch norms.
    """
    places, _ = in_common(keypoints, scores, layout)
    both = np.array([bool(own and its) for own, its in zip(sources(layout), sources(other), strict=True)])
    places[..., ~both, :] = places[..., [COMMON_17.joints.index("hip_centre")], :]
    if places.shape[-1] > form.dimensions:
        places = projected(places)
    places, person_valid = (_persons(array, form.persons) for array in (places, person_valid))
    last = np.where(person_valid, np.arange(person_valid.shape[2]), -1)  # [N, M, T]
    last = np.maximum(np.maximum.accumulate(last, 2), person_valid.argmax(2, keepdims=True))
    places = _frames(np.take_along_axis(places, last[..., None, None], 2), form.frames)
    there: np.ndarray = np.repeat(np.any(person_valid, axis=2, keepdims=True), form.frames, 2)
    sure = np.broadcast_to(both, places.shape[:-1]) & there[..., None]
    return places, sure.astype(scores.dtype), there


def _persons(array: np.ndarray, count: int) -> np.ndarray:
    """The first so many persons of [N, M, ...]; those who are lacking are zeros."""
    lacking = count - array.shape[1]
    return np.pad(array, ((0, 0), (0, max(lacking, 0)), *[(0, 0)] * (array.ndim - 2)))[:, :count]


def _frames(places: np.ndarray, count: int) -> np.ndarray:
    """[N, M, T, ...] at so many moments evenly in time, the first and the last frame as they are."""
    if count == (had := places.shape[2]):
        return places
    moments = np.linspace(0, had - 1, count)
    low = np.minimum(moments.astype(int), max(had - 2, 0))
    share = (moments - low).reshape(-1, 1, 1).astype(places.dtype)
    return places[:, :, low] * (1 - share) + places[:, :, np.minimum(low + 1, had - 1)] * share
