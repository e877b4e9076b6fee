"""The ONNX side: decoding, export against torch, foreign graphs, the detector's two forms."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from fakes import FakeEstimator, write_video
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from pipeline.cache.reader import CacheReader
from pipeline.errors import PosebridgeError
from pipeline.extract.extract import extract
from pipeline.files.hashing import sha256_file
from pipeline.hpe import onnx_adapter
from pipeline.hpe.decoding import decode_dark
from pipeline.hpe.detector import Detector, suppress
from pipeline.hpe.onnx_adapter import OnnxEstimator
from pipeline.hpe.onnx_file import open_taps
from pipeline.hpe.weights import resolve_weights
from pipeline.manifest.clips import Clip, write_clips
from pipeline.params import ExtractParams
from pipeline.recipe import Recipe

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("threads_stay")]
TINY = "rtmpose-t_8xb256-420e_coco-256x192"


def crops(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 256, 192, 3), dtype=np.uint8)


def gaussians(count: int, seed: int = 0) -> np.ndarray:
    """Heatmaps [count, 17, 64, 48] with a noisy Gaussian anywhere, corners and borders too."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :48]
    at = rng.uniform([0, 0], [47, 63], (count, 17, 2))
    at[0, :4] = [[0, 0], [47, 63], [0.4, 30], [20, 62.2]]
    maps = np.exp(-((x - at[..., :1, None]) ** 2 + (y - at[..., 1:, None]) ** 2) / (2 * 2.0**2))
    return np.maximum(maps + rng.normal(0, 0.02, maps.shape), -0.01).astype(np.float32)


def test_dark_decoding_is_mmposes() -> None:
    from pipeline.hpe.mm_compat import import_mmpose

    import_mmpose()
    from mmpose.codecs import MSRAHeatmap

    codec = MSRAHeatmap(input_size=(192, 256), heatmap_size=(48, 64), sigma=2, unbiased=True)
    maps = gaussians(20)
    keypoints, scores = decode_dark(torch.from_numpy(maps), (4.0, 4.0))
    for row in range(len(maps)):
        theirs, values = codec.decode(maps[row].copy())
        assert np.abs(keypoints[row].numpy() - theirs[0]).max() < 0.01
        assert np.allclose(scores[row].numpy(), values[0])


def test_dark_decoding_finds_the_middle_of_a_gaussian() -> None:
    y, x = np.mgrid[:64, :48]
    bell = np.exp(-((x - 20.3) ** 2 + (y - 31.6) ** 2) / 8).astype(np.float32)
    keypoints, _ = decode_dark(torch.from_numpy(bell)[None, None], (1.0, 1.0))
    assert torch.allclose(keypoints[0, 0], torch.tensor([20.3, 31.6]), atol=0.02)


def posebridge_weights(folder: Path) -> Path:
    from pipeline.hpe.model import PoseBridgeHPE

    torch.manual_seed(0)
    path = folder / "random.safetensors"
    state = {k: v.contiguous() for k, v in PoseBridgeHPE(TINY).state_dict().items()}
    save_file(state, path, metadata={"hpe_text": "captions"})
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """A recipe of a model with random weights, and its ONNX file."""
    from pipeline.hpe.export import export_onnx

    folder = tmp_path_factory.mktemp("export")
    recipe = Recipe(weights=str(posebridge_weights(folder)))
    return recipe, export_onnx(recipe, folder / "model.onnx")


