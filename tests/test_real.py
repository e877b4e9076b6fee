"""Real people, real pretrained weights: detector, ONNX pose model and tracks over a handful of clips."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.cache.reader import CacheReader
from pipeline.extract.extract import extract
from pipeline.hpe.crops import crop, crop_matrix, to_frame
from pipeline.hpe.detector import Detector
from pipeline.hpe.factory import build_estimator
from pipeline.hpe.onnx_adapter import OnnxEstimator
from pipeline.hpe.weights import resolve_weights
from pipeline.manifest.clips import Clip, write_clips
from pipeline.params import ExtractParams
from pipeline.recipe import Recipe
from pipeline.tracking.similarity import People, box_iou, oks

REAL = Path(__file__).parent.parent.parent / "shared" / "real"
POSE, DETECTOR = REAL / "weights/pp-tinypose_256x192.onnx", REAL / "weights/rtmdet-nano.onnx"
UT = REAL / "videos/ut-interaction-set1"
CLIPS = ("0_1_4", "2_1_1", "17_3_0", "36_7_5", "50_9_2")  # punching, hugging, shaking hands, pushing, kicking

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not REAL.is_dir(), reason="../shared/real, with real weights and videos, is absent"),
]
TINYPOSE = Recipe(
    backend="onnx",
    weights=str(POSE),
    cues="levels",
    taps=("feat_hr", "/n/Add_126_output_0", "/n/Add_125_output_0", "/n/Relu_139_output_0"),
    score_kind="heatmap",
    boxes="detector",
    detector=str(DETECTOR),
    persons=2,
    frames=16,
    cue_frames=8,
)


def photos() -> list[tuple[np.ndarray, list[dict]]]:
    """Photos with the annotations of their people, keypoints [17, 3] and boxes [4]."""
    coco = json.loads((REAL / "photos/test_coco.json").read_text())
    found = []
    for image in coco["images"]:
        people = [a for a in coco["annotations"] if a["image_id"] == image["id"] and a.get("num_keypoints")]
        found.append((np.array(Image.open(REAL / "photos" / image["file_name"]).convert("RGB")), people))
    return found


def test_the_pose_model_finds_the_joints_of_people_in_photos() -> None:
    estimator = OnnxEstimator(TINYPOSE, POSE)
    assert (estimator.crop_size, estimator.joints, estimator.cue_width) == ((192, 256), 17, 40 + 80 + 160 + 320)
    similarity = []
    for image, people in photos():
        for person in people:
            matrix = crop_matrix(np.array(person["bbox"]), estimator.crop_size)
            estimate = estimator.estimate(crop(image, matrix, estimator.crop_size)[None], np.ones(1, bool))
            assert np.isfinite(estimate.cues).all() and estimate.cues.any()
            truth = np.array(person["keypoints"], float).reshape(1, 17, 3)
            area = np.array([[0, 0, person["area"], 1]])
            ours = People(area, to_frame(estimate.keypoints, matrix).astype(float), np.ones((1, 17)))
            similarity.append(oks(ours, People(area, truth[..., :2], truth[..., 2] > 0)).item())
    assert len(similarity) == 12 and np.mean(similarity) > 0.88


def test_the_detector_finds_the_people_in_photos() -> None:
    detector, found, wanted = Detector(DETECTOR), 0, 0
    for image, people in photos():
        boxes, scores = detector.detect(image, 0.4)
        assert (scores[:-1] >= scores[1:]).all() and (boxes[:, :2] >= 0).all()
        large = np.array([person["bbox"] for person in people if person["area"] > 5000], float).reshape(-1, 4)
        nothing = (np.zeros((1, 17, 2)), np.zeros((1, 17)))
        overlap = box_iou(People(large, *nothing), People(boxes.astype(float), *nothing))
        found, wanted = found + int((overlap.max(1, initial=0) > 0.6).sum()), wanted + len(large)
    assert wanted >= 8 and found >= wanted - 1


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Five clips of two persons each, through the real extraction."""
    folder = tmp_path_factory.mktemp("ut")
    write_clips(folder / "manifests/ut/clips.csv", [Clip(name, f"{name}.avi") for name in CLIPS])
    result = extract(
        "ut",
        "tinypose",
        resolve_weights(TINYPOSE),
        UT,
        params=ExtractParams(),
        build_estimator=build_estimator,
        manifests=folder / "manifests",
        cache=folder / "cache",
    )
    assert result.failures == ()
    with CacheReader(result.index) as reader:
        return reader.read(CLIPS, [name for name in reader.names if name != "clip_id"])


def test_two_persons_are_followed_through_interactions(cache: dict[str, np.ndarray]) -> None:
    assert cache["person_valid"].shape == (5, 2, 16)
    assert cache["person_valid"].all(1).mean() >= 0.75, "the share of frames with both"
    assert (np.sort(cache["track_id"], 1) == [0, 1]).all()
    centres = cache["boxes"][..., 0] + cache["boxes"][..., 2] / 2  # [N, M, T]
    side = np.sign(centres[:, 0] - centres[:, 1])
    apart = np.abs(centres[:, 0] - centres[:, 1]) > cache["boxes"][..., 2].mean(1) / 2
    for clip in range(len(CLIPS)):  # in none of the five does anybody change sides
        assert len(set(side[clip][apart[clip]])) == 1, CLIPS[clip]


def test_skeletons_lie_in_their_boxes_and_cues_are_there(cache: dict[str, np.ndarray]) -> None:
    valid = cache["person_valid"]
    places = (cache["keypoints"] - cache["boxes"][..., None, :2]) / cache["boxes"][..., None, 2:].clip(1)
    sure = valid[..., None] & (cache["scores"] > 0.5)
    assert sure.mean() > 0.6
    assert ((places > -0.15) & (places < 1.15)).all(-1)[sure].mean() > 0.97
    seen = np.take_along_axis(valid, cache["cue_frame"][:, None], 2)  # [N, M, S]
    assert cache["cues"][seen].any((-1, -2)).all() and not cache["cues"][~seen].any()


def test_a_person_half_out_of_the_frame_keeps_the_half_that_is_seen() -> None:
    detector, estimator = Detector(DETECTOR), OnnxEstimator(TINYPOSE, POSE)
    with av.open(str(UT / "0_1_4.avi")) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")

    def look(picture: np.ndarray, leftmost: bool) -> tuple[np.ndarray, np.ndarray]:
        boxes, _ = detector.detect(picture, 0.4)
        box = boxes[np.argmin(boxes[:, 0]) if leftmost else np.argmax(boxes[:, 0])]
        matrix = crop_matrix(box, estimator.crop_size)
        found = estimator.estimate(crop(picture, matrix, estimator.crop_size)[None], np.ones(1, bool))
        assert np.isfinite(found.keypoints).all() and np.isfinite(found.cues).all() and found.cues.any()
        return to_frame(found.keypoints[0], matrix), found.scores[0]

    whole, _ = look(frame, leftmost=True)
    cut = int(whole[:, 1].mean())  # at the hips: the legs are out
    half, sure = look(frame[:cut], leftmost=True)
    height = np.ptp(whole[:, 1])
    arms_and_head = slice(0, 9)  # nose, eyes, ears, shoulders, elbows
    assert np.median(np.linalg.norm(half - whole, axis=-1)[arms_and_head]) < 0.05 * height
    assert sure[arms_and_head].mean() > 0.5 > sure[13:].mean(), "nobody claims to see knees and ankles"
