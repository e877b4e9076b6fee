"""A trained run, asked about anybody's video: extract and evaluate in one breath, with the asker's own labels.

Reads a run's final encoder and method, its extraction's index and text bank, and videos; writes nothing.
    posebridge predict video.mp4 --labels "shaking hands, pushing, hugging" --run posebridge_tinypose
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from pipeline.errors import PosebridgeError
from pipeline.extract.boxes import BoxSource, known_boxes
from pipeline.extract.ground_truth import GroundTruth
from pipeline.files.device import CPU, memory_for
from pipeline.files.hashing import fingerprint
from pipeline.files.names import check_name
from pipeline.files.yaml_file import read_yaml
from pipeline.hpe.weights import resolve_weights
from pipeline.learn.confidence import NONE, Confidence, read_confidence
from pipeline.learn.dataset import Dataset, open_dataset
from pipeline.learn.feature_table import Encoder
from pipeline.learn.features import Samples, load_samples
from pipeline.learn.run import Opened, open_run
from pipeline.learn.score import score_clips
from pipeline.learn.trained import hash_of, load_method, model_folder, skeleton_encoder
from pipeline.manifest.clips import Clip
from pipeline.manifest.failure import Failure
from pipeline.methods.base import Method
from pipeline.params import Params, RunParams, choose
from pipeline.predict.live import LivePoses, Row
from pipeline.predict.words import Asked, label_text
from pipeline.recipe import Recipe
from pipeline.synth.catalogue import PROTOCOLS

NOBODY = "no person found"
SHOWN = 3  # other places where a run is trained, in an error


@dataclass(frozen=True)
class Ranked:
    """One label: `confidence` is its share of 1, `score` the cosine behind it."""

    label: str
    confidence: float
    score: float


@dataclass(frozen=True)
class Prediction:
    """The answer for one clip. `ranking` has the best label first; it is empty where `reason` tells why: nobody is in
    the clip, or it `failed` since its frames do not decode. `none` is the share of none of these, None where that
    cannot be told; `answer` the best label, or `none of these` where that has more than half.
    """

    video: str
    start: float  # seconds
    end: float
    ranking: tuple[Ranked, ...]
    reason: str = ""
    persons: int = 0
    failed: bool = False
    answer: str = ""
    none: float | None = None


class Scorer(Protocol):
    """What gives every label a score: a trained run here, nearest examples in `examples`."""

    labels: tuple[str, ...]
    cues: bool  # whether it looks at cues
    temperature: float  # of the training: a softmax by it gives the shares where there is no `confidence`
    confidence: Confidence | None  # learnt of clips that were kept out
    key: str  # a hash of all that its answers rest on

    def scores(self, samples: Samples) -> np.ndarray:
        """Scores [N, C]."""
        ...


class RunScorer(Scorer):
    """A trained run with the asker's labels. The temperature is the one that the run was trained with."""

    def __init__(self, model: TrainedRun, asked: Asked):
        self.labels, self._model = asked.labels, model
        self.cues = bool(model.opened.shapes.d_cue)
        self.temperature = model.method.temperature
        self.text, self.described = label_text(model.opened, model.method, asked)  # [C, K, d_t]
        self.scope = self._scope()
        self.confidence = read_confidence(model.selection, self.scope)
        weights, bank = model.selection.get("weights_sha256"), model.opened.bank
        # not the vectors of the words: another device's differ in their last bits
        words = sorted(asked.texts.items()), bank.encoder_sha256, hash_of(bank.embeddings)
        self.key = fingerprint(weights, model.recipe.fingerprint, self.labels, words, self.confidence)

    def _scope(self) -> str:
        """What is known of such labels; see learn/confidence.py."""
        names, lower = self._model.opened.split.class_names, {label.lower() for label in self.labels}
        if self.described != "classes":
            return self.described
        return "classes" if lower <= {names[c].lower() for c in self._model.opened.split.seen} else "words"

    def scores(self, samples: Samples) -> np.ndarray:
        model = self._model
        return score_clips(model.opened, model.encoder, model.method, samples, self.text)


@dataclass(frozen=True)
class TrainedRun:
    """The final phase of one seed of a run, and the recipe that it must be shown videos by."""

    opened: Opened
    encoder: Encoder
    method: Method
    recipe: Recipe
    synthetic: bool  # trained on generated data
    selection: Mapping[str, Any] = field(default_factory=dict)  # what its selection phase chose and learnt