@pytest.mark.parametrize("cues", ["refined", "levels", "none"])
@pytest.mark.parametrize("count", [1, 5])
def test_an_exported_model_answers_as_mmpose_does(exported: tuple[Recipe, Path], cues: str, count: int) -> None:
    from pipeline.hpe.mmpose_adapter import MmposeEstimator

    recipe, path = exported
    theirs = MmposeEstimator(replace(recipe, cues=cues), Path(recipe.weights))
    ours = OnnxEstimator(Recipe(backend="onnx", config="", weights=str(path), cues=cues), path)
    assert (ours.crop_size, ours.joints, ours.cue_width) == (theirs.crop_size, theirs.joints, theirs.cue_width)
    rows = np.arange(count) % 2 == 0
    a, b = theirs.estimate(crops(count), rows), ours.estimate(crops(count), rows)
    seen = a.scores > 0
    assert np.abs(a.keypoints - b.keypoints)[seen].max() < 0.5  # a cell of SimCC, where two are equal
    assert np.mean(np.abs(a.keypoints - b.keypoints)[seen] < 1e-4) > 0.99
    assert np.abs(a.scores - b.scores).max() < 1e-4
    assert a.cues.shape == b.cues.shape and np.allclose(a.cues, b.cues, rtol=1e-4, atol=1e-4)
    assert np.abs(a.cue_scores - b.cue_scores).max() < 1e-4


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    from pipeline.hpe.export import export_onnx

    (tmp_path / "file").touch()
    weights = posebridge_weights(tmp_path)
    with pytest.raises(PosebridgeError, match="file/a.onnx cannot be written"):
        export_onnx(Recipe(weights=str(weights), config=TINY, cues="none"), tmp_path / "file" / "a.onnx")


def test_the_raw_outputs_are_torchs(exported: tuple[Recipe, Path]) -> None:
    import onnxruntime

    from pipeline.hpe.mmpose_adapter import MmposeEstimator

    recipe, path = exported
    model = MmposeEstimator(recipe, Path(recipe.weights))
    images = model.pose.normalise(torch.from_numpy(crops(3)))
    with torch.inference_mode():
        output, features = model.pose(images)
        theirs = [*output, *features, model.refiner.cue.refine(features)]
    session = onnxruntime.InferenceSession(str(path))
    for a, b in zip(theirs[:-1], session.run(None, {"image": images.numpy()})[:-1], strict=True):
        assert np.abs(a.numpy() - b).max() < 1e-4


