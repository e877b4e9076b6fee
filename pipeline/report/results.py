"""Results as `evaluate` wrote them, read with care: one `Result` a seed, and all of them as one DataFrame.

Reads `cache/results/<dataset>/<protocol>/<run>/seed-<k>/{metrics.json, predictions.csv, params.yaml}`. Writes
nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NotRequired

import pandas as pd
from pydantic import ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from pipeline.errors import PosebridgeError
from pipeline.files.yaml_file import read_yaml
from pipeline.report.answers import NOTHING, read_answers

MOST_BYTES = 64 << 20  # of a metrics.json
MOST_CLIPS = 1 << 31
PLACE = ["dataset", "protocol", "run", "seed"]
AGAIN = "run `posebridge evaluate` again or remove it"
Fraction = Annotated[FiniteFloat, Field(ge=0, le=1)]
Amount = Annotated[FiniteFloat, Field(ge=0)]
Count = Annotated[int, Field(ge=0, le=MOST_CLIPS)]
Some = Annotated[int, Field(ge=1, le=MOST_CLIPS)]
MORE = with_config(ConfigDict(extra="allow"))


class Zsl(TypedDict):
    """Accuracy among the unseen classes, of `n` clips; `ci95` is the interval of top1, over tuples where there are
    twins. No top5 where there are no more classes.
    """

    top1: Fraction
    top5: NotRequired[Fraction | None]
    macro: Fraction
    n: Some
    ci95: tuple[Fraction, Fraction]


class Gzsl(TypedDict):
    """Accuracy among all classes."""

    seen: Fraction
    unseen: Fraction
    harmonic: Fraction
    ausuc: Fraction


@MORE
class Adapted(TypedDict):
    """As Zsl, after the adaptation at test time that is named by `by`."""

    top1: Fraction
    ci95: NotRequired[tuple[Fraction, Fraction]]
    by: NotRequired[str]


class Half(TypedDict):
    """One half of the answers, see protocol/halves.py; `values`: value -> (right answers, clips)."""

    right: Fraction
    macro: Fraction | None
    values: dict[str, tuple[Count, Some]]


class Twins(TypedDict):
    """Whether the object is right where the candidates are those of one motion; `n` clips."""

    right: Fraction
    chance: Fraction
    n: Some
    ci95: tuple[Fraction, Fraction]


class Ceiling(TypedDict):
    """What the skeleton alone and the object alone can reach; the most twins of one tuple that were right."""

    skeleton: Fraction
    cue: Fraction
    twin_hits_max: NotRequired[Count | None]


@MORE
class Adaptation(TypedDict, total=False):
    """The adaptation whose values were chosen."""

    by: str


@MORE
class Selection(TypedDict, total=False):
    """What was chosen, and the seconds of the training: CPU time, on a GPU wall time. `device` and `precision` are
    where and how it computed; `zsl_top1` and `gzsl_ausuc` are of the selection phase, on pseudo-unseen classes, and
    `scores_by_epoch` what it looked at; `trained_on` is a hash of the extractions, clips, classes and texts that the
    method has learnt from.
    """

    zsl_top1: Fraction
    gzsl_ausuc: Fraction
    seconds: Amount
    adapt: Adaptation
    device: str
    precision: str
    scores_by_epoch: list[FiniteFloat]
    trained_on: str


@dataclass(frozen=True)
class Result:
    """One metrics.json: one run, one seed. `missing` are the test clips whose extraction failed, `repeated` those that
    repeat a train clip, None where nobody has looked; `classes_without_clips` are the classes that no figure counts,
    since all their test clips failed (empty where it was not told yet); `device` is where clips were scored. `features`
    are `imported` where the skeleton encoder or the cues are of others, else `computed`. `boxes` says where persons
    were known from, see recipe.py (empty: nobody says), `box_iou` how far jittered boxes overlap with the true ones.
    `training_dataset` is another one than `dataset` that was trained on, `overlapping_classes` are those of `dataset`
    that it has, too; None otherwise. `text_sha256` is of the descriptions and the weights of their encoder, empty where
    it was not told yet. `cues_from` tells in words where cues come from; empty where there are none, and where it was
    not told yet. `web_data` is what of the web an image-text model has seen, as its recipe declares.
    """

    dataset: str
    protocol: str
    run: str
    method: str
    flags: dict[str, Any]
    seed: int
    recipe: str
    text: str
    hpe_text: str
    skeletons: str
    test_variant: str
    zsl: Zsl
    gzsl: Gzsl | None
    adapted: Adapted | None
    selection: Selection
    ceiling: Ceiling | None
    params: Amount | None
    gflops: Amount | None
    seconds: Amount | None
    missing: Count = 0
    repeated: Count | None = None
    classes_without_clips: tuple[str, ...] = ()
    device: str = ""
    halves: dict[str, Half] | None = None
    twins: Twins | None = None
    features: str = "computed"
    boxes: str = ""
    box_iou: Fraction | None = None
    training_dataset: str | None = None
    overlapping_classes: list[str] | None = None
    text_sha256: str = ""
    cues_from: str = ""
    web_data: str = ""
    folder: Path = Path()

    @property
    def joints(self) -> str:
        """The recipe whose joints it saw; empty for imported features."""
        return {"estimated": self.recipe, "imported": ""}.get(self.skeletons, self.skeletons)

    @property
    def reference(self) -> str:
        """What it is a reference of, beside posebridge and its baselines and no part of them; empty for these."""
        return "" if self.cues_from == "pose model" else self.cues_from

    @property
    def adapted_by(self) -> str | None:
        """The name of the adaptation at test time."""
        return self.adapted.get("by") if self.adapted else None

    @property
    def ceilings(self) -> tuple[float, float] | None:
        """Of the skeleton and of the cues; the hits beside them differ by seed, these must not."""
        return (self.ceiling["skeleton"], self.ceiling["cue"]) if self.ceiling else None

    @property
    def test_clips(self) -> int:
        """How many clips of unseen classes were answered."""
        return self.zsl["n"]

    @property
    def answers(self) -> pd.DataFrame:
        """Clip by clip, see answers.py; no rows where predictions.csv is of another form."""
        return self._answers[0]

    @property
    def unanswered(self) -> str:
        """The sentence on a predictions.csv of another form; else empty."""
        return self._answers[1]

    @cached_property
    def _answers(self) -> tuple[pd.DataFrame, str]:
        try:
            return read_answers(self.folder / "predictions.csv"), ""
        except PosebridgeError as error:
            return NOTHING, str(error)

    @cached_property
    def trained(self) -> dict[str, Any]:
        """The sections `encode` and `train` of the parameters beside it; empty where they cannot be read."""
        try:
            resolved = read_yaml(self.folder / "params.yaml", "run `posebridge evaluate`")
            return {name: dict(resolved[name]) for name in ("encode", "train")}
        except (PosebridgeError, KeyError, TypeError, ValueError):
            return {}


_RESULT = TypeAdapter(Result)


def read_result(path: Path) -> Result | None:
    """Read one metrics.json; None where no class is unseen (`all_seen`), so that it has no place in a table.

    Raises PosebridgeError if it is not JSON, is not as `evaluate` writes it, or lies in a foreign folder.
    """
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            raise OSError
        result = _RESULT.validate_json(path.read_bytes(), strict=True)
    except OSError:
        raise PosebridgeError(f"{path} is not readable as JSON; {AGAIN}.") from None
    except ValidationError as error:
        problems = error.errors(include_url=False)
        if any(problem["loc"] == ("zsl",) and problem["input"] is None for problem in problems):
            return None
        raise PosebridgeError(f"{path} {_told(problems)}; {AGAIN}.") from None
    if path.parts[-5:-1] != (result.dataset, result.protocol, result.run, f"seed-{result.seed}"):
        raise PosebridgeError(f"{path} does not belong there: it says {result.dataset}, {result.protocol}, "
                              f"{result.run}, seed {result.seed}; {AGAIN}.")  # fmt: skip
    return replace(result, folder=path.parent)


def _told(problems: list[Any]) -> str:
    """What pydantic found, as the rest of a sentence."""
    names = [".".join(map(str, problem["loc"]))[:200] for problem in problems]
    lacking = [name for name, problem in zip(names, problems, strict=True) if problem["type"] == "missing"]
    if lacking:
        return f"lacks {', '.join(lacking)}"
    if problems[0]["type"] == "json_invalid":
        return "is not readable as JSON"
    return f"is not as it should be: {names[0] or 'it'}: {problems[0]['msg']}"


def read_results(folder: Path) -> tuple[list[Result], list[str]]:
    """All results below a folder of `cache/results`, and one sentence for each file that is none."""
    found, complaints = [], []
    for path in sorted(folder.glob("**/metrics.json")):
        try:
            result = read_result(path)
        except PosebridgeError as error:
            complaints.append(str(error))
        else:
            found += [result] if result else []
    return found, complaints


def frame(results: Iterable[Result]) -> pd.DataFrame:
    """One row a result, nested values in columns of their own: `zsl_top1`, `flags_gate`, `selection_alpha`.

    Where a result has no such value, the cell is NaN.
    """
    names = [field.name for field in fields(Result)]
    rows = [{name: value for name in names if (value := getattr(result, name)) is not None} for result in results]
    table = pd.json_normalize(rows, sep="_")
    return table.reindex(columns=[*PLACE, *table.columns.difference(PLACE, sort=False)])


def results(folder: Path | str = "cache/results") -> pd.DataFrame:
    """All figures of every run and seed, for a notebook.

    Args:
        folder: where `evaluate` wrote, of a project elsewhere `"…/cache/results"`.

    Returns:
        A row for each run and seed: `dataset`, `protocol`, `run`, `seed`, and then what `evaluate` found, nested values
        in columns of their own: `zsl_top1`, `gzsl_harmonic`, `flags_gate`, `selection_alpha`, `seconds`. Accuracies are
        fractions; where a run has no such value, there is NaN. What is left out, and why, is a warning.
    """
    found, complaints = read_results(Path(folder))
    for complaint in complaints:
        warnings.warn(complaint, stacklevel=2)
    return frame(found)
