"""Joint graphs: names, bones and the mirror image of a skeleton, for each joint layout that a recipe may name.

`coco17` is the order of COCO, `openpose18` that of OpenPose's 18-joint output, `ntu25` that of Kinect v2 as in
NTU RGB+D, `kinect20` that of the Kinect SDK 1 as in NW-UCLA, `common17` the form of all of them in common.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import PosebridgeError
from pipeline.recipe import other_side


@dataclass(frozen=True)
class Graph:
    """V joints. `mirror[v]` is the joint that v becomes in a mirror; `hips` and `shoulders` fix place and size."""

    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    mirror: tuple[int, ...]
    hips: tuple[int, int]
    shoulders: tuple[int, int]


def _graph(joints: str, bones: str) -> Graph:
    """A graph from the joints' names in their order, and from bones as `name-name`."""
    names = tuple(joints.split())
    place = {name: joint for joint, name in enumerate(names)}

    pairs = [bone.split("-") for bone in bones.split()]
    return Graph(
        joints=names,
        bones=tuple((place[one], place[two]) for one, two in pairs),
        mirror=tuple(place[other_side(name)] for name in names),
        hips=(place["left_hip"], place["right_hip"]),
        shoulders=(place["left_shoulder"], place["right_shoulder"]),
    )


_ARMS = """
    left_shoulder-left_elbow left_elbow-left_wrist right_shoulder-right_elbow right_elbow-right_wrist
"""
_LEGS = """
    left_hip-left_knee left_knee-left_ankle right_hip-right_knee right_knee-right_ankle
"""
_KINECT_HANDS_AND_FEET = """
    left_wrist-left_hand right_wrist-right_hand left_ankle-left_foot right_ankle-right_foot
"""

COCO_17 = _graph(
    """
    nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist
    right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle
    """,
    f"""
    {_LEGS} {_ARMS} left_hip-right_hip left_shoulder-left_hip right_shoulder-right_hip left_shoulder-right_shoulder
    left_eye-right_eye nose-left_eye nose-right_eye left_eye-left_ear right_eye-right_ear left_ear-left_shoulder
    right_ear-right_shoulder
    """,
)

OPENPOSE_18 = _graph(
    """
    nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist right_hip right_knee
    right_ankle left_hip left_knee left_ankle right_eye left_eye right_ear left_ear
    """,
    f"""
    {_LEGS} {_ARMS} neck-left_shoulder neck-right_shoulder left_shoulder-left_hip right_shoulder-right_hip neck-nose
    nose-left_eye nose-right_eye left_eye-left_ear right_eye-right_ear
    """,
)

NTU_25 = _graph(
    """
    spine_base spine_middle neck head left_shoulder left_elbow left_wrist left_hand right_shoulder right_elbow
    right_wrist right_hand left_hip left_knee left_ankle left_foot right_hip right_knee right_ankle right_foot
    spine_shoulder left_hand_tip left_thumb right_hand_tip right_thumb
    """,
    f"""
    {_LEGS} {_ARMS} {_KINECT_HANDS_AND_FEET} spine_base-spine_middle spine_middle-spine_shoulder spine_shoulder-neck
    neck-head spine_shoulder-left_shoulder spine_shoulder-right_shoulder spine_base-left_hip spine_base-right_hip
    left_hand-left_hand_tip left_hand-left_thumb right_hand-right_hand_tip right_hand-right_thumb
    """,
)

KINECT_20 = _graph(
    """
    hip_centre spine shoulder_centre head left_shoulder left_elbow left_wrist left_hand right_shoulder right_elbow
    right_wrist right_hand left_hip left_knee left_ankle left_foot right_hip right_knee right_ankle right_foot
    """,
    f"""
    {_LEGS} {_ARMS} {_KINECT_HANDS_AND_FEET} hip_centre-spine spine-shoulder_centre shoulder_centre-head
    shoulder_centre-left_shoulder shoulder_centre-right_shoulder hip_centre-left_hip hip_centre-right_hip
    """,
)

COMMON_17 = _graph(
    """
    hip_centre right_hip right_knee right_ankle left_hip left_knee left_ankle spine shoulder_centre nose head
    left_shoulder left_elbow left_wrist right_shoulder right_elbow right_wrist
    """,
    f"""
    {_LEGS} {_ARMS} hip_centre-spine spine-shoulder_centre shoulder_centre-head head-nose hip_centre-left_hip
    hip_centre-right_hip shoulder_centre-left_shoulder shoulder_centre-right_shoulder
    """,
)

GRAPHS = {"coco17": COCO_17, "openpose18": OPENPOSE_18, "ntu25": NTU_25, "kinect20": KINECT_20}
COMMON = "common17"  # no order that anybody's files have to be told by: the view of all of them


def graph_of(layout: str) -> Graph:
    """The graph of a layout. Raises PosebridgeError for an unknown one."""
    if layout == COMMON:
        return COMMON_17
    if layout not in GRAPHS:
        raise PosebridgeError(f"There is no joint layout {layout!r}; a recipe's layout is {', '.join(GRAPHS)}.")
    return GRAPHS[layout]