def test_an_exported_model_needs_no_mmpose(exported: tuple[Recipe, Path]) -> None:
    code = f"""
import sys
for name in ("mmpose", "mmcv", "mmengine"):
    sys.modules[name] = None
import numpy as np
from pipeline.hpe.factory import build_estimator
from pipeline.hpe.weights import resolve_weights
from pipeline.recipe import Recipe
recipe = resolve_weights(Recipe(backend="onnx", weights={str(exported[1])!r}))
assert recipe.hpe_text == "captions" and len(recipe.weights_sha256) == 64
estimate = build_estimator(recipe).estimate(np.zeros((2, 256, 192, 3), np.uint8), np.ones(2, bool))
assert estimate.cues.shape == (2, 6, 512)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]


def graph(path: Path, outputs: dict[str, tuple], nodes: list, constants: dict[str, np.ndarray], shape: tuple) -> Path:
    """A little graph over one input `x`."""
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, s) for name, s in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def heatmap_graph(path: Path, batch: int | str = "N", nhwc: bool = False, joints: int = 3) -> Path:
    """Heatmaps at a quarter of the size: joint 0 is red, 1 green, 2 blue, and so on; `middle` is an inner map."""
    shape = (batch, 64, 48, 3) if nhwc else (batch, 3, 64, 48)
    start = [helper.make_node("Transpose", ["x"], ["nchw"], perm=[0, 3, 1, 2])] if nhwc else []
    nodes = [
        *start,
        helper.make_node("AveragePool", ["nchw" if nhwc else "x"], ["middle"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Gather", ["middle", "colours"], ["maps"], axis=1),
        helper.make_node("Relu", ["maps"], ["heatmap"]),
    ]
    return graph(path, {"heatmap": (batch, joints, 16, 12)}, nodes, {"colours": np.arange(joints) % 3}, shape)


def red_spot(count: int) -> np.ndarray:
    image = np.zeros((count, 64, 48, 3), np.uint8)
    for row in range(count):
        image[row, 32:36, 8 + 4 * row : 12 + 4 * row, 0] = 255
    return image


PLAIN = Recipe(backend="onnx", config="", cues="none", mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))


@pytest.mark.parametrize("batch", ["N", 1, 2])
@pytest.mark.parametrize("nhwc", [False, True])
def test_layout_and_batch_are_read_from_the_graph(tmp_path: Path, batch: int | str, nhwc: bool) -> None:
    estimator = OnnxEstimator(PLAIN, heatmap_graph(tmp_path / "g.onnx", batch, nhwc))
    assert (estimator.crop_size, estimator.joints, estimator.cue_width) == ((48, 64), 3, 0)
    estimate = estimator.estimate(red_spot(3), np.zeros(3, bool))
    assert np.allclose(estimate.keypoints[:, 0], [[8, 32], [12, 32], [16, 32]])
    assert np.allclose(estimate.scores[:, 0], 1) and np.allclose(estimate.scores[:, 1:], 0)


def test_channels_offset_and_decoding_are_the_recipes(tmp_path: Path) -> None:
    path = heatmap_graph(tmp_path / "g.onnx")
    other = OnnxEstimator(replace(PLAIN, channels="bgr", heatmap_offset=1.5, decoding="quarter"), path)
    estimate = other.estimate(red_spot(1), np.zeros(1, bool))
    assert estimate.scores[0].tolist() == [0, 0, 1] and estimate.keypoints[0, 2].tolist() == [9.5, 33.5]
    with pytest.raises(PosebridgeError, match="set the recipe's to dark or quarter"):
        OnnxEstimator(replace(PLAIN, decoding="simcc"), path)


def test_inner_tensors_become_taps_and_a_missing_one_lists_what_there_is(tmp_path: Path) -> None:
    path = heatmap_graph(tmp_path / "g.onnx")
    with pytest.raises(PosebridgeError, match="no tensor 'midle' to tap; it has .*middle"):
        OnnxEstimator(replace(PLAIN, cues="levels", taps=("midle",)), path)
    with pytest.raises(PosebridgeError, match="name some in the recipe's `taps`"):
        OnnxEstimator(replace(PLAIN, cues="levels"), path)
    with pytest.raises(PosebridgeError, match="no output 'refined'"):
        OnnxEstimator(replace(PLAIN, cues="refined"), path)


def test_without_names_the_taps_are_the_graphs_other_outputs(tmp_path: Path) -> None:
    path = heatmap_graph(tmp_path / "g.onnx", joints=17)
    named = OnnxEstimator(replace(PLAIN, cues="levels", taps=("middle", "maps")), path)
    model = onnx.load(path)
    open_taps(model, ("middle", "maps"), path.name)
    onnx.save(model, path)
    found, wanted = (
        each.estimate(red_spot(2), np.ones(2, bool)).cues
        for each in (OnnxEstimator(replace(PLAIN, cues="levels"), path), named)
    )
    assert found.shape[2] == 3 + 17 and np.array_equal(found, wanted)


def test_portions_of_a_batch_give_the_bits_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same portions, however many threads there are, since products of others are other ones."""
    path, sizes, run = heatmap_graph(tmp_path / "g.onnx", joints=17), [], onnx_adapter.run_bound
    monkeypatch.setattr(onnx_adapter, "run_bound", lambda *given: sizes.append(len(given[1]["x"])) or run(*given))
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        estimator = OnnxEstimator(replace(PLAIN, cues="levels", taps=("middle",)), path)
        found += [estimator.estimate(red_spot(count), np.ones(count, bool)) for count in (13, 7)]
    assert sizes[:6] == [4, 4, 4, 1, 4, 3] and sorted(sizes[6:]) == [1, 3, 4, 4, 4, 4]
    for one, several in zip(found[:2], found[2:], strict=True):
        assert all(np.array_equal(vars(one)[name], vars(several)[name]) for name in vars(one))


