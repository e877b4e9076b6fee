"""The pose side: geometry, decoding against mmpose, pooling, weights, the adapter."""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.errors import PosebridgeError
from pipeline.extract.plan import check_recipe
from pipeline.files.device import CPU
from pipeline.files.hashing import sha256_file
from pipeline.hpe.crops import crop_matrix, to_frame
from pipeline.hpe.decoding import decode_heatmap, decode_simcc
from pipeline.hpe.factory import build_estimator
from pipeline.hpe.lanes import Lanes
from pipeline.hpe.mmpose_adapter import MmposeEstimator
from pipeline.hpe.model import PoseBridgeHPE
from pipeline.hpe.pooling import BEYOND_WRIST, anchor_points, points_of, pooling_weights
from pipeline.hpe.refinement import CueHead
from pipeline.hpe.topdown import TopdownModel, by_onednn, channels_last, config_path, fuse_layers
from pipeline.hpe.weights import find_weights, load_state, resolve_weights
from pipeline.recipe import ANCHORS, Recipe
from pipeline.skeleton.graph import COCO_17

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("threads_stay")]
TINY = "rtmpose-t_8xb256-420e_coco-256x192"
RESNET, MOBILENET = "td-hm_res50_8xb64-210e_coco-256x192", "td-hm_mobilenetv2_8xb64-210e_coco-256x192"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random but well-formed weights of a PoseBridge-HPE."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    state = {k: v.contiguous() for k, v in PoseBridgeHPE(TINY).state_dict().items()}
    save_file(state, path, metadata={"hpe_text": "captions"})
    return path


def crops(count: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 256, 192, 3), dtype=np.uint8)


def test_crop_geometry_is_mmposes() -> None:
    box = np.array([30.0, 40.0, 50.0, 90.0])
    matrix = crop_matrix(box, (192, 256))
    importlib.import_module("pipeline.hpe.mm_compat").import_mmpose()
    from mmpose.datasets.transforms import GetBBoxCenterScale, TopdownAffine
    from mmpose.structures.bbox import get_warp_matrix

    xyxy = np.array([[30.0, 40.0, 80.0, 130.0]], np.float32)
    data = GetBBoxCenterScale().transform({"bbox": xyxy})
    scale = TopdownAffine._fix_aspect_ratio(data["bbox_scale"], aspect_ratio=192 / 256)
    theirs = get_warp_matrix(data["bbox_center"][0], scale[0], 0.0, output_size=(192, 256))
    assert np.allclose(matrix, theirs, atol=1e-3)


def test_points_go_there_and_back() -> None:
    matrix = crop_matrix(np.array([10.0, 20.0, 40.0, 30.0]), (192, 256))
    points = np.random.default_rng(1).uniform(0, 200, (3, 17, 2))
    assert np.allclose(to_frame(points @ matrix[:, :2].T + matrix[:, 2], matrix), points, atol=1e-3)


def test_simcc_decoding_is_mmposes() -> None:
    importlib.import_module("pipeline.hpe.mm_compat").import_mmpose()
    from mmpose.codecs.utils import get_simcc_maximum

    torch.manual_seed(1)
    x, y = torch.randn(6, 17, 384), torch.randn(6, 17, 512)
    x[0, 0] -= 10  # a joint with a negative maximum: score <= 0
    keypoints, scores = decode_simcc(x, y, 2.0)
    places, values = get_simcc_maximum(x.numpy(), y.numpy())
    assert np.allclose(scores.numpy(), values)
    seen = values > 0
    assert not seen.all() and np.abs(keypoints.numpy() - places / 2.0)[seen].max() < 0.01


def test_heatmap_decoding_is_mmposes_at_borders_too() -> None:
    importlib.import_module("pipeline.hpe.mm_compat").import_mmpose()
    from mmpose.codecs import MSRAHeatmap

    torch.manual_seed(2)
    codec = MSRAHeatmap(input_size=(192, 256), heatmap_size=(48, 64), sigma=2)
    maps = torch.rand(4, 17, 64, 48)
    for joint, (y, x) in enumerate([(0, 0), (0, 5), (5, 0), (63, 47), (63, 5), (5, 47), (1, 1), (62, 46)]):
        maps[0, joint, y, x] = 2.0
    keypoints, scores = decode_heatmap(maps, (4.0, 4.0))
    for row in range(4):
        theirs, values = codec.decode(maps[row].numpy())
        assert np.abs(keypoints[row].numpy() - theirs[0]).max() < 0.01
        assert np.allclose(scores[row].numpy(), values[0])


