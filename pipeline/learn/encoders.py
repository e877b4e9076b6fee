"""Opening trained skeleton encoders: where they lie, and what they have learnt from.

Reads cache/encoders/<dataset>/<protocol>/<skeletons>/seed-<k>/; writes nothing. An encoder is compared with the hash
that was noted when it was written, and with the clips and classes that there are now.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pipeline.cache.sealed import read_sealed
from pipeline.errors import PosebridgeError
from pipeline.files.hashing import fingerprint
from pipeline.files.names import check_name
from pipeline.files.tensors import load_tensors
from pipeline.learn.dataset import Dataset
from pipeline.protocol.training_set import Phase, training_phase
from pipeline.skeleton.base import SkeletonEncoder
from pipeline.skeleton.encoders import ENCODERS

MOST_BLOCKS, MOST_JOINTS, MOST_PERSONS = 64, 1000, 1000  # of an encoder that is read from a file


def encoder_folder(cache: Path, dataset: str, protocol: str, skeletons: str) -> Path:
    """Where the encoders of (dataset, protocol, skeletons) lie."""
    check_name(skeletons, "recipe")
    return cache / "encoders" / check_name(dataset, "data set") / check_name(protocol, "protocol") / skeletons


def encoder_learnt_from(dataset: Dataset, skeletons: str, phase: Phase) -> str:
    """What an encoder has learnt from: the extraction, its clips with their labels, the classes."""
    reader = dataset.reader(skeletons)
    there = set(reader.clip_ids)
    clips = [(clip.clip_id, clip.label) for clip in phase.train if clip.clip_id in there]
    return fingerprint(reader.fingerprint, phase.classes, clips)


def load_encoder(
    dataset: Dataset, protocol: str, skeletons: str, seed: int, phase: str, unchanged: bool = True
) -> SkeletonEncoder:
    """A trained encoder in eval mode. Raises PosebridgeError naming the command that makes it anew.

    `unchanged` refuses one that has learnt from other clips or classes than the protocol's phase has now: test clips
    might be among them. Only who tests nothing may do without.
    """
    path, values, remedy = told_of_encoder(dataset, protocol, skeletons, seed, phase)
    if unchanged:
        now = training_phase(phase, dataset.split(protocol), dataset.clips)
        if values.get("trained_on") != encoder_learnt_from(dataset, skeletons, now):
            raise PosebridgeError(
                f"{path} was trained on other clips, classes or another extraction than {protocol} has now, maybe on "
                f"its test clips; {remedy} again."
            )
    weights = load_tensors(path, values.get("weights_sha256"), f"{remedy} again")
    try:
        joints, classes, width = values["joints"], len(values["classes"]), values["width"]
        blocks, inputs = tuple(values["blocks"]), values["inputs"]
        made, persons = ENCODERS[values.get("encoder", "light")], values.get("persons", 1)
        if min(blocks, default=0) < 0 or sum(blocks) > MOST_BLOCKS or joints > MOST_JOINTS or persons > MOST_PERSONS:
            raise ValueError
        with torch.device("meta"):  # takes no memory, which its own file might not fill
            wanted = made(joints, classes, width, blocks, 0.0, inputs, persons).state_dict()
        if {name: value.shape for name, value in wanted.items()} != {name: w.shape for name, w in weights.items()}:
            raise ValueError
        encoder = made(joints, classes, width, blocks, 0.0, inputs, persons)
        encoder.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError):
        raise PosebridgeError(f"{path} is not the encoder that the .json beside it tells of; {remedy} again.") from None
    return encoder.eval().requires_grad_(False)


def told_of_encoder(
    dataset: Dataset, protocol: str, skeletons: str, seed: int, phase: str
) -> tuple[Path, dict[str, Any], str]:
    """The file of an encoder, what the .json beside it tells, and how to make it where it is not there."""
    path = encoder_folder(dataset.cache, dataset.name, protocol, skeletons) / f"seed-{seed}" / f"{phase}.safetensors"
    remedy = f"run `posebridge encode --dataset {dataset.name} --protocol {protocol} --skeletons {skeletons}`"
    if not path.is_file():
        raise PosebridgeError(f"{path} is missing; {remedy}.")
    return path, read_sealed(path.with_suffix(".json"), f"{remedy} again"), remedy