@memory_for("The run")
def load_run(
    dataset_name: str, protocol: str, run_name: str, params: Params, *, seed: int = 0, recipe_name: str | None = None,
    manifests: Path = Path("manifests"), cache: Path = Path("cache"), store_root: Path | None = None,
    device: torch.device = CPU,
) -> TrainedRun:  # fmt: skip
    """Load a run for videos, onto `device`. Raises PosebridgeError, with the commands that help, where it is not
    trained, or was trained with another recipe than the one asked for or than params.yaml has now.
    """
    run = choose_run(params, run_name).of(protocol)
    choose(params.recipes, run.recipe, "recipe")
    what = f"--dataset {dataset_name} --protocol {protocol}"
    remedy = (
        f"`posebridge extract --dataset {dataset_name} --recipe {recipe_name or run.recipe}`, "
        f"`posebridge encode {what} --skeletons {recipe_name or run.recipe}` and "
        f"`posebridge train {what} --run {run_name}`"
    )
    if recipe_name is not None and recipe_name != run.recipe:
        choose(params.recipes, recipe_name, "recipe")
        raise PosebridgeError(
            f"The run {run_name!r} is trained with the recipe {run.recipe!r}, not {recipe_name!r}; leave --recipe out, "
            f"or set `recipe: {recipe_name}` for a run in params.yaml and run {remedy}."
        )
    folder = model_folder(cache, dataset_name, protocol, run_name) / f"seed-{seed}"
    if not (folder / "final.safetensors").is_file():
        raise PosebridgeError(
            f"The run {run_name!r} is not trained on {dataset_name}, protocol {protocol}, seed {seed}"
            f"{trained_elsewhere(cache, run_name)}; run {remedy} (and `posebridge text --dataset {dataset_name}` "
            f"before, where there is no text bank)."
        )
    refuse_other_recipe(folder / "params.yaml", run_name, run, remedy)
    dataset: Dataset = open_dataset(dataset_name, manifests, cache, store_root)
    opened = open_run(dataset, protocol, run)
    recipe = resolve_weights(params.recipes[run.recipe])
    if recipe.fingerprint not in opened.fingerprints:
        raise PosebridgeError(
            f"The recipe {run.recipe!r} in params.yaml is not the one that {dataset_name} was extracted with; put it "
            f"back, or run {remedy} again."
        )
    encoder = skeleton_encoder(opened, seed, "final", unchanged=False)  # clips.csv may have grown since
    method, selection = load_method(opened, protocol, run_name, seed, unchanged=False)
    return TrainedRun(opened, encoder.to(device), method.to(device), recipe, dataset_name in PROTOCOLS, selection)


def choose_run(params: Params, run_name: str) -> RunParams:
    """A run of params.yaml that can be asked about videos. Raises PosebridgeError where there is none of this name."""
    run: RunParams = choose(params.runs, run_name, "run")
    if run.skeletons == "gt":
        raise PosebridgeError(
            f"The run {run_name!r} is trained on true skeletons, which no video has; name a run on estimated ones."
        )
    return run


def refuse_other_recipe(path: Path, run_name: str, run: RunParams, remedy: str) -> None:
    """Compare the run as it was trained, from the params.yaml beside its weights, with the run as it is now."""
    trained = read_yaml(path, f"run {remedy}") if path.is_file() else {}
    try:
        was = trained.get("runs", {}).get(run_name, {}).get("recipe", run.recipe)
    except AttributeError:
        raise PosebridgeError(f"{path} is not as `posebridge train` writes it; run {remedy}.") from None
    if was != run.recipe:
        raise PosebridgeError(
            f"The run {run_name!r} was trained with the recipe {was!r}, but params.yaml now says {run.recipe!r}; put "
            f"`recipe: {was}` back, or run {remedy}."
        )


def listed_boxes(dataset: Dataset, root: Path, recipe: Recipe, videos: Sequence[Path]) -> BoxSource | None:
    """The boxes that a data set with `boxes: manifest` has of its own videos; None where one of `videos` is not its.

    `root` is the folder that the paths of clips.csv are relative to.
    """
    if recipe.boxes != "manifest":
        return None
    ids = {clip.file(root).resolve(): clip.clip_id for clip in dataset.clips}
    if not all(path.resolve() in ids for path in videos):
        return None
    truth = GroundTruth(root / "ground_truth.h5")
    return known_boxes(truth, recipe, lambda clip: ids[clip.file(Path()).resolve()])


def find_trained(
    cache: Path, run_name: str, dataset: str | None = None, protocol: str | None = None
) -> tuple[str, str]:
    """The data set and the protocol that a run is trained with, where they are not both named; of several protocols
    `all_seen`. Raises PosebridgeError where there is no such pair, where several are left, and for what is no name.
    """
    check_place(dataset, protocol)
    if dataset and protocol:
        return dataset, protocol
    places = trained_places(cache, run_name, dataset or "*", protocol or "*")
    preferred = places if protocol else [place for place in places if place[1] == "all_seen"] or places
    if len(preferred) == 1:
        return preferred[0]
    if places:
        raise PosebridgeError(
            f"The run {run_name!r} is trained with {listed(preferred)}; choose with --dataset and --protocol."
        )
    wanted = f"--dataset {dataset or 'NAME'} --protocol {protocol or 'all_seen'}"
    raise PosebridgeError(
        f"The run {run_name!r} is trained on no {f'protocol of {dataset}' if dataset else 'data set'}"
        f"{f' with the protocol {protocol}' if protocol else ''}{trained_elsewhere(cache, run_name)}; run `posebridge "
        f"extract`, `posebridge text`, `posebridge encode` and `posebridge train {wanted} --run {run_name}` first."
    )