@pytest.mark.e2e
@pytest.mark.parametrize("config", [TINY, RESNET, "td-hm_hrnet-w32_dark-8xb64-210e_coco-256x192"])
def test_a_whole_prediction_is_mmposes(config: str) -> None:
    """Our forward pass and decoding against mmpose's own `predict` on the same crops."""
    torch.manual_seed(0)
    ours = TopdownModel(config).eval()
    from mmengine.structures import InstanceData
    from mmpose.structures import PoseDataSample

    images = ours.normalise(torch.from_numpy(crops(2)))
    samples = []
    for _ in range(2):
        box = InstanceData(bboxes=np.array([[0, 0, 192, 256]], np.float32), bbox_scores=np.ones(1, np.float32))
        meta = {
            "input_size": (192, 256),
            "input_center": np.array([96.0, 128.0]),
            "input_scale": np.array([192.0, 256.0]),
        }
        samples.append(PoseDataSample(gt_instances=box, metainfo=meta | {"flip_indices": list(range(17))}))
    with torch.no_grad():
        theirs = ours.model.predict(images, samples)
        keypoints, scores = ours.decode(ours(images)[0])
    for row, sample in enumerate(theirs):
        seen = scores[row].numpy() > 0
        assert seen.any()
        difference = np.abs(np.asarray(sample.pred_instances.keypoints[0]) - keypoints[row].numpy())
        assert difference[seen].max() < 0.01
        assert np.allclose(np.asarray(sample.pred_instances.keypoint_scores[0]), scores[row].numpy(), atol=1e-5)


def test_a_hand_anchor_lies_beyond_the_wrist() -> None:
    joints = torch.zeros(17, 2)
    joints[7], joints[9] = torch.tensor([10.0, 10.0]), torch.tensor([20.0, 10.0])
    assert torch.allclose(anchor_points("left_hand") @ joints, torch.tensor([[20.0 + 10 * BEYOND_WRIST, 10.0]]))
    for anchor in ANCHORS:
        assert torch.allclose(anchor_points(anchor).sum(1), torch.ones(len(anchor_points(anchor))))  # affine


def test_the_body_is_its_joints_and_two_places_on_every_bone_from_the_neck_down() -> None:
    """Places on a bone lie at about its thirds; the head hangs on both shoulders."""
    limbs = {frozenset(COCO_17.joints[joint] for joint in bone) for bone in COCO_17.bones}
    bones = {bone for bone in limbs if not any("eye" in joint or "ear" in joint for joint in bone)}
    bones |= {frozenset({"nose", "left_shoulder"}), frozenset({"nose", "right_shoulder"})}
    points = anchor_points("body").tolist()
    places = [{name: share for name, share in zip(COCO_17.joints, point, strict=True) if share} for point in points]
    assert [place for place in places if len(place) == 1] == [{name: 1} for name in COCO_17.joints]
    between = [place for place in places if len(place) == 2]
    assert len(between) == 2 * len(bones) and {frozenset(place) for place in between} == bones
    assert all(sorted(place.values()) == pytest.approx([0.33, 0.67]) for place in between)
    assert len({frozenset(place.items()) for place in between}) == len(between)


