"""Ceilings of skelgap's protocols, and the twins that make the skeleton's ceiling certain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import PosebridgeError
from pipeline.protocol.ceiling import ceilings, read_attributes, read_twins, twin_hits
from pipeline.synth.catalogue import DATASETS, PROTOCOLS

pytestmark = pytest.mark.unit
MANIFESTS = Path(__file__).parent.parent / "manifests"


def unseen_of(dataset: str, protocol: str) -> list[int]:
    names = [action.name for action in DATASETS[dataset]]
    return [names.index(name) for name in PROTOCOLS[dataset][protocol].unseen]


@pytest.mark.parametrize(
    ("dataset", "protocol", "skeleton", "cue"),
    [
        ("skelgap-mini", "compositional_18_6", 1 / 3, 1 / 2),
        ("skelgap", "compositional_30_10", 0.30, 0.40),
        ("skelgap", "novel_object_30_10", 0.50, 0.30),
        ("skelgap", "motion_only", 1.0, 0.20),
    ],
)
def test_ceilings_of_the_protocols(dataset: str, protocol: str, skeleton: float, cue: float) -> None:
    unseen = unseen_of(dataset, protocol)
    found = ceilings(MANIFESTS / dataset / "attributes.csv", unseen, dict.fromkeys(unseen, 40))
    assert found == pytest.approx({"skeleton": skeleton, "cue": cue}, abs=1e-12)


def test_unbalanced_groups_count_their_largest_class() -> None:
    attributes = MANIFESTS / "skelgap-mini" / "attributes.csv"
    counts = {18: 10, 19: 20, 20: 30, 21: 5, 22: 0, 23: 35}  # lift: bottle, umbrella, book; strike: the same
    assert ceilings(attributes, list(counts), counts) == pytest.approx({"skeleton": 0.65, "cue": (10 + 20 + 35) / 100})


def twins_of_mini(tuples: int) -> tuple[dict[str, str], dict[str, int], dict[str, np.ndarray]]:
    """Made-up twins: clip -> tuple, clip -> label, clip -> skeleton (one and the same array within a tuple)."""
    random = np.random.default_rng(0)
    twins: dict[str, str] = {}
    labels: dict[str, int] = {}
    skeletons: dict[str, np.ndarray] = {}
    for motion, classes in (("lift", (18, 19, 20)), ("chop", (21, 22, 23))):
        for number in range(tuples):
            skeleton = random.normal(size=8) + (motion == "lift") * 100
            for label in classes:
                clip = f"{motion}-{number}-{label}"
                twins[clip], labels[clip], skeletons[clip] = f"{motion}-{number}", label, skeleton
    return twins, labels, skeletons


def test_the_motion_oracle_reaches_the_ceiling_and_has_one_hit_in_every_tuple() -> None:
    twins, labels, skeletons = twins_of_mini(7)
    predictions = {clip: 18 if skeletons[clip].mean() > 50 else 22 for clip in twins}
    hits = twin_hits(twins, predictions, labels)
    assert set(hits.values()) == {1} and len(hits) == 14
    ceiling = ceilings(MANIFESTS / "skelgap-mini" / "attributes.csv", range(18, 24), dict.fromkeys(range(18, 24), 7))
    assert sum(hits.values()) / len(twins) == pytest.approx(ceiling["skeleton"])


def test_no_predictor_of_identical_skeletons_passes_the_ceiling() -> None:
    twins, labels, skeletons = twins_of_mini(5)
    for seed in range(50):
        weights = np.random.default_rng(seed).normal(size=(8, 6))  # any deterministic function of the skeleton
        predictions = {clip: 18 + int((skeletons[clip] @ weights).argmax()) for clip in twins}
        hits = twin_hits(twins, predictions, labels)
        assert max(hits.values()) <= 1 and sum(hits.values()) <= len(twins) / 3


def test_whoever_sees_the_label_is_caught() -> None:
    twins, labels, _ = twins_of_mini(2)
    assert max(twin_hits(twins, labels, labels).values()) == 3


def test_only_twins_with_a_prediction_count() -> None:
    """A protocol asks about its unseen classes: of tuples that also hold seen ones, and not of all tuples."""
    twins, labels, _ = twins_of_mini(1)
    asked = {clip: label for clip, label in labels.items() if label in (18, 19)}
    assert twin_hits(twins, asked, labels) == {"lift-0": 2}


def test_an_object_free_class_cannot_be_unseen() -> None:
    index = [action.name for action in DATASETS["skelgap"]].index("clap")
    with pytest.raises(PosebridgeError, match=f"class {index} has no object"):
        ceilings(MANIFESTS / "skelgap" / "attributes.csv", [index], {index: 3})


def test_without_an_unseen_class_there_is_no_ceiling() -> None:
    with pytest.raises(PosebridgeError, match="no unseen class, so it has no ceiling"):
        ceilings(MANIFESTS / "skelgap" / "attributes.csv", [], {0: 3})


def test_without_a_clip_of_the_unseen_classes_there_is_no_ceiling() -> None:
    with pytest.raises(PosebridgeError, match="no test clips of the unseen classes"):
        ceilings(MANIFESTS / "skelgap-mini" / "attributes.csv", [18, 19], {0: 3})


def test_twins_are_read_as_clip_and_tuple(tmp_path: Path) -> None:
    (tmp_path / "twins.csv").write_text("clip_id,tuple\na,one\nb,one\nc,two\n")
    assert read_twins(tmp_path / "twins.csv") == {"a": "one", "b": "one", "c": "two"}


def test_files_that_are_missing_or_wrong_are_named(tmp_path: Path) -> None:
    with pytest.raises(PosebridgeError, match="twins.csv is missing"):
        read_twins(tmp_path / "twins.csv")
    (tmp_path / "attributes.csv").write_text("index,motion\n0,lift\n")
    with pytest.raises(PosebridgeError, match="lacks the column object"):
        read_attributes(tmp_path / "attributes.csv")
    with pytest.raises(PosebridgeError, match="lacks the unseen class 99"):
        ceilings(MANIFESTS / "skelgap" / "attributes.csv", [99], {99: 1})


def test_a_clip_is_in_one_tuple_of_twins(tmp_path):
    path = tmp_path / "twins.csv"
    path.write_text("clip_id,tuple\na,1\na,1\nb,1\n")
    assert read_twins(path) == {"a": "1", "b": "1"}
    path.write_text("clip_id,tuple\na,1\na,2\n")
    with pytest.raises(PosebridgeError, match="line 3, column tuple: the clip 'a' is in another tuple already"):
        read_twins(path)
