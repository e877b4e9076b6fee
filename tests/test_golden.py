"""The golden clip: what an extraction yields moves only together with ALGORITHM.

Two tiny videos of one scene, eight frames drawn once by skelgap and never written again: `golden.mp4`, lossless RGB, so
that its pixels are the same on every machine and the limits below can be tight, and `golden-420.mp4`, of the ordinary
kind. `golden.safetensors` holds what they yielded, and by which ALGORITHM and weights.
    python tests/test_golden.py     writes it anew; refuses where the output moved and ALGORITHM did not
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save

from pipeline.hpe import crops, pooling, refinement, topdown
from pipeline.hpe.base import Estimator
from pipeline.hpe.factory import build_estimator
from pipeline.hpe.weights import resolve_weights
from pipeline.predict.live import LivePoses, windows
from pipeline.recipe import ALGORITHM, Recipe
from pipeline.video.decode import Video

pytestmark = pytest.mark.e2e
DATA = Path(__file__).parent / "data"
GOLDEN = DATA / "golden.safetensors"
RENEW = "renew it with `python tests/test_golden.py`"
RECIPES = {
    "skelgap-kp": Recipe(weights="skelgap-kp", frames=4, cue_frames=4, cues="levels"),
    "skelgap-sem": Recipe(weights="skelgap-sem", frames=4, cue_frames=4, cues="refined"),
}
COLUMNS = ("frame_index", "cue_frame", "keypoints", "scores", "cues", "cue_scores")
# Differences of scores (mean), of keypoints in pixels (median: a joint on the fence may jump) and of cues relative to
# their length (median over frames, worst anchor). Other rounding of every pixel of a crop stays below them; a quarter
# of a pixel, three hundredths of sigma or a seventh of the hand offset does not.
LIMITS = {"keypoints": 0.1, "scores": 0.005, "cues": 0.02, "cue_scores": 0.01}


@cache
def estimator_of(recipe: Recipe) -> Estimator:
    return build_estimator(recipe)


def extracted(name: str) -> dict[str, np.ndarray]:
    """What the golden clip yields, by the very stream that `extract` uses."""
    poses = LivePoses(resolve_weights(RECIPES[name]), estimator_of)
    (_, row), *_ = poses.rows(windows(DATA / "golden.mp4"))
    return {column: np.ascontiguousarray(row[column]) for column in COLUMNS} | {"cues": row["cues"].astype(np.float16)}


def decoded() -> np.ndarray:
    """The mean colours [8, 4, 3, 3] of blocks of 40 x 40 pixels of the ordinary video."""
    with Video(DATA / "golden-420.mp4") as video:
        frames = np.stack([frame for *_, frame in video.frames(range(8))])  # [8, 160, 120, 3]
    return frames.reshape(8, 4, 40, 3, 40, 3).mean((2, 4)).astype(np.float32)


def stored() -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safe_open(GOLDEN, "np") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def movement(new: dict[str, np.ndarray], old: dict[str, np.ndarray]) -> str:
    """What differs by more than rounding; empty where nothing does."""
    for column in ("frame_index", "cue_frame"):
        if not np.array_equal(new[column], old[column]):
            return f"{column} is {new[column].tolist()} instead of {old[column].tolist()}"
    if any(new[column].shape != old[column].shape for column in COLUMNS):
        return "the shapes"
    distance = {column: np.abs(new[column] - old[column]).mean() for column in ("scores", "cue_scores")}
    distance["keypoints"] = np.median(np.linalg.norm(new["keypoints"] - old["keypoints"], axis=-1))
    cues, truth = new["cues"].astype(np.float32), old["cues"].astype(np.float32)
    apart = np.linalg.norm(cues - truth, axis=-1) / np.linalg.norm(truth, axis=-1)  # [M, S, A]
    distance["cues"] = np.median(apart, (0, 1)).max()
    far = [f"{column} by {distance[column]:.3g} (limit {limit})" for column, limit in LIMITS.items()
           if not distance[column] <= limit]  # fmt: skip
    return ", ".join(far)


def golden(name: str) -> dict[str, np.ndarray]:
    return {column: stored()[0][f"{name}/{column}"] for column in COLUMNS}


@pytest.mark.parametrize("name", list(RECIPES))
def test_an_extraction_moves_only_with_the_algorithms_number(name: str) -> None:
    facts = stored()[1]
    assert facts["algorithm"] == str(ALGORITHM), f"{GOLDEN.name} is of ALGORITHM {facts['algorithm']}: {RENEW}"
    assert facts[name] == resolve_weights(RECIPES[name]).weights_sha256, f"{name} has other weights now: {RENEW}"
    moved = movement(extracted(name), golden(name))
    assert not moved, (
        f"extraction moved ({moved}), ALGORITHM did not: caches of before and after would pass for the same. "
        f"Put the code right, or raise ALGORITHM in pipeline/recipe.py and {RENEW}"
    )


def test_decoding_moves_only_with_the_algorithms_number() -> None:
    difference = np.abs(decoded() - stored()[0]["decoded"]).max()
    assert difference < 1, f"decoded colours moved by {difference:.1f} of 255: raise ALGORITHM or put the code right"


def shifted_simcc(*arguments):
    keypoints, scores = decode_simcc(*arguments)
    return keypoints + 0.25, scores


def wider_pooling(keypoints, scores, anchors, grid, stride, sigma):
    return pooling_weights(keypoints, scores, anchors, grid, stride, 1.03 * sigma)


def moved_pooling(keypoints, *rest):
    return pooling_weights(keypoints + 0.5, *rest)


decode_simcc, pooling_weights = topdown.decode_simcc, pooling.pooling_weights
PLANTED: dict[str, tuple[tuple[object, str, object], ...]] = {
    "crop padding": ((crops, "PADDING", 1.24),),
    "a quarter of a pixel in SimCC": ((topdown, "decode_simcc", shifted_simcc),),
    "sigma": tuple((m, "pooling_weights", wider_pooling) for m in (refinement, pooling)),
    "half a pixel in pooling": tuple((m, "pooling_weights", moved_pooling) for m in (refinement, pooling)),
    "hand offset": ((pooling, "BEYOND_WRIST", 0.3),),
}


@pytest.mark.parametrize("name", list(RECIPES))
@pytest.mark.parametrize("change", list(PLANTED))
def test_a_planted_change_is_seen(name: str, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forget()
    for module, attribute, value in PLANTED[change]:
        monkeypatch.setattr(module, attribute, value)
    try:
        assert movement(extracted(name), golden(name))
    finally:
        forget()


def forget() -> None:
    """What is kept of the anchors."""
    pooling.anchor_points.cache_clear()
    pooling.points_of.cache_clear()


def renew() -> int:
    """Write the golden file anew; returns the exit code."""
    rows = {name: extracted(name) for name in RECIPES}
    facts = {"algorithm": str(ALGORITHM)} | {n: resolve_weights(r).weights_sha256 for n, r in RECIPES.items()}
    if GOLDEN.is_file() and stored()[1] == facts:
        moved = {name: why for name in RECIPES if (why := movement(rows[name], golden(name)))}
        if moved:
            print(f"The output moved ({moved}) and ALGORITHM did not: raise it in pipeline/recipe.py first.")
            return 1
    tensors = {f"{name}/{column}": value for name, row in rows.items() for column, value in row.items()}
    GOLDEN.write_bytes(save(tensors | {"decoded": decoded()}, facts))
    print(f"Wrote {GOLDEN}.")
    return 0


if __name__ == "__main__":
    sys.exit(renew())