def test_pooling_looks_where_the_anchor_is_and_vanishes_without_scores() -> None:
    generator = torch.Generator().manual_seed(0)  # its left hand is inside of the map
    keypoints = torch.rand(2, 17, 2, generator=generator) * torch.tensor([150.0, 200.0]) + 20
    scores = torch.ones(2, 17)
    scores[1] = 0
    masks, visible = pooling_weights(keypoints, scores, ANCHORS, (16, 12), 16.0, 0.08)
    assert masks.shape == (2, 6, 16, 12) and visible.shape == (2, 6)
    assert torch.isfinite(masks).all()
    assert torch.allclose(masks[0].sum((1, 2)), torch.ones(6), atol=1e-5)
    assert masks[1].sum() == 0 and visible[1].sum() == 0
    hand = anchor_points("left_hand")[0] @ keypoints[0]
    peak = masks[0, ANCHORS.index("left_hand")].flatten().argmax()
    cell = torch.tensor([peak % 12, peak // 12]) * 16 + 7.5
    assert (cell - hand).abs().max() <= 8.01


def test_the_background_is_where_neither_body_nor_hands_are() -> None:
    """All joints in one point of a map of 64 x 64 cells: the person counts as 16 pixels, so three sigma are 4.8."""
    keypoints, scores = torch.full((2, 17, 2), 32.0), torch.ones(2, 17)
    scores[1] = 0
    masks, visible = pooling_weights(keypoints, scores, ("background",), (64, 64), 1.0, 0.1)
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    away = ((x - 32) ** 2 + (y - 32) ** 2).sqrt() > 4.8
    assert torch.allclose(masks[0, 0], away / away.sum()) and visible[0, 0] == 1
    assert masks[1].sum() == 0 and visible[1, 0] == 0, "who is not seen has no background"
    masks, visible = pooling_weights(keypoints[:1], scores[:1], ("background",), (2, 2), 1.0, 0.1)
    assert masks.sum() == 1, "far from the person"
    keypoints = torch.tensor([[0.0, 0], [1, 1]]).repeat(9, 1)[None, :17]
    masks, visible = pooling_weights(keypoints, scores[:1], ("background",), (2, 2), 1.0, 0.1)
    assert masks.sum() == 0 and visible[0, 0] == 0, "the person fills the map"


def test_pooling_by_hand() -> None:
    """A person 50 wide and 100 high, sigma 0.1: masks of 10 pixels. The joint that nobody saw is far away."""
    keypoints, scores = torch.full((1, 17, 2), 40.0), torch.ones(1, 17)
    keypoints[0, 0], keypoints[0, 1], keypoints[0, 16] = torch.tensor([[60.0, 20], [90.0, 30], [60.0, 120]])
    keypoints[0, 7], keypoints[0, 9] = torch.tensor([[50.0, 60], [70.0, 80]])
    keypoints[0, 15], scores[0, 15] = torch.tensor([900.0, 900]), 0.05
    scores[0, 1], scores[0, 2:5], scores[0, 7], scores[0, 9] = 0.5, 0.0, 0.6, 0.8
    masks, visible = pooling_weights(keypoints, scores, ("head", "left_hand"), (10, 12), 8.0, 0.1)
    x, y = torch.arange(12.0)[None] * 8 + 3.5, torch.arange(10.0)[:, None] * 8 + 3.5

    def near(at: tuple[float, float]) -> torch.Tensor:
        return torch.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * 10.0**2))

    head, hand = torch.maximum(near((60, 20)), 0.5 * near((90, 30))), near((77, 87))
    assert torch.allclose(masks[0], torch.stack([head / head.sum(), hand / hand.sum()]), atol=1e-6)
    assert visible[0].tolist() == pytest.approx([1.5 / 5, 0.6]), "a hand is as sure as the less sure of its joints"


def test_what_is_kept_of_anchors_serves_a_training_too() -> None:
    """Kept in an extraction, where tensors are such that no gradient can go through them."""
    points_of.cache_clear(), anchor_points.cache_clear()
    keypoints, scores = torch.rand(1, 17, 2) * 40, torch.ones(1, 17)
    with torch.inference_mode():
        expected, _ = pooling_weights(keypoints, scores, ANCHORS, (6, 4), 8, 0.08)
    keypoints.requires_grad_()
    masks, _ = pooling_weights(keypoints, scores, ANCHORS, (6, 4), 8, 0.08)
    masks.square().sum().backward()
    assert torch.equal(masks.detach(), expected) and keypoints.grad is not None and keypoints.grad.abs().sum() > 0


def test_a_cue_of_no_weight_is_zero() -> None:
    head = CueHead((4, 6), (8, 16), 16, 5, 7)
    weights = torch.zeros(1, 2, 3, 2)
    weights[0, 0, 1, 1] = 1
    cues = head([torch.rand(1, 4, 6, 4), torch.rand(1, 6, 3, 2)], weights)
    assert cues.shape == (1, 2, 7) and cues[0, 0].all() and not cues[0, 1].any() and cues.isfinite().all()