def test_the_answer_itself_may_be_a_tap(tmp_path: Path) -> None:
    path = heatmap_graph(tmp_path / "g.onnx", joints=17)
    recipes = (replace(PLAIN, cues="levels", taps=taps) for taps in (("heatmap", "middle"), ("middle",)))
    found, wanted = (OnnxEstimator(each, path).estimate(red_spot(2), np.ones(2, bool)) for each in recipes)
    assert found.cues.shape == (2, 6, 17 + 3) and np.allclose(found.cues[..., 17:], wanted.cues)


def test_files_that_are_no_pose_model_are_told(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"\x00not a graph")
    with pytest.raises(PosebridgeError, match="damaged"):
        OnnxEstimator(PLAIN, damaged)
    with pytest.raises(PosebridgeError, match="missing"):
        OnnxEstimator(PLAIN, tmp_path / "nowhere.onnx")
    flat = graph(
        tmp_path / "flat.onnx", {"y": ("N", 9216)}, [helper.make_node("Flatten", ["x"], ["y"])], {}, ("N", 3, 64, 48)
    )
    with pytest.raises(PosebridgeError, match="should yield a heatmap"):
        OnnxEstimator(PLAIN, flat)
    with pytest.raises(PosebridgeError, match="no RTMDet"):
        Detector(heatmap_graph(tmp_path / "g.onnx", 1))


def test_suppression_keeps_the_best_of_what_overlaps() -> None:
    corners = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 0, 10, 4]], float)
    assert suppress(corners, np.array([0.5, 0.9, 0.7, 0.6]), 0.5).tolist() == [1, 2, 3]


def constant_maps(path: Path) -> Path:
    """A detector that finds the same two persons in everything: maps of stride 8 and 16 of a 64 x 64 input."""
    fine, coarse = np.full((1, 8, 8, 5), -9, np.float32), np.full((1, 4, 4, 5), -9, np.float32)
    fine[0, 4, 2] = [2, 8, 16, 8, 24]  # around (16, 32): corners 8, 16, 24, 56
    fine[0, 4, 3] = [1, 16, 16, 0, 24]  # the same person from the next cell
    coarse[0, 2, 3] = [3, 8, 16, 8, 16]  # around (48, 32): corners 40, 16, 56, 48
    nodes = []
    for name in ("fine", "coarse"):  # made to depend on the input
        nodes += [
            helper.make_node("ReduceMax", ["x"], [f"{name}_max"], keepdims=0),
            helper.make_node("Mul", [f"{name}_max", "zero"], [f"{name}_zero"]),
            helper.make_node("Add", [f"{name}_zero", f"{name}_c"], [name]),
        ]
    constants = {"fine_c": fine, "coarse_c": coarse, "zero": np.zeros((), np.float32)}
    return graph(path, {"fine": (1, 8, 8, 5), "coarse": (1, 4, 4, 5)}, nodes, constants, (1, 3, 64, 64))


def test_maps_become_boxes_in_pixels_of_the_frame(tmp_path: Path) -> None:
    detector = Detector(constant_maps(tmp_path / "maps.onnx"))
    boxes, scores = detector.detect(np.zeros((128, 128, 3), np.uint8), 0.5)
    assert boxes.tolist() == [[80, 32, 32, 64], [16, 32, 32, 80]]  # twice the input; best first; the double is gone
    assert np.allclose(scores, 1 / (1 + np.exp([-3.0, -2.0])))
    wide, _ = detector.detect(np.zeros((32, 64, 3), np.uint8), 0.5)
    assert wide.tolist() == [[40, 16, 16, 16], [8, 16, 16, 16]], "cut off at the frame's border"
    assert len(detector.detect(np.zeros((128, 128, 3), np.uint8), 0.99)[0]) == 0


