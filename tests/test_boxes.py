"""Boxes that are a little wrong: jittered alike every time, with an overlap that is known, and told in every table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fabricated import write_run

from pipeline.errors import PosebridgeError
from pipeline.extract.boxes import box_source
from pipeline.manifest.clips import Clip
from pipeline.params import load_params
from pipeline.recipe import Recipe
from pipeline.report.leaderboard import board, rows, text_table, write_markdown
from pipeline.report.runs import read_runs
from pipeline.skeleton.jitter import jittered, overlap

pytestmark = pytest.mark.unit
TRUE = Recipe(boxes="manifest")
JITTERED = replace(TRUE, box_shift=0.05, box_scale=0.08)
SKELGAP = Path(__file__).parent.parent / "params" / "skelgap.yaml"


def found(recipe: Recipe, clip_id: str, position: int, box: np.ndarray) -> np.ndarray:
    """The box in which a recipe's pose model is to look."""
    truth: Any = SimpleNamespace(box=lambda clip_id, position: box)
    ((boxes, sure),) = box_source(recipe, truth).find([((256, 256), position, [Clip(clip_id, "")])])[0]
    assert sure.tolist() == [1]
    return boxes[0]


def test_a_box_is_jittered_by_its_clip_and_frame_alone() -> None:
    box = np.array([40, 30, 60, 150], np.float32)
    assert np.array_equal(found(TRUE, "a", 3, box), box)
    one = found(JITTERED, "a", 3, box)
    assert one.dtype == np.float32 and not np.array_equal(one, box)
    assert np.array_equal(one, found(JITTERED, "a", 3, box)), "an extraction is repeated in every bit"
    others = [found(JITTERED, "a", 4, box), found(JITTERED, "b", 3, box)]
    assert not any(np.array_equal(one, other) for other in others)
    moved = found(JITTERED, "a", 3, box * 2)
    assert np.allclose(moved, one * 2, atol=1e-3), "by fractions of the box"


@pytest.mark.parametrize(("shift", "scale"), [(0.05, 0.08), (0.1, 0.15), (0.0, 0.2)])
def test_the_overlap_that_is_told_is_the_one_that_there_is(shift: float, scale: float) -> None:
    rng, measured = np.random.default_rng(1), []
    for number in range(1500):
        x, y, w, h = box = rng.uniform([0, 0, 20, 60], [200, 200, 120, 240]).astype(np.float32)
        a, b, c, d = jittered(box, f"clip-{number}", number % 32, shift, scale)
        common = max(0, min(x + w, a + c) - max(x, a)) * max(0, min(y + h, b + d) - max(y, b))
        measured.append(common / (w * h + c * d - common))
    assert np.mean(measured) == pytest.approx(overlap(shift, scale), abs=0.012)
    assert overlap(0.0, 0.0) == 1


def test_the_stores_there_are_keep_their_fingerprints() -> None:
    assert "box_" not in TRUE.canonical_json() and "box_shift" in JITTERED.canonical_json()
    assert TRUE.fingerprint != JITTERED.fingerprint != replace(JITTERED, box_scale=0.1).fingerprint
    for recipe in (replace(TRUE, boxes="full_frame"), replace(TRUE, boxes="detector", detector="d.onnx")):
        with pytest.raises(PosebridgeError, match="go with `boxes: manifest` only"):
            replace(recipe, box_shift=0.1)


def test_a_recipe_says_where_persons_are_known_from() -> None:
    known = load_params(SKELGAP).recipes
    assert [known[name].box_kind for name in ("refined", "gt", "jittered", "detected")] == [
        "true", "true", "jittered", "detector"
    ]  # fmt: skip
    assert Recipe(backend="import", cues="none").box_kind == "imported" and Recipe().box_kind == "full_frame"


def test_every_table_tells_of_the_boxes(tmp_path: Path) -> None:
    results = tmp_path / "results"
    write_run(results, "posebridge", 0.9, 0.7, seeds=(0,), boxes="true", box_iou=None)
    write_run(results, "posebridge_jittered", 0.9, 0.6, seeds=(0,), boxes="jittered", box_iou=0.821)
    write_run(results, "before", 0.9, 0.6, seeds=(0,))  # of a version that did not say
    runs, complaints = read_runs(results)
    assert not complaints
    said = dict(rows(runs)[["run", "boxes"]].to_numpy())
    assert said == {"posebridge": "true", "posebridge_jittered": "jittered, IoU 0.82", "before": "–"}
    table = board(runs, {}).set_index("run")
    assert table.boxes["posebridge_jittered"] == "jittered" and table.box_iou["posebridge_jittered"] == 0.821
    assert "jittered, IoU 0.82" in text_table(runs)
    assert "which no detector finds" in write_markdown(tmp_path / "board.md", runs).read_text(encoding="utf-8")