def check_place(dataset: str | None, protocol: str | None) -> None:
    """Raise PosebridgeError for what is no name, where one is given."""
    for name, what in ((dataset, "data set"), (protocol, "protocol")):
        if name is not None:
            check_name(name, what)


def trained_places(cache: Path, run_name: str, dataset: str = "*", protocol: str = "*") -> list[tuple[str, str]]:
    """The (data set, protocol) pairs that a run is trained with."""
    found = cache.glob(f"models/{dataset}/{protocol}/{run_name}/seed-*/final.safetensors")
    return sorted({(path.parts[-5], path.parts[-4]) for path in found})


def trained_elsewhere(cache: Path, run_name: str) -> str:
    """Where else a run is trained, as the rest of a sentence; empty where nowhere."""
    places = trained_places(cache, run_name)
    return f" (but with {listed(places)})" if places else ""


def listed(places: Sequence[tuple[str, str]]) -> str:
    """The first few places as options of the command line."""
    found = [f"`--dataset {dataset} --protocol {protocol}`" for dataset, protocol in places]
    more = f" and {len(found) - SHOWN} others" if len(found) > SHOWN else ""
    return " and ".join(found[:SHOWN]) + more


def predict(
    clips: Iterable[Clip], live: LivePoses, scorer: Scorer, top: int = 3
) -> Iterator[tuple[Prediction, Row | None]]:
    """An answer for every clip, in their order, and its row of poses where somebody was seen. The clips of one video
    follow each other.
    """
    for clip, row in live.rows(clips):
        start, end = clip.start or 0.0, clip.end or 0.0
        if isinstance(row, Failure):
            reason = NOBODY if row.stage == "track" else row.reason
            yield Prediction(clip.path, start, end, (), reason, failed=row.stage != "track"), None
            continue
        reader = live.reader([row])
        persons = int(row["person_valid"].any(-1).sum())
        try:
            scores = scorer.scores(load_samples(reader.clip_ids, reader, reader if scorer.cues else None))[0]
        except PosebridgeError as error:  # of this clip: others have an answer
            yield Prediction(clip.path, start, end, (), str(error).rstrip("."), persons, failed=True), row
            continue
        ranking, none = rank(scorer, scores, top)
        answer = NONE if none is not None and none > 0.5 else ranking[0].label
        yield Prediction(clip.path, start, end, ranking, "", persons, answer=answer, none=none), row


def rank(scorer: Scorer, scores: np.ndarray, top: int) -> tuple[tuple[Ranked, ...], float | None]:
    """The best `top` labels of scores [C], and the share of none of these; all labels' shares and this make 1."""
    plain = Confidence(scorer.temperature, None, 0, 0, 0.0, 0.0)
    shares, none = (scorer.confidence or plain).shares(scores)
    order = np.argsort(-scores, kind="stable")[:top]
    found = tuple(Ranked(scorer.labels[c], round(float(shares[c]), 4), round(float(scores[c]), 4)) for c in order)
    told = scorer.confidence is not None and scorer.confidence.none is not None
    return found, round(float(none), 4) if told else None


def told_shares(prediction: Prediction) -> list[str]:
    """The answer's labels with their shares, and none of these in its place: first where it is the answer."""
    found = [f"{ranked.label} {ranked.confidence:.0%}" for ranked in prediction.ranking]
    if prediction.none is not None:
        found.insert(0 if prediction.answer == NONE else len(found), f"{NONE} {prediction.none:.0%}")
    return found


def told_confidence(confidence: Confidence | None) -> str:
    """How far shares can be trusted, in a sentence."""
    if confidence is None:
        return (
            f"Shares are not calibrated, and {NONE} cannot be told: there were too few clips to learn it of, or the "
            "run is older than this."
        )
    of = f"Shares are calibrated on {confidence.clips} clips of {confidence.classes} actions"
    if confidence.none is None:
        return f"{of}, where {NONE} could hardly be told from the labels: every answer is one of them."
    told, lost = f"{confidence.told:.0%}", f"{confidence.lost:.0%}"
    return f"{of}; there {told} of those without their action among the labels were told, and {lost} with it lost."


