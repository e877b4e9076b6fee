"""What a run of params.yaml reads, opened once for training and for testing: protocol, extractions, text bank.

Reads manifests/<dataset>/, cache/<dataset>/<recipe>/index.json and cache/text/<encoder>/<dataset>.h5.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from pipeline.dataset import Dataset
from pipeline.errors import PosebridgeError
from pipeline.features import Samples, load_samples
from pipeline.manifest import Clip
from pipeline.methods import find_method
from pipeline.methods.base import Method, Shapes
from pipeline.params import Params, RunParams
from pipeline.protocol.splits import Split
from pipeline.text.bank import TextBank, load_bank


@dataclass(frozen=True)
class Opened:
    """What a run reads, opened: shared by training and evaluation."""

    dataset: Dataset
    split: Split
    run: RunParams
    bank: TextBank
    skeletons: str  # the recipe that skeletons and encoder come from
    shapes: Shapes
    hpe_text: str  # what words the pose weights were exposed to
    fingerprints: tuple[str, ...]  # of the extractions

    def samples(self, clips: Sequence[Clip]) -> Samples:
        """The features of these clips, as far as their extraction succeeded."""
        skeletons = self.dataset.reader(self.skeletons)
        cues = self.dataset.reader(self.run.recipe) if self.shapes.d_cue else None
        return load_samples([clip.clip_id for clip in clips], skeletons, cues)

    def method(self, classes: int) -> Method:
        """A fresh method of this run."""
        return find_method(self.run.method)(self.shapes, classes, self.run.flags)


def open_run(dataset: Dataset, protocol: str, run: RunParams) -> Opened:
    """Open everything that a run reads. Raises PosebridgeError naming what is missing and the command that makes it."""
    if run.skeletons not in ("estimated", "gt"):
        raise PosebridgeError(f"skeletons should be estimated or gt, not {run.skeletons!r}.")
    skeletons = "gt" if run.skeletons == "gt" else run.recipe
    reads_cues = find_method(run.method).reads_cues(run.flags)
    bank = load_bank(dataset.name, run.text, dataset.class_names, dataset.cache)
    reader = dataset.reader(run.recipe if reads_cues else skeletons)
    recipe, shapes = reader.recipe, Shapes(bank.embeddings.shape[2], reader.recipe.persons)
    if reads_cues:
        if "cues" not in reader.names:
            raise PosebridgeError(f"The recipe {run.recipe!r} holds no cues; use another, or the method `skeleton`.")
        d_cue = reader.read(reader.clip_ids[:1], ("cues",))["cues"].shape[-1]
        shapes = replace(shapes, cue_frames=recipe.cue_frames, anchors=tuple(recipe.anchors), d_cue=d_cue)
    return Opened(
        dataset,
        dataset.split(protocol),
        run,
        bank,
        skeletons,
        shapes,
        hpe_text=getattr(recipe, "hpe_text", "unknown"),
        fingerprints=(reader.fingerprint, dataset.reader(skeletons).fingerprint),
    )


def write_resolved(
    path: Path, dataset: str, protocol: str, run_name: str, run: RunParams, params: Params, seed: int
) -> None:
    """The resolved parameters of a result, beside it."""
    values = {
        "dataset": dataset,
        "protocol": protocol,
        "run": run_name,
        "seed": seed,
        "runs": {run_name: dataclasses.asdict(run)},
        "encode": dataclasses.asdict(params.encode),
        "train": dataclasses.asdict(params.train),
    }
    plain = json.loads(json.dumps(values))  # tuples as lists
    path.write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")
