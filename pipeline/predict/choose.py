"""Which trained run answers where none is named: the best one that fits the videos and the labels.

Reads cache/models, params.yaml's runs and recipes, and manifests; writes nothing. No test result is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.cache.sealed import read_sealed
from pipeline.errors import PosebridgeError
from pipeline.files.shipped import dataset_folder
from pipeline.hpe.weights import resolve_weights
from pipeline.manifest.clips import read_classes
from pipeline.params import Params, choose
from pipeline.predict.predict import check_place, choose_run, trained_places
from pipeline.protocol.splits import read_split
from pipeline.synth.catalogue import PROTOCOLS

OTHERWISE = (
    "make one of your own videos with `posebridge init DIR`, or give --examples, a folder with a sub-folder of clips "
    "for every action, which needs no training"
)


@dataclass(frozen=True)
class Candidate:
    """A trained run that fits. `known` of the labels are classes of its data set; `own`: the videos are of it; `score`
    is what its epochs were chosen by, on train clips.
    """

    dataset: str
    protocol: str
    run: str
    own: bool
    known: int
    seen: int
    score: float

    @property
    def rank(self) -> tuple[bool, int, int, float]:
        """The higher the better: at home among these videos, knows more of the labels, has learnt from more classes,
        and only then did better while its values were chosen.
        """
        return self.own, self.known, self.seen, self.score


def best_run(
    params: Params, labels: Sequence[str], videos: Sequence[Path], dataset: str | None = None,
    protocol: str | None = None, seed: int = 0, cache: Path = Path("cache"), manifests: Path = Path("manifests"),
    otherwise: str = OTHERWISE,
) -> Candidate:  # fmt: skip
    """The best of the runs in the parameters that are trained, of one data set or protocol where they are named.

    Raises PosebridgeError, with the reason of the first and what to do `otherwise`, where none fits: its files are
    missing, or it is trained on generated people and the videos are none of these; and for what is no name.
    """
    check_place(dataset, protocol)
    fitting, reasons = [], []
    for name in params.runs:
        for place in trained_places(cache, name, dataset or "*", protocol or "*"):
            try:
                fitting.append(_candidate(params, name, *place, labels, videos, seed, cache, manifests))
            except PosebridgeError as error:
                reasons.append(f"{name} of {place[0]}, {place[1]}: {str(error).rstrip('.')}")
    if fitting:
        return max(fitting, key=lambda candidate: candidate.rank)  # of equals the first in the parameters
    if not reasons:
        raise PosebridgeError(f"No run of the parameters is trained here; {otherwise}.")
    count = "The one trained run does not fit" if len(reasons) == 1 else f"None of the {len(reasons)} trained runs fits"
    raise PosebridgeError(f"{count} ({reasons[0]}); name it with --run, {otherwise}.")


def _candidate(
    params: Params, name: str, dataset: str, protocol: str, labels: Sequence[str], videos: Sequence[Path], seed: int,
    cache: Path, manifests: Path,
) -> Candidate:  # fmt: skip
    root = Path(params.datasets[dataset].root).resolve() if dataset in params.datasets else None
    own = root is not None and all(path.resolve().is_relative_to(root) for path in videos)
    if dataset in PROTOCOLS and not own:
        raise PosebridgeError("it is trained on generated people.")
    run = choose_run(params, name).of(protocol)
    resolve_weights(choose(params.recipes, run.recipe, "recipe"))
    path = cache / "models" / dataset / protocol / name / f"seed-{seed}" / "selection.json"
    chosen = read_sealed(path, f"run `posebridge train --dataset {dataset} --protocol {protocol} --run {name}`")
    score = chosen.get("gzsl_ausuc", math.nan)
    folder = dataset_folder(manifests, dataset)
    classes = read_classes(folder / "classes.csv")
    seen = len(read_split(folder / "protocols", protocol, classes).seen)
    known = len({label.lower() for label in labels} & {each.lower() for each in classes})
    right = isinstance(score, float) and math.isfinite(score)
    return Candidate(dataset, protocol, name, own, known, seen, score if right else 0.0)
