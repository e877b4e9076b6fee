"""What a run of params.yaml reads, opened once for training and for testing: protocol, extractions, text bank.

Reads manifests/<dataset>/, cache/<dataset>/<recipe>/index.json and cache/text/<encoder>/<dataset>.h5.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.cache.imported import require_unlearnt
from pipeline.cache.index import index_path
from pipeline.cache.reader import CacheReader
from pipeline.errors import PosebridgeError, all_missing
from pipeline.files.durable import write_for_people
from pipeline.files.yaml_file import yaml_text
from pipeline.learn.across import under
from pipeline.learn.dataset import Dataset
from pipeline.learn.features import Samples, StoredSamples, open_samples
from pipeline.manifest.clips import Clip
from pipeline.manifest.variants import of_variant
from pipeline.methods import METHODS, find_method, takes_cues, what_it_reads
from pipeline.methods.base import Method, Shapes
from pipeline.params import BEFORE, Params, RunParams
from pipeline.protocol.splits import Split
from pipeline.recipe import BOXES, CUES_ALONE, EXPOSURES, IMAGE_TEXT, POOLED, Recipe
from pipeline.skeleton.jitter import overlap
from pipeline.text.bank import TextBank
from pipeline.text.encoder import split_variant


@dataclass(frozen=True)
class Opened:
    """What a run reads, opened: shared by training and evaluation."""

    dataset: Dataset
    split: Split
    run: RunParams
    bank: TextBank
    skeletons: str  # the recipe that skeletons and encoder come from
    shapes: Shapes
    hpe_text: str  # what words the pose weights were exposed to; of skeletons and cues of two recipes, the more
    fingerprints: tuple[str, ...]  # of the extractions
    boxes: str  # where the persons are known from, one of BOXES; of skeletons and cues of two recipes, the less known
    box_overlap: float | None  # of jittered ones with the true ones, mean intersection over union
    imported: bool = False  # the skeletons are features of an encoder of others
    cues_imported: bool = False  # the cues are of a pose model of others
    cues_from: str = ""  # in words, see `Recipe.cues_told`; empty where no cues are read
    web_data: str = ""  # what of the web an image-text model has seen, as its recipe declares

    def samples(self, clips: Sequence[Clip], variant: str = "") -> Samples | StoredSamples:
        """The features of these clips, or of a variant of them, as far as their extraction succeeded: in memory, or on
        the disk where they are too many.
        """
        skeletons, cues = self.reader(self.skeletons, variant), None
        if self.shapes.d_cue:
            cues = skeletons if self.run.recipe == self.skeletons else self.reader(self.run.recipe, variant)
        return open_samples([clip.clip_id for clip in clips], skeletons, cues)

    def clips_of(self, variant: str, clips: Sequence[Clip]) -> tuple[Clip, ...]:
        """Those of `clips` that a variant has, extracted or failed."""
        reader = self.reader(self.skeletons, variant)
        there = {*reader.clip_ids, *(failure["clip_id"] for failure in reader.failures)}
        return tuple(clip for clip in clips if clip.clip_id in there)

    def reader(self, recipe: str, variant: str = "") -> CacheReader:
        """An extraction. Raises PosebridgeError for a variant that another version of the recipe extracted."""
        reader = self.dataset.reader(of_variant(recipe, variant))
        if variant and reader.fingerprint not in self.fingerprints:
            raise PosebridgeError(
                f"{of_variant(recipe, variant)} was extracted by another version of the recipe {recipe}; run "
                f"`posebridge extract --dataset {self.dataset.name} --recipe {recipe} --variant {variant}`."
            )
        return reader

    def words(self, classes: Sequence[int], slots: Sequence[str]) -> list[dict[str, str]]:
        """The texts of these classes, and of no other, in these slots; a slot that a class lacks is absent."""
        if not slots:
            return []
        _, texts = self.dataset.texts(split_variant(self.run.text)[1])
        return [{slot: texts[c, slot] for slot in slots if (c, slot) in texts} for c in classes]

    def method(self, classes: int) -> Method:
        """A fresh method of this run."""
        return find_method(self.run.method)(self.shapes, classes, self.run.flags)


def skeletons_of(run: RunParams) -> str:
    """The recipe that a run's skeletons and its encoder come from."""
    return run.recipe if run.skeletons == "estimated" else run.skeletons


