"""What can be made harder, or different, in a test clip: the variants of skelgap, each a setting of the same knobs.

Light on purpose (no OpenCV). Whatever a knob draws comes from a stream of its own, seeded by the clip's trajectory, so
that twins stay twins and nothing else of the clip changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import PosebridgeError


@dataclass(frozen=True)
class Knobs:
    """How a clip is rendered; the default is the data set itself."""

    occlusion: float = 0.0  # share of the person's box that things in the foreground cover
    exposure: float = 0.0  # of the shutter, in frame intervals; more than 1 is a camera that repeats what it gathers
    gain: float = 1.0  # light that reaches the sensor, whose noise stays as it is
    zoom: float = 1.0  # size of the person in the frame
    bystander: float | None = None  # metres beside the person, and a little behind, where another one moves
    crf: int = 20  # H.264's constant rate factor; higher is worse
    redraw: str = ""  # a field of ClipSpec that is drawn anew: the counterfactual clip


AS_IT_IS = Knobs()

_DIFFICULTIES = {
    "occlusion": (Knobs(occlusion=0.12), Knobs(occlusion=0.25), Knobs(occlusion=0.40)),
    "blur": (Knobs(exposure=0.5), Knobs(exposure=1.0), Knobs(exposure=2.0)),
    "low_light": (Knobs(gain=0.5), Knobs(gain=0.25), Knobs(gain=0.12)),
    "small": (Knobs(zoom=0.7), Knobs(zoom=0.5), Knobs(zoom=0.35)),
    "two_persons": (Knobs(bystander=1.0), Knobs(bystander=0.7), Knobs(bystander=0.45)),
    "compression": (Knobs(crf=32), Knobs(crf=38), Knobs(crf=44)),
}
COUNTERFACTUALS = ("distractors", "background", "subject")
VARIANTS = {
    **{f"{name}-{k}": knobs for name, three in _DIFFICULTIES.items() for k, knobs in enumerate(three, 1)},
    **{field: Knobs(redraw=field) for field in COUNTERFACTUALS},
}


def choose_variant(name: str) -> Knobs:
    """The knobs of a variant. Raises PosebridgeError for an unknown one."""
    if name not in VARIANTS:
        raise PosebridgeError(f"There is no variant named {name!r}; there are {', '.join(VARIANTS)}.")
    return VARIANTS[name]