def test_refinement_carries_shallow_maps_down_and_deep_ones_up() -> None:
    """G_1 = F_1, G_2 = F_2 + Down(G_1), then P_3(F_3) + Down(G_2) + Up(P_4(F_4)), `width` wide: by its own layers."""
    torch.manual_seed(0)
    refine = with_some_past(CueHead((4, 6, 8, 10), (4, 8, 16, 32), 16, 5, 7)).refine
    taps = ((4, 4), (6, 8), (8, 16), (10, 32))
    first, second, third, fourth = (torch.rand(2, wide, 48 // stride, 32 // stride) for wide, stride in taps)
    carried = second + refine.down[0](first)
    deep = torch.nn.functional.interpolate(refine.project[1](fourth), size=(3, 2), mode="bilinear")
    expected = refine.project[0](third) + refine.down[1](carried) + deep
    assert expected.shape == (2, 5, 3, 2)
    assert torch.allclose(refine([first, second, third, fourth]), expected, atol=1e-6)
    alone = with_some_past(CueHead((4, 6), (4, 8), 4, 5, 7)).refine  # the shallowest is pooled: nothing to carry
    deep = torch.nn.functional.interpolate(alone.project[1](second), size=(12, 8), mode="bilinear")
    assert len(alone.down) == 0 and torch.allclose(alone([first, second]), alone.project[0](first) + deep, atol=1e-6)


def with_some_past(network: torch.nn.Module) -> torch.nn.Module:
    """In whose norms something has been learnt."""
    for each in network.eval().modules():
        if isinstance(each, _BatchNorm):
            each.running_mean.uniform_(-1, 1), each.running_var.uniform_(0.5, 2)
    return network


@pytest.mark.parametrize("one_pass", [True, False])
def test_layers_of_cues_are_fused_and_the_map_is_the_same(one_pass: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one pass where oneDNN is there, and else in two steps."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: one_pass)
    torch.manual_seed(0)
    head = with_some_past(CueHead((4, 6, 8), (8, 16, 32), 16, 5, 7))
    maps = [torch.rand(2, 4, 12, 8), torch.rand(2, 6, 6, 4), torch.rand(2, 8, 3, 2)]
    with torch.inference_mode():
        before = head.refine(maps)
        fuse_layers(head)
        assert torch.allclose(head.refine(maps), before, atol=1e-5)
    assert sum("forward" in vars(each) for each in head.modules()) == 2 + 2


def test_a_layer_with_a_way_of_its_own_keeps_it() -> None:
    class Doubled(torch.nn.Sequential):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(images)

    torch.manual_seed(0)
    layer = Doubled(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.ReLU()).eval()
    images = torch.rand(2, 3, 8, 8)
    with torch.inference_mode():
        before = layer(images)
        fuse_layers(layer)
        assert torch.equal(layer(images), before)


@pytest.mark.parametrize(("config", "layers"), [(TINY, 33), (MOBILENET, 17), (RESNET, 0)])
def test_layers_of_a_pose_model_are_fused_and_its_answers_are_the_same(config: str, layers: int) -> None:
    """Those of blocks that are no sequence stay: nobody knows in which order such a block runs."""
    torch.manual_seed(0)
    model = with_some_past(TopdownModel(config))
    images = model.normalise(torch.from_numpy(crops(2)))
    with torch.inference_mode():
        (output, maps), _ = model(images), (channels_last(model), by_onednn(model), fuse_layers(model))
        again, same = model(images)
    for one, other in zip((*output, *maps), (*again, *same), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-4 * float(one.abs().max()))
    fused = [each for each in model.modules() if "forward" in vars(each) and not isinstance(each, torch.nn.Conv2d)]
    assert len(fused) == layers


def test_cues_are_those_of_the_crops_that_they_were_asked_of(weights: Path) -> None:
    """In the model those crops come first; the answer is in the order of the question."""
    estimator = build_estimator(Recipe(weights=str(weights)))
    rows = np.array([False, True, False, True, True])
    some, all_of_them = estimator.estimate(crops(), rows), estimator.estimate(crops(), np.ones(5, bool))
    assert np.allclose(some.cues, all_of_them.cues[rows], rtol=0, atol=1e-5)
    assert np.allclose(some.scores, all_of_them.scores, atol=1e-5)
    assert np.abs(all_of_them.cues[0] - all_of_them.cues[1]).max() > 1e-4, "the crops differ"


def test_the_estimator_yields_finite_cues_only_where_asked(weights: Path) -> None:
    recipe = Recipe(weights=str(weights))
    estimator = build_estimator(recipe)
    rows = np.array([True, False, True, False, False])
    estimate = estimator.estimate(crops(), rows)
    assert estimate.keypoints.shape == (5, 17, 2) and estimate.scores.shape == (5, 17)
    assert estimate.cues.shape == (2, 6, estimator.cue_width) == (2, 6, 512)
    assert np.isfinite(estimate.cues).all() and (estimate.scores >= 0).all() and (estimate.scores <= 1).all()
    none = estimator.estimate(crops(2), np.zeros(2, bool))
    assert none.cues.shape == (0, 6, 512)


def test_cues_do_not_depend_on_the_batch(weights: Path) -> None:
    estimator = build_estimator(Recipe(weights=str(weights)))
    together, alone = estimator.estimate(crops(), np.ones(5, bool)), estimator.estimate(crops()[2:3], np.ones(1, bool))
    seen = alone.scores[0] > 0
    assert np.abs(together.keypoints[2] - alone.keypoints[0])[seen].max() < 0.05
    assert np.abs(together.cues[2] - alone.cues[0]).max() < 2e-3


def test_levels_are_the_pooled_taps(weights: Path) -> None:
    estimator = build_estimator(Recipe(weights=str(weights), cues="levels"))
    assert estimator.cue_width == 48 + 96 + 192 + 384
    estimate = estimator.estimate(crops(2), np.ones(2, bool))
    assert estimate.cues.shape == (2, 6, 720) and np.isfinite(estimate.cues).all()


def test_weights_declare_their_exposure_and_are_checked(weights: Path, tmp_path: Path) -> None:
    resolved = resolve_weights(Recipe(weights=str(weights)))
    assert resolved.weights_sha256 == sha256_file(weights) and resolved.hpe_text == "captions"
    with pytest.raises(PosebridgeError, match="has sha256"):
        find_weights(Recipe(weights=str(weights), weights_sha256="0" * 64))
    with pytest.raises(PosebridgeError, match="neither a file nor shipped"):
        find_weights(Recipe(weights="nowhere.safetensors"))
    with pytest.raises(PosebridgeError, match="need their hash"):
        find_weights(Recipe(weights="https://example.org/w.pth"))
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(PosebridgeError, match="damaged"):
        load_state(damaged)


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": {}, "meta": subprocess.Popen}, path)
    with pytest.raises(PosebridgeError, match="more than tensors"):
        load_state(path)


def test_weights_of_another_model_are_refused(weights: Path) -> None:
    with pytest.raises(PosebridgeError, match="does not fit"):
        build_estimator(Recipe(weights=str(weights), config="rtmpose-s_8xb256-420e_coco-256x192"))


def test_keypoint_weights_cannot_yield_refined_cues(tmp_path: Path) -> None:
    path = tmp_path / "kp.safetensors"
    save_file({f"pose.{k}": v.contiguous() for k, v in TopdownModel(TINY).state_dict().items()}, path)
    with pytest.raises(PosebridgeError, match="no cue refinement"):
        build_estimator(Recipe(weights=str(path)))
    assert build_estimator(Recipe(weights=str(path), cues="none")).cue_width == 0


def test_a_refinement_of_an_earlier_form_is_one_sentence(weights: Path, tmp_path: Path) -> None:
    state = load_state(weights) | {"cue.refine.project.2.0.weight": torch.zeros(96, 192, 1, 1)}
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "old.safetensors")
    with pytest.raises(PosebridgeError, match="old.safetensors is of an earlier version .* --mode frozen --init"):
        build_estimator(Recipe(weights=str(tmp_path / "old.safetensors")))


def test_an_unknown_config_or_tap_lists_what_there_is() -> None:
    with pytest.raises(PosebridgeError, match="near names: .*rtmpose-t"):
        config_path("rtmpose-t_coco-256x192")
    with pytest.raises(PosebridgeError, match="backbone.stage1"):
        TopdownModel(TINY, ("backbone.stage9",))


@pytest.mark.parametrize("first", ["sentence_transformers", "mmpose"])
def test_pose_model_and_sentence_encoder_share_a_process_in_either_order(first: str) -> None:
    mm = "import sys; from pipeline.hpe.mm_compat import import_mmpose; import_mmpose()"
    text = "import sentence_transformers"
    quick = "assert 'transformers' not in sys.modules, 'it takes a second that no pose model needs'"
    lines = [mm, quick, text] if first == "mmpose" else [text, mm]
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", "\n".join(lines)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]


def test_an_unknown_backend_is_told_before_any_weights_are_looked_for():
    with pytest.raises(PosebridgeError, match="'mmpsoe' estimates nothing; use 'mmpose' or 'onnx'"):
        check_recipe(Recipe(backend="mmpsoe", weights="nowhere.pth"))
    with pytest.raises(PosebridgeError, match="'gt' estimates nothing"):
        build_estimator(Recipe(backend="gt"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_pointwise_convolutions_go_one_way_whatever_the_number_of_crops(
    weights: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch has another one for few crops and one thread, with other last bits."""
    estimator = MmposeEstimator(Recipe(weights=str(weights), precision=precision), weights)
    single = estimator.refiner if precision == "float32" else estimator.refiner.cue  # the other one has one way only
    layers_in_one = [each for each in single.modules() if "forward" in vars(each)]
    fused = [conv for each in layers_in_one for conv in each.children() if isinstance(conv, torch.nn.Conv2d)]
    layers = [each for each in single.modules() if isinstance(each, torch.nn.Conv2d)]
    pointwise = [each for each in layers if each.kernel_size == (1, 1) and not any(each is other for other in fused)]
    calls, convolve = [], torch.mkldnn_convolution
    monkeypatch.setattr(torch, "mkldnn_convolution", lambda *given: calls.append(given[1]) or convolve(*given))
    plain = estimator.estimate(crops(2), np.ones(2, bool))
    assert sorted(map(id, calls)) == sorted(id(each.weight) for each in pointwise)
    for each in pointwise:
        each.__dict__.pop("forward", None)
    assert np.allclose(plain.keypoints, estimator.estimate(crops(2), np.ones(2, bool)).keypoints, atol=0.5)


def test_what_is_estimated_depends_on_no_number_of_threads(weights: Path) -> None:
    """Nor on how many crops a batch ends with, of which one alone is another product to several threads."""
    given, cue_rows = crops(17), np.zeros(17, bool)
    cue_rows[[0, 3, 9, 16]] = True
    found, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            found.append(MmposeEstimator(Recipe(weights=str(weights)), weights).estimate(given, cue_rows))
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
    for other in found[1:]:
        assert all(np.array_equal(vars(found[0])[name], vars(other)[name]) for name in vars(other))


def test_an_error_in_a_portion_is_raised_and_leaves_the_threads_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    lanes, threads = Lanes(CPU), []
    assert lanes.run(lambda part: part.start, lanes.portions(9, 4)) == [0, 4, 8]
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    with pytest.raises(ZeroDivisionError):
        lanes.run(lambda part: 1 // part.start, lanes.portions(8, 4))
    assert sorted(threads[:2]) == [2, 2] and threads[-1] == 4


def test_layers_of_mmcv_are_computed_in_one_pass_with_the_same_answers(weights: Path) -> None:
    estimator = MmposeEstimator(Recipe(weights=str(weights)), weights)
    layers = [each for each in estimator.pose.modules() if type(each).__name__ == "ConvModule"]
    assert len(layers) == 33 and all("forward" in vars(each) for each in layers)
    fused = estimator.estimate(crops(5), np.ones(5, bool))
    alone = [estimator.estimate(crops(5)[i : i + 1], np.ones(1, bool)) for i in range(5)]
    assert all(np.array_equal(one.cues[0], fused.cues[i]) for i, one in enumerate(alone)), "bits depend on the batch"
    for each in layers:
        del each.__dict__["forward"]
    apart = estimator.estimate(crops(5), np.ones(5, bool))
    for name in ("keypoints", "scores", "cues", "cue_scores"):
        np.testing.assert_allclose(getattr(fused, name), getattr(apart, name), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("part", ["conv", "bn", "activate"])
def test_a_tap_within_a_layer_of_mmcv_is_what_that_part_yields(tmp_path: Path, part: str) -> None:
    torch.manual_seed(0)
    model = TopdownModel(TINY, (f"backbone.stem.0.{part}",)).eval()
    path = tmp_path / "w.safetensors"
    save_file({key: value.contiguous() for key, value in model.model.state_dict().items()}, path)
    images = model.normalise(torch.from_numpy(crops(2)))
    recipe = Recipe(weights=str(path), cues="levels", taps=model.levels)
    with torch.inference_mode():
        plain = model(images)[1][0]
        (found,), _, _ = MmposeEstimator(recipe, path).tapped(crops(2))
    assert torch.allclose(found, plain, atol=1e-4)
