"""The frozen description of an extraction, and its fingerprint.

A recipe holds exactly the values that change the result. Executors, batch sizes, paths and library versions are
not in it: another recipe is another directory of the store, and a mere change of speed is not.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

ALGORITHM = 1  # raise it when our own code changes what an extraction yields
ANCHORS = ("body", "head", "left_hand", "right_hand", "torso", "legs")


@dataclass(frozen=True)
class Recipe:
    """What one extraction computes.

    `backend` is `mmpose` (a pose model over videos) or `ground_truth` (skeletons written by `synth`; no cues).
    `weights` is a name of shipped weights, a path, a URL or `auto`; only `weights_sha256` enters the fingerprint,
    since where the bytes lie does not change the result. `cues` is `refined`, `levels` or `none`. `taps` names the
    tapped modules, shallow first; empty means the backbone's stages. `hpe_text` declares what words the weights were
    exposed to (`none`, `captions`, `captions-strict`); shipped weights declare it themselves.
    """

    backend: str = "mmpose"
    config: str = "rtmpose-t_8xb256-420e_coco-256x192"  # a config name of mmpose
    weights: str = "skelgap-sem"
    weights_sha256: str = ""
    hpe_text: str = "none"
    precision: str = "float32"  # float32 or bfloat16
    boxes: str = "full_frame"  # full_frame or manifest
    persons: int = 1  # M
    frames: int = 32  # T
    cue_frames: int = 16  # S
    taps: tuple[str, ...] = ()
    cues: str = "refined"
    anchors: tuple[str, ...] = ANCHORS
    pooled_stride: int = 16
    sigma: float = 0.08  # of the person's size, body-aware pooling
    score_kind: str = "simcc"
    algorithm: int = ALGORITHM

    def canonical_json(self) -> str:
        """The recipe as canonical JSON, without `weights` (the place), with `weights_sha256` (the content)."""
        values = {key: value for key, value in asdict(self).items() if key != "weights"}
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @property
    def fingerprint(self) -> str:
        """sha256 of the canonical JSON, 64 hex digits; the store's folder uses the first 12."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()
