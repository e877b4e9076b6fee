"""A pose model's numbers that are none: cues and joints are zero with score 0 and counted, weights are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import FakeEstimator, write_video

from pipeline.cache.inventory import statistics
from pipeline.cache.reader import CacheReader
from pipeline.errors import PosebridgeError
from pipeline.extract.extract import extract
from pipeline.hpe.base import Estimate
from pipeline.hpe.decoding import bounded, decode_dark
from pipeline.hpe.factory import build_estimator
from pipeline.hpe.pooling import pooling_weights
from pipeline.hpe.weights import load_state
from pipeline.manifest.clips import Clip, write_clips
from pipeline.params import ExtractParams
from pipeline.predict.live import LivePoses
from pipeline.recipe import ANCHORS, Recipe
from pipeline.video.record import ClipRecord
from stages.cache_stats import table

pytestmark = pytest.mark.unit
RECIPE = Recipe(frames=8, cue_frames=4, weights="some.pth", weights_sha256="0" * 64)


class Spoilt(FakeEstimator):
    """Spoils the answers for crops whose brightness is in a range; `what` of them."""

    def __init__(self, what: str, low: float, high: float = 256, value: float = np.nan):
        super().__init__()
        self.what, self.low, self.high, self.value = what, low, high, value

    def estimate(self, crops: np.ndarray, cue_rows: np.ndarray) -> Estimate:
        answer = super().estimate(crops, cue_rows)
        brightness = crops[:, 16, 12, 0]
        rows = (brightness >= self.low) & (brightness < self.high)
        if self.what in ("cues", "cue_scores"):
            getattr(answer, self.what)[rows[cue_rows], 1] = self.value  # of the anchor `head`
        elif self.what == "one joint":
            answer.scores[rows, 3] = self.value
        else:
            getattr(answer, self.what)[rows] = self.value
        return answer


def run(folder: Path, estimator: FakeEstimator, videos: dict[str, int]):
    """Extract videos of these brightnesses (that of the first frame; it grows by 5 a frame)."""
    for name, offset in videos.items():
        write_video(folder / f"videos/{name}.mp4", offset=offset)
    write_clips(folder / "manifests/d/clips.csv", [Clip(name, f"{name}.mp4") for name in videos])
    return extract(
        "d", "r", RECIPE, folder / "videos", params=ExtractParams(batch_size=4),
        build_estimator=lambda recipe: estimator, manifests=folder / "manifests", cache=folder / "cache",
    )  # fmt: skip


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("what", ["cues", "cue_scores"])
def test_a_cue_that_is_not_finite_is_zero_with_score_0_and_counted(tmp_path, what, value):
    result = run(tmp_path, Spoilt(what, 50, value=value), {"a": 0})
    with CacheReader(result.index) as reader:
        row = reader.read(["a"], ["cues", "cue_scores", "scores"])
        record = reader.record("a")
    assert not result.failures and (row["scores"] == 0.5).all()
    assert np.isfinite(row["cues"]).all() and np.isfinite(row["cue_scores"]).all()
    lost = row["cue_scores"][0, 0, :, 1] == 0  # [S]
    assert lost.tolist() == [False, False, True, True] and not row["cues"][0, 0, lost, 1].any()
    assert (row["cue_scores"][0, 0][:, [0, 2, 3, 4, 5]] == 1).all(), "the other anchors stay"
    assert (record.cues_lost, record.joints_lost) == (2, 0)


def test_a_joint_without_a_number_is_unseen_and_counted(tmp_path):
    result = run(tmp_path, Spoilt("one joint", 50), {"a": 0})
    with CacheReader(result.index) as reader:
        row, record = reader.read(["a"], ["scores", "keypoints"]), reader.record("a")
    assert row["scores"][0, 0, :, 3].tolist() == [0.5] * 4 + [0] * 4 and np.isfinite(row["keypoints"]).all()
    assert record.joints_lost == 4


@pytest.mark.parametrize(
    ("what", "counted", "said"),
    [("cues", (0, 1, 0, 2), "cues without a finite number"), ("one joint", (1, 0, 4, 0), "joints without a finite n"),
     ("nothing", (0, 0, 0, 0), "")],
)  # fmt: skip
def test_cache_stats_says_how_many_clips_lost_numbers(tmp_path, what, counted, said):
    estimator = FakeEstimator() if what == "nothing" else Spoilt(what, 50)
    result = run(tmp_path, estimator, {"a": 0})
    with CacheReader(result.index) as reader:
        values = statistics(reader)
    videos = values["videos"]
    names = ("joints_without_numbers", "cues_without_numbers", "lost_joints", "lost_cues")
    assert tuple(videos[name] for name in names) == counted
    assert said in table(values) and ("without a finite number" in table(values)) == bool(said)


@pytest.mark.parametrize("what", ["scores", "keypoints"])
def test_a_clip_for_which_the_model_has_no_number_is_a_failure(tmp_path, what):
    result = run(tmp_path, Spoilt(what, 100), {"dark": 0, "light": 110})
    assert [(f.clip_id, f.stage) for f in result.failures] == [("light", "pose")]
    assert "no finite number for any of its 8 crops" in result.failures[0].reason


@pytest.mark.parametrize("what", ["scores", "keypoints"])
def test_weights_that_give_no_number_at_all_end_the_run_with_their_name(tmp_path, what):
    with pytest.raises(PosebridgeError, match=r"'some.pth' gives no finite number for any of its first 4 crops"):
        run(tmp_path, Spoilt(what, 0), {"a": 0, "b": 50})
    assert not list((tmp_path / "cache").rglob("*.h5"))
    poses = LivePoses(RECIPE, lambda recipe: Spoilt(what, 0))
    with pytest.raises(PosebridgeError, match=r"'some.pth' gives no finite number"):
        list(poses.rows([Clip("a", str(tmp_path / "videos/a.mp4"), 0.0, 0.8)]))


def test_weights_that_give_no_number_are_told_before_any_extraction(tmp_path):
    from safetensors.torch import save_file

    state = load_state(Path("pipeline/weights/skelgap-sem.safetensors"))
    key = next(key for key in state if key.endswith("stem.0.conv.weight"))
    state[key] = torch.full_like(state[key], torch.nan)
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(PosebridgeError, match=r"nan.safetensors' give no finite number for a test picture"):
        build_estimator(Recipe(weights=str(tmp_path / "nan.safetensors")))


def test_a_score_that_is_not_finite_is_no_score():
    scores = bounded(torch.tensor([-1.0, 0.5, 7.0, torch.inf, -torch.inf, torch.nan]))
    assert scores[:3].tolist() == [0, 0.5, 1] and scores[3:].isnan().all(), "infinite logits were a score of 1"


def test_an_empty_heatmap_has_a_place_and_score_0():
    keypoints, scores = decode_dark(torch.zeros(1, 3, 16, 12), (4.0, 4.0))
    assert keypoints.isfinite().all() and not scores.any()


def test_a_lost_joint_spoils_no_anchor_but_its_own():
    keypoints, scores = torch.rand(1, 17, 2) * 100 + 50, torch.full((1, 17), 0.9)
    keypoints[0, 9], scores[0, 9] = torch.nan, torch.nan  # the left wrist
    masks, visible = pooling_weights(keypoints, scores, ANCHORS, (16, 12), 16.0, 0.08)
    assert masks.isfinite().all() and visible.isfinite().all()
    assert visible[0, ANCHORS.index("left_hand")] == 0 and (visible[0, [0, 1, 3, 4, 5]] > 0.5).all()


def test_an_estimator_without_cues_loses_none(tmp_path):
    estimator = FakeEstimator()
    estimator.cue_width = 0
    poses = LivePoses(replace(RECIPE, cues="none"), lambda recipe: estimator)
    path = write_video(tmp_path / "a.mp4")
    ((_, row),) = poses.rows([Clip("a", str(path), 0.0, 0.8)])
    record = ClipRecord.from_json(row["video_record"])
    assert (record.joints_lost, record.cues_lost) == (0, 0)