def open_run(dataset: Dataset, protocol: str, run: RunParams) -> Opened:
    """Open everything that a run reads. Raises PosebridgeError naming what is missing and the command that makes it,
    and where imported features do not suffice for the method, or know classes that should be unseen.
    """
    dataset, skeletons = under(dataset, protocol), skeletons_of(run)
    reads_cues = takes_cues(run.method, run.flags)
    bank = dataset.bank(run.text)
    joints = reader = dataset.reader(skeletons)
    if reads_cues and run.recipe != skeletons:
        reader = dataset.reader(run.recipe)
    split = dataset.split(protocol)
    for name, each in ((skeletons, joints), *([(run.recipe, reader)] if reads_cues else [])):
        if each.recipe.backend == "features":
            index = index_path(dataset.cache, dataset.name, name)
            require_unlearnt(index, each.fingerprint, protocol, split.unseen, dataset.class_names)
    require_features(run, skeletons, joints.recipe)
    if reads_cues:
        if reader.recipe.hpe_text == "seen-classes" and not reader.recipe.hpe_classes:
            raise PosebridgeError(
                f"The cues of {run.recipe!r} were imported before it was noted whose classes' texts their pose model "
                "has seen; import them again."
            )
        dataset.require_unexposed(reader.recipe.hpe_classes, run.recipe, split)
    boxes = max(reader.recipe, joints.recipe, key=lambda recipe: BOXES.index(recipe.box_kind))
    recipe, inputs = reader.recipe, joints.recipe.dimensions + 1
    shapes = Shapes(bank.embeddings.shape[2], joints.recipe.persons, layout=joints.recipe.layout, inputs=inputs)
    if reads_cues:
        if "cues" not in reader.names:
            one = "" if dataset.trains_on == dataset.name else " that both data sets have of one recipe"
            raise PosebridgeError(
                f"The method {run.method} needs cues, but the recipe {run.recipe!r} holds no cues{one}; use another, "
                "or the method `skeleton`."
            )
        require_one_model(run, recipe, bank)
        shapes = replace(
            shapes, cue_frames=recipe.cue_frames, anchors=tuple(recipe.anchors), d_cue=reader.cue_width,
            cue_persons=recipe.persons,
        )  # fmt: skip
    return Opened(
        dataset,
        split,
        run,
        bank,
        skeletons,
        shapes,
        hpe_text=max(recipe.hpe_text, joints.recipe.hpe_text, key=EXPOSURES.index),
        fingerprints=(reader.fingerprint, joints.fingerprint),
        boxes=boxes.box_kind,
        box_overlap=overlap(boxes.box_shift, boxes.box_scale) if boxes.box_kind == "jittered" else None,
        imported=joints.recipe.backend == "features",
        cues_imported=reads_cues and recipe.backend == "features",
        cues_from=recipe.cues_told if reads_cues else "",
        web_data=recipe.web_data if reads_cues else "",
    )


def open_listed(dataset: Dataset, protocol: str, run: RunParams) -> Opened:
    """As `open_run`, with the list of clips that imported features have, for which there need be no clips.csv. Raises
    PosebridgeError where a data set that was opened without `strict` lacks anything else, too.
    """
    dataset = under(dataset, protocol).of(skeletons_of(run))
    if dataset.missing:
        raise all_missing(dataset.missing)
    return open_run(dataset, protocol, run)


def require_one_model(run: RunParams, recipe: Recipe, bank: TextBank) -> None:
    """Raise PosebridgeError where a method that compares pictures with words is given those of two models."""
    if not find_method(run.method).one_model:
        return
    if recipe.cues_from != IMAGE_TEXT:
        raise PosebridgeError(
            f"The method {run.method} compares pictures and words by one model, but the cues of {run.recipe} are those "
            f"of a {recipe.cues_told}; name a recipe with `cues_from: image-text`."
        )
    if bank.encoder_sha256 != recipe.image_text_sha256:
        raise PosebridgeError(
            f"The pictures of {run.recipe} and the words of {bank.encoder!r} are not of one image-text model; set the "
            "run's `text` to that of the recipe's `image_text`, and run `posebridge text` with it as --encoder."
        )


def require_features(run: RunParams, name: str, recipe: Recipe) -> None:
    """Raise PosebridgeError where imported features lack what a run's method reads."""
    method, reads = run.method, what_it_reads(run.method, run.flags)
    if recipe.layout == CUES_ALONE and run.flags.get("skeleton") is not False and not find_method(method).one_model:
        raise PosebridgeError(
            f"The method {method} reads skeletons, but {name} holds imported cues alone; name a recipe of some in the "
            "run's `skeletons`, or give `posebridge` or `cca` the flag `skeleton: false`."
        )
    if recipe.backend != "features" or reads == "features" or find_method(method).one_model:
        return
    cues = recipe.cues != "none"
    others = ", ".join(m for m, known in METHODS.items() if known.reads == "features" and (cues or not known.cues))
    if reads == "joints":
        raise PosebridgeError(
            f"The method {method} reads the joints themselves, but {name} holds imported features; methods that they "
            f"suffice for are {others}."
        )
    if recipe.layout == POOLED:
        raise PosebridgeError(
            f"The method {method} needs a map of frames and joints, but the features of {name} are pooled over both; "
            f"methods that they suffice for are {others}."
        )


def write_resolved(
    path: Path, dataset: str, protocol: str, run_name: str, run: RunParams, params: Params,
    settings: Mapping[str, Any], seed: int, variant: str = "",
) -> None:  # fmt: skip
    """The resolved parameters of a result, beside it: `encode` and `train` are those that it was trained by, where
    `settings` tells, whatever `params` say by now; where it does not, those of `params` that there were by then.
    """
    values = {
        "dataset": dataset,
        "protocol": protocol,
        "run": run_name,
        "seed": seed,
        "test_variant": variant,
        "runs": {run_name: dataclasses.asdict(run)},
        "encode": dataclasses.asdict(params.encode) | BEFORE["encode"],
        "train": dataclasses.asdict(params.train) | BEFORE["train"],
        **settings,
    }
    plain = json.loads(json.dumps(values))  # tuples as lists
    write_for_people(path, yaml_text(plain).encode())