def test_dets_and_labels_of_mmdeploy_are_read(tmp_path: Path) -> None:
    dets = np.array(
        [[[10, 10, 30, 60, 0.9], [11, 10, 31, 60, 0.8], [40, 10, 60, 60, 0.7], [0, 0, 9, 9, 0.1]]], np.float32
    )
    made = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["x"], ["max"], keepdims=0),
            helper.make_node("Mul", ["max", "zero"], ["none"]),
            helper.make_node("Add", ["none", "d"], ["dets"]),
            helper.make_node("Identity", ["l"], ["labels"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 64, 64))],
        [
            helper.make_tensor_value_info("dets", TensorProto.FLOAT, (1, 4, 5)),
            helper.make_tensor_value_info("labels", TensorProto.INT64, (1, 4)),
        ],
        [
            numpy_helper.from_array(dets, "d"),
            numpy_helper.from_array(np.array([[0, 0, 2, 0]]), "l"),
            numpy_helper.from_array(np.zeros((), np.float32), "zero"),
        ],
    )
    path = tmp_path / "dets.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    boxes, scores = Detector(path).detect(np.zeros((64, 64, 3), np.uint8), 0.3)
    assert np.allclose(boxes, [[10, 10, 20, 50]]) and np.allclose(scores, [0.9]), "a double, a dog and a doubt are gone"


@pytest.mark.e2e
@pytest.mark.parametrize("threshold", [0.5, 0.99])
def test_a_detectors_persons_go_through_extraction(tmp_path: Path, threshold: float) -> None:
    write_video(tmp_path / "videos/a.mp4", size=(64, 48))
    write_clips(tmp_path / "manifests/d/clips.csv", [Clip("a", "a.mp4")])
    recipe = Recipe(
        frames=8,
        cue_frames=4,
        persons=3,
        boxes="detector",
        detector=str(constant_maps(tmp_path / "maps.onnx")),
        detection_threshold=threshold,
    )
    result = extract(
        "d",
        "r",
        replace(recipe, weights_sha256="0" * 64),
        tmp_path / "videos",
        params=ExtractParams(),
        build_estimator=lambda recipe: FakeEstimator(),
        manifests=tmp_path / "manifests",
        cache=tmp_path / "cache",
    )
    if threshold == 0.99:
        assert [(failure.stage, failure.reason) for failure in result.failures] == [
            ("track", "no person was found in its frames")
        ]
        return
    with CacheReader(result.index) as reader:
        batch = reader.read(["a"], ["person_valid", "track_id", "boxes", "keypoints", "cues"])
    assert batch["person_valid"][0].all(1).tolist() == [True, True, False]
    assert batch["track_id"][0].tolist() == [0, 1, -1]
    assert np.allclose(batch["boxes"][0, 0], [40, 16, 16, 32]) and np.allclose(batch["boxes"][0, 1], [8, 16, 16, 32])
    assert np.allclose(batch["keypoints"][0, :2, :, :, 0], [[[48.0]], [[16.0]]], atol=0.1)
    assert batch["cues"][0, :2].any((-1, -2)).all() and not batch["cues"][0, 2].any()


def test_a_store_is_named_by_what_a_detector_is_and_not_by_where_it_lies() -> None:
    assert Recipe(detector="a.onnx").fingerprint == Recipe(detector="b.onnx").fingerprint == Recipe().fingerprint
    assert (
        len({Recipe().fingerprint, Recipe(detection_threshold=0.3).fingerprint, Recipe(std=(1.0,) * 3).fingerprint})
        == 3
    )


def test_files_of_a_recipe_are_found_and_checked(tmp_path: Path) -> None:
    pose, detector = heatmap_graph(tmp_path / "pose.onnx"), constant_maps(tmp_path / "maps.onnx")
    recipe = replace(PLAIN, weights=str(pose), boxes="detector", detector=str(detector))
    resolved = resolve_weights(recipe)
    assert resolved.weights_sha256 == sha256_file(pose) and resolved.detector_sha256 == sha256_file(detector)
    assert resolved.hpe_text == "none" and resolved.config == ""
    with pytest.raises(PosebridgeError, match="needs a `detector`"):
        resolve_weights(replace(recipe, detector=""))
    with pytest.raises(PosebridgeError, match="correct detector_sha256"):
        resolve_weights(replace(recipe, detector_sha256="0" * 64))
    with pytest.raises(PosebridgeError, match="missing; bring the file .*, or correct `weights`"):
        resolve_weights(replace(recipe, weights="nowhere.onnx"))
