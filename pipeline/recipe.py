"""The frozen description of an extraction, and its fingerprint.

A recipe holds exactly the values that change the result. Executors, batch sizes, paths and library versions are
not in it: another recipe is another directory of the store, and a mere change of speed is not.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from pipeline.errors import PosebridgeError
from pipeline.files.bounds import check_bounds, one_of, within

ALGORITHM = 2  # raise it when our own code changes what an extraction yields
PLACES = ("weights", "detector", "image_text")
EXPOSURES = ("none", "captions-strict", "captions", "seen-classes")  # of pose weights to words, the more the later
ANCHORS = ("body", "head", "left_hand", "right_hand", "torso", "legs")
POOLED = "pooled"  # the layout of imported features that are pooled over joints and frames
CUES_ALONE = "none"  # that of an import that has cues and no features
BOXES = ("true", "jittered", "detector", "full_frame", "imported")  # of an extraction, the less known the later
BACKGROUND = "background"  # where no body is: a control, that a recipe may name, too
POSE, IMAGE_TEXT = "pose", "image-text"  # cues of the pose model itself, or of an image-text model
VIEWS = ("frame", "person")  # anchors of the latter: the whole frame, and the person's crop


def other_side(name: str) -> str:
    """left_hand <-> right_hand; any other name is its own mirror image."""
    side, _, part = name.partition("_")
    return {"left": f"right_{part}", "right": f"left_{part}"}.get(side, name)


@dataclass(frozen=True)
class Recipe:
    """What one extraction computes.

    `backend` is one of hpe/factory.py's (a pose model over videos), `ground_truth` (skeletons by `synth`; no cues),
    `import` (skeletons from a file of others by `cache import`; no cues) or `features` (what a skeleton encoder of
    others gives, by `cache import-features`, which writes the recipe itself).
    `weights` is a name of shipped weights, a path, a URL or `auto`; only `weights_sha256` enters the fingerprint,
    since where the bytes lie does not change the result. `taps` names the tapped modules or inner tensors, shallow
    first; empty means the backbone's stages, or what the ONNX file shows.
    `hpe_text` declares what words the weights were exposed to; shipped weights declare it themselves. Where these were
    texts of classes, `hpe_classes` says of which: see protocol/exposure.py.

    For the ONNX backend, where the file does not say it itself: `mean` and `std` of pixel values 0..255 (of a network
    for values 0..1, times 255), in the order of `channels`; `decoding`; `heatmap_offset`, crop pixels that are added to
    a place decoded from a heatmap (1.5 where cells of 4 pixels were aligned by their centres, 0 in mmpose).

    With `boxes: detector` an RTMDet file `detector` finds the persons in every sampled frame: one is believed to be
    there from `detection_threshold`; `detector_sha256` is to the detector what `weights_sha256` is to the pose model.
    `boxes: manifest` are the true ones, which no detector finds: `box_shift` and `box_scale` move and scale them, see
    skeleton/jitter.py.

    `cues_from` names a general image network (hpe/image_network.py) whose maps are pooled at the pose model's joints,
    in the place of its own: a reference, and no part of posebridge. Then `taps` are names of that network's modules.
    Another reference is `cues_from: image-text` (hpe/image_text.py): `image_text` is a model of sentence-transformers,
    by name or folder, `image_text_sha256` the hash of its weights, and `web_data` declares, in words, what of the web
    they have seen; anchors are then `frame`, `person` or both.

    `light: raised` brightens dark crops before the pose model sees them, see hpe/crops.py.
    """

    backend: str = "mmpose"
    config: str = "rtmpose-t_8xb256-420e_coco-256x192"  # a config name of mmpose
    weights: str = "skelgap-sem"
    weights_sha256: str = ""
    hpe_text: str = one_of(*EXPOSURES)
    hpe_classes: str = ""
    precision: str = one_of("float32", "bfloat16")
    boxes: str = one_of("full_frame", "manifest", "detector")
    persons: int = within(1, 1, 64)  # M
    frames: int = within(32, 1, 10**5)  # T
    cue_frames: int = within(16, 1, 10**5)  # S
    taps: tuple[str, ...] = ()
    cues: str = one_of("refined", "levels", "none")
    anchors: tuple[str, ...] = ANCHORS
    pooled_stride: int = within(16, 1, 1024)
    sigma: float = within(0.08, above=0)  # of the person's size, body-aware pooling
    score_kind: str = "simcc"  # no knob: nothing reads it, but it is in the fingerprints of the stores there are
    algorithm: int = within(ALGORITHM, 1)
    mean: tuple[float, ...] = within(())
    std: tuple[float, ...] = within((), above=0)
    channels: str = one_of("", "rgb", "bgr")
    decoding: str = one_of("", "simcc", "dark", "quarter")
    heatmap_offset: float = within(0.0)
    detector: str = ""
    detector_sha256: str = ""
    detection_threshold: float = within(0.4, most=1, above=0)
    layout: str = "coco17"  # of the joints, a name in pipeline/skeleton/graph.py
    dimensions: int = within(2, 2, 3)  # C: 2 (pixels) or 3 (metres, y up)
    box_shift: float = within(0.0, 0, 1)  # of the box's width and height, a standard deviation
    box_scale: float = within(0.0, 0, 1)  # of the logarithm of its sides, likewise
    cues_from: str = one_of(POSE, "efficientnet-lite2", IMAGE_TEXT)
    image_text: str = ""
    image_text_sha256: str = ""
    web_data: str = ""
    light: str = one_of("as_is", "raised")

    def __post_init__(self) -> None:
        """Raise PosebridgeError for a number that is out of its bounds, an unknown word, and anchors that no training
        could use: unknown, doubled or without mirror image.
        """
        check_bounds(self)
        if self.boxes != "manifest" and (self.box_shift or self.box_scale):
            raise PosebridgeError(
                "The recipe's box_shift and box_scale jitter true boxes; they go with `boxes: manifest` only."
            )
        if self.cues_from != POSE and (self.cues != "levels" or not self.needs_videos):
            raise PosebridgeError(
                f"Cues of {self.cues_from} are its maps, of videos; set `cues: levels` and a backend that is a pose "
                "model."
            )
        known = VIEWS if self.cues_from == IMAGE_TEXT else (*ANCHORS, BACKGROUND)
        for anchor in self.anchors:
            if anchor not in known:
                raise PosebridgeError(f"The recipe's anchor {anchor!r} is unknown; there are {', '.join(known)}.")
            if self.anchors.count(anchor) > 1:
                raise PosebridgeError(f"The recipe names the anchor {anchor!r} twice; take one away.")
            if other_side(anchor) not in self.anchors:
                raise PosebridgeError(
                    f"The recipe's anchor {anchor!r} lacks its mirror image, which training needs; add "
                    f"{other_side(anchor)!r}."
                )

    @property
    def box_kind(self) -> str:
        """Where persons are known from, one of BOXES: true skeletons are as good as true boxes."""
        if self.backend in ("import", "features"):
            return "imported"
        if self.backend == "ground_truth":
            return "true"
        known = "jittered" if self.box_shift or self.box_scale else "true"
        return known if self.boxes == "manifest" else self.boxes

    @property
    def needs_videos(self) -> bool:
        """Whether a pose model estimates it from videos; otherwise the skeletons come from elsewhere."""
        return self.backend not in ("ground_truth", "import", "features")

    @property
    def cues_told(self) -> str:
        """Where its cues come from, in words: `pose model`, or what is no part of posebridge."""
        if self.cues_from == IMAGE_TEXT:
            return f"image-text model; web data: {self.web_data}"
        return "pose model" if self.cues_from == POSE else f"general image network {self.cues_from}"

    def canonical_json(self) -> str:
        """The recipe as canonical JSON, without PLACES, with their sha256 (contents)."""
        values = {key: value for key, value in asdict(self).items() if key not in PLACES}
        usual = {"hpe_classes": "", "box_shift": 0.0, "box_scale": 0.0, "cues_from": POSE, "light": "as_is"}
        usual |= {"image_text_sha256": "", "web_data": ""}
        for key in usual:  # so that the stores there are keep their fingerprints
            if values[key] == usual[key]:
                del values[key]
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @property
    def fingerprint(self) -> str:
        """sha256 of the canonical JSON, 64 hex digits; the store's folder uses the first 12."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()
