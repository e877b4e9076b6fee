"""Opening trained methods, for testing and prediction, with their chosen values and the encoders below them.

Reads cache/models/<dataset>/<protocol>/<run>/seed-<k>/ and what encoders.py reads; writes nothing. Each file is
compared with the hash that was noted when it was written, and with the clips, classes and texts that there are now.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.cache.sealed import read_sealed
from pipeline.errors import PosebridgeError
from pipeline.files.hashing import fingerprint
from pipeline.files.names import check_name
from pipeline.files.tensors import load_tensors
from pipeline.learn.dataset import Dataset
from pipeline.learn.encoders import load_encoder, told_of_encoder
from pipeline.learn.feature_table import Encoder, Joints
from pipeline.learn.run import Opened
from pipeline.methods import find_adaptation, find_method
from pipeline.methods.adaptation import Adaptation
from pipeline.methods.base import Method
from pipeline.params import RunParams, TrainParams
from pipeline.protocol.training_set import Phase, training_phase


def model_folder(cache: Path, dataset: str, protocol: str, run: str) -> Path:
    """Where the models of a run lie."""
    check_name(run, "run")
    return cache / "models" / check_name(dataset, "data set") / check_name(protocol, "protocol") / run


def place_of_method(dataset: Dataset, protocol: str, run_name: str, seed: int) -> tuple[Path, str]:
    """The file of a seed's final method, and how to make it anew. Raises PosebridgeError where it is not there."""
    path = model_folder(dataset.cache, dataset.name, protocol, run_name) / f"seed-{seed}" / "final.safetensors"
    remedy = f"run `posebridge train --dataset {dataset.name} --protocol {protocol} --run {run_name}`"
    if not path.is_file() or not path.with_name("selection.json").is_file():
        raise PosebridgeError(f"{path} is missing; {remedy}.")
    return path, remedy


def method_learnt_from(opened: Opened, phase: Phase) -> str:
    """What a method has learnt from: extractions, clips with their labels, classes and their descriptions."""
    text = hash_of(opened.bank.embeddings[list(phase.classes)])
    return fingerprint(opened.fingerprints, phase.classes, [(c.clip_id, c.label) for c in phase.train], text)


def method_and_flags(run: RunParams) -> dict[str, Any]:
    """What a run's weights mean, as JSON gives it back: many a flag changes no weight's shape."""
    return json.loads(json.dumps({"method": run.method, "flags": run.flags}, default=str))


def hash_of(tensor: Tensor) -> str:
    """sha256 of its bytes."""
    return hashlib.sha256(tensor.cpu().contiguous().numpy().tobytes()).hexdigest()


def encoder_sha256(opened: Opened, seed: int) -> str | None:
    """The hash of the encoder below a seed's final method; None for a method that has its own, and imported features.
    """
    return _told_of_encoder(opened, seed).get("weights_sha256")


def settings_of(opened: Opened, params: TrainParams, seed: int) -> dict[str, Any]:
    """By what settings a seed is trained now: its encoder's, as they were, and the method's. What of it is unknown, or
    means nothing to the method, is left out.
    """
    encode = _told_of_encoder(opened, seed).get("settings")
    return ({"encode": encode} if isinstance(encode, dict) else {}) | {"train": dataclasses.asdict(params)}


def take_settings(selection: dict[str, Any]) -> dict[str, Any]:
    """Take out of a selection by what settings it was trained, as far as it tells: `settings_of` then."""
    told = selection.pop("settings", None)
    known = told if isinstance(told, dict) else {}
    return {name: known[name] for name in ("encode", "train") if isinstance(known.get(name), dict)}


def _told_of_encoder(opened: Opened, seed: int) -> dict[str, Any]:
    """Of the final encoder below a seed's method; nothing for a method that has its own, and imported features."""
    if opened.imported or find_method(opened.run.method).end_to_end:
        return {}
    return told_of_encoder(opened.dataset, opened.split.protocol, opened.skeletons, seed, "final")[1]


def skeleton_encoder(opened: Opened, seed: int, phase: str, unchanged: bool = True) -> Encoder:
    """The frozen encoder below a run's method; the joints themselves for a method that has its own, and imported
    features as they are. `unchanged` as in `load_encoder`.
    """
    if opened.imported or find_method(opened.run.method).end_to_end:
        return Joints().eval()
    return load_encoder(opened.dataset, opened.split.protocol, opened.skeletons, seed, phase, unchanged)


def load_method(
    opened: Opened, protocol: str, run_name: str, seed: int, unchanged: bool = True
) -> tuple[Method, dict[str, Any]]:
    """The final method of a seed with its chosen values set, in eval mode, and its selection, with its `settings`.

    `unchanged` refuses one that has learnt from other clips, classes or descriptions than the protocol has now: test
    clips might be among them. Only who tests nothing may do without.
    """
    path, remedy = place_of_method(opened.dataset, protocol, run_name, seed)
    chosen = path.with_name("selection.json")
    selection = read_selection(chosen, f"{remedy} again")
    if unchanged:
        phase = training_phase("final", opened.split, opened.dataset.clips)
        if selection.get("trained_on") != method_learnt_from(opened, phase):
            raise PosebridgeError(
                f"{path} was trained on other clips, classes, texts or extractions than {protocol} has now, maybe on "
                f"its test clips; {remedy} again."
            )
    if selection["weights_sha256"].get("encoder") != encoder_sha256(opened, seed):
        raise PosebridgeError(f"{path} was trained on another skeleton encoder than there is now; {remedy} again.")
    other = f"{path} is of another method or flags than the run {run_name!r} has now; run `posebridge train` again."
    if selection.pop("run", None) != method_and_flags(opened.run):  # figures name both themselves
        raise PosebridgeError(other)
    method = opened.method(len(opened.split.seen))
    try:
        method.load_state_dict(load_tensors(path, selection["weights_sha256"].get("final"), f"{remedy} again"))
    except RuntimeError:
        raise PosebridgeError(other) from None
    for name in method.choices:
        setattr(method, name, chosen_value(selection, name, chosen, f"{remedy} again"))
    return method.eval().requires_grad_(False), selection


def read_selection(path: Path, remedy: str) -> dict[str, Any]:
    """What the selection phase chose. Raises PosebridgeError, ending in `remedy`, where it is damaged."""
    selection = read_sealed(path, remedy)
    if not isinstance(selection.get("weights_sha256"), dict):
        raise PosebridgeError(f"{path} names no weights; {remedy}.")
    for name in ("gamma", *({"gamma_place"} & selection.keys())):  # earlier runs have no place
        chosen_value(selection, name, path, remedy)
    return selection


def chosen_value(values: dict[str, Any], name: str, path: Path, remedy: str) -> float:
    """A value of a selection; raises PosebridgeError where it is no finite number."""
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise PosebridgeError(f"{path} is damaged: {name} should be a number, but is {str(value)[:40]!r}; {remedy}.")
    return value


def load_adaptation(name: str, method: Method, selection: dict[str, Any]) -> Adaptation:
    """The adaptation of a trained run's method, with the values that its selection phase chose."""
    adaptation = find_adaptation(name)(method)
    values = selection.get("adapt")
    if not isinstance(values, dict) or values.get("by") != name:
        raise PosebridgeError(f"This run was trained without `adapt: {name}`; run `posebridge train` again.")
    for attribute in adaptation.choices:
        path = Path("selection.json")
        setattr(adaptation, attribute, chosen_value(values, attribute, path, "run `posebridge train` again"))
    return adaptation
