"""A tuned cue head as a file: its weights, and in the header what it belongs to. Reads and writes safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.errors import PosebridgeError
from pipeline.files.tensors import save_tensors
from pipeline.hpe.refinement import CueHead
from pipeline.hpe.weights import load_state, metadata
from pipeline.recipe import EXPOSURES

KIND = "head"  # in the header
MOST_WIDTH, MOST_TAPS = 4096, 64  # of anything in it


@dataclass(frozen=True)
class HeadFile:
    """A cue head in eval mode, for the pose weights of this sha256.

    `taps` are the names of what it reads, shallow first, with their strides; `hpe_text` and `hpe_classes` say what
    words head and pose model were exposed to.
    """

    cue: CueHead
    taps: Mapping[str, int]
    pose_sha256: str
    hpe_text: str
    hpe_classes: str = ""


def save_head(head: HeadFile, path: Path, facts: Mapping[str, str]) -> None:
    """Write a head (float32); `facts` join its header."""
    state = {key: value.contiguous() for key, value in head.cue.state_dict().items()}
    header = {
        "kind": KIND, "pose_sha256": head.pose_sha256, "hpe_text": head.hpe_text, "hpe_classes": head.hpe_classes,
        "taps": json.dumps(dict(head.taps)), "pooled_stride": str(head.cue.pooled_stride),
    }  # fmt: skip
    save_tensors(state, path, {**facts, **header})


def read_head(path: Path) -> HeadFile:
    """Read a head. Raises PosebridgeError for a file that is none, or whose weights are not those of its header."""
    if not path.is_file():
        raise PosebridgeError(f"{path} is missing; tune a cue head with `posebridge tune-hpe --recipe`.")
    header = metadata(path)
    if header.get("kind") != KIND:
        raise PosebridgeError(f"{path} is no cue head; tune one with `posebridge tune-hpe --recipe`.")
    state = load_state(path)
    damaged = PosebridgeError(f"The cue head {path} is damaged; tune it again.")
    try:
        taps = {str(tap): int(stride) for tap, stride in json.loads(header["taps"]).items()}
        stride = int(header["pooled_stride"])
        pooled = list(taps.values()).index(stride)
        if f"refine.project.{len(taps) - pooled}.0.weight" in state:
            raise PosebridgeError(f"The cue head {path} is of an earlier version of posebridge; tune it again.")
        channels = [int(state[f"refine.down.{level}.0.0.weight"].shape[0]) for level in range(pooled)]
        channels += [int(state[f"refine.project.{deep}.0.weight"].shape[1]) for deep in range(len(taps) - pooled)]
        cue_width, width = state["project.weight"].shape
        sizes = (width, cue_width, *channels, *taps.values())
        if not (taps and len(taps) <= MOST_TAPS and all(0 < size <= MOST_WIDTH for size in sizes)):
            raise damaged
        if header["hpe_text"] not in EXPOSURES:
            raise damaged
        with torch.device("meta"):  # without memory, before its size is known to be that of the file
            cue = CueHead(channels, list(taps.values()), stride, width, cue_width)
        if {key: value.shape for key, value in cue.state_dict().items()} != {k: v.shape for k, v in state.items()}:
            raise damaged
        cue.load_state_dict(state, assign=True)
        return HeadFile(cue.eval(), taps, header["pose_sha256"], header["hpe_text"], header["hpe_classes"])
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RuntimeError):
        raise damaged from None
