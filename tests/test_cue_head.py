"""A cue head on a frozen pose model: what it is tuned on, the file that it becomes, and that keypoints stay."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
import yaml
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_tuning import MadeUp

from pipeline.errors import PosebridgeError
from pipeline.extract.extract import extract
from pipeline.hpe.export import export_onnx
from pipeline.hpe.factory import build_estimator
from pipeline.hpe.head_file import HeadFile, read_head, save_head
from pipeline.hpe.onnx_adapter import OnnxEstimator
from pipeline.hpe.onnx_file import load_graph
from pipeline.hpe.pooling import pooling_weights
from pipeline.hpe.refinement import CueHead
from pipeline.hpe.weights import find_weights, resolve_weights
from pipeline.learn.dataset import open_dataset
from pipeline.manifest.clips import Clip, write_classes, write_clips
from pipeline.params import load_params
from pipeline.protocol.exposure import exposed, require_unexposed
from pipeline.protocol.guards import LeakError
from pipeline.recipe import ANCHORS, Recipe
from pipeline.tune.captioned import CaptionedImages, captioned_sources, require_readable
from pipeline.tune.clips import ClipSource, changed_crop, protocol_sources
from pipeline.tune.contrast import held_evidence
from pipeline.tune.head import HeadModel, find_scenes
from pipeline.tune.maps import MapBatch, cache_maps
from pipeline.tune.settings import HeadSettings
from pipeline.tune.text import TextVectors
from stages.cli import main

pytestmark = pytest.mark.unit
REAL = Path(__file__).parent.parent.parent / "shared/real"
TAPS = {"shallow": (8, 4), "middle": (12, 8), "deep": (16, 16)}
CLASSES = ["wave", "clap", "bow", "nod", "jump", "kick"]
UNSEEN = {"one": ([5], [3, 4]), "two": ([0], [3, 4])}  # and the validation classes


def pose_graph(path: Path, batch: int | str = "N", kind: type = np.float32, opset: int = 17) -> Path:
    """A little top-down model of noise: 64 x 48 pixels, three maps that can be tapped, heatmaps of 17 joints."""
    rng = np.random.default_rng(0)
    half = kind == np.float16
    nodes, weights, last, depth = [], [], "x", 3
    if half:
        nodes.append(helper.make_node("Cast", ["x"], ["cast"], to=TensorProto.FLOAT16))
        last = "cast"
    for (tap, (channels, _)), stride in zip(TAPS.items(), (4, 2, 2), strict=True):
        values = rng.normal(0, (9 * depth) ** -0.5, (channels, depth, 3, 3)).astype(kind)
        weights.append(numpy_helper.from_array(values, f"w_{tap}"))
        nodes.append(helper.make_node("Conv", [last, f"w_{tap}"], [tap], strides=[stride] * 2, pads=[1] * 4))
        last, depth = tap, channels
    weights.append(numpy_helper.from_array(rng.normal(0, 1, (17, 8, 1, 1)).astype(kind), "w_out"))
    nodes.append(helper.make_node("Conv", ["shallow", "w_out"], ["maps" if half else "heatmap"]))
    if half:
        nodes.append(helper.make_node("Cast", ["maps"], ["heatmap"], to=TensorProto.FLOAT))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (batch, 3, 64, 48))],
        [helper.make_tensor_value_info("heatmap", TensorProto.FLOAT, (batch, 17, 16, 12))],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def recipe_of(path: Path, **values) -> Recipe:
    return Recipe(
        backend="onnx", config="", weights=str(path), boxes="full_frame", frames=2, cue_frames=2, cues="levels",
        taps=tuple(TAPS), **values,
    )  # fmt: skip


def random_head(channels: list[int], strides: list[int], stride: int = 8) -> CueHead:
    """One whose norms do something."""
    torch.manual_seed(0)
    head = CueHead(channels, strides, stride, 24, 32)
    for module in head.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
    return head.eval()


def noise(count: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, size[1], size[0], 3), dtype=np.uint8)


def write_head(folder: Path, recipe: Recipe) -> Path:
    pose = find_weights(recipe)
    cue = random_head(*map(list, zip(*TAPS.values(), strict=True)))
    strides = {tap: stride for tap, (_, stride) in TAPS.items()}
    save_head(HeadFile(cue, strides, pose.sha256, "seen-classes", "toy/one@0123456789ab"), folder / "h.safetensors", {})
    return folder / "h.safetensors"


@pytest.mark.parametrize("batch, kind", [("N", np.float32), (2, np.float32), ("N", np.float16)])
def test_a_head_leaves_keypoints_as_they_are_and_cues_are_its_own(tmp_path: Path, batch, kind) -> None:
    recipe = recipe_of(pose_graph(tmp_path / "g.onnx", batch, kind))
    head = write_head(tmp_path, recipe)
    out = export_onnx(recipe, tmp_path / "out.onnx", head)
    crops, rows = noise(5), np.array([True, False, True, True, True])
    bare = OnnxEstimator(replace(recipe, cues="none"), tmp_path / "g.onnx").estimate(crops, rows)
    levels = OnnxEstimator(recipe, tmp_path / "g.onnx")
    refined = resolve_weights(replace(recipe, weights=str(out), cues="refined", taps=()))
    assert (refined.hpe_text, refined.hpe_classes) == ("seen-classes", "toy/one@0123456789ab")
    found = build_estimator(refined).estimate(crops, rows)
    assert np.array_equal(found.keypoints, bare.keypoints) and np.array_equal(found.scores, bare.scores)
    assert levels.taps == TAPS
    maps, keypoints, scores = levels.tapped(crops[rows])
    cue = read_head(head).cue
    with torch.no_grad():
        weights, _ = pooling_weights(keypoints, scores, recipe.anchors, (8, 6), 8, recipe.sigma)
        theirs = cue([m.float() for m in maps], weights).numpy()
    assert found.cues.shape == (4, 6, 32) and np.allclose(found.cues, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/real, with real weights, is absent")
def test_keypoints_of_public_weights_stay_bit_for_bit(tmp_path: Path) -> None:
    recipe = replace(
        load_params(Path(__file__).parent.parent / "params/gym.yaml").recipes["tinypose"],
        weights=str(REAL / "weights/pp-tinypose_256x192.onnx"),
    )
    levels = OnnxEstimator(recipe, Path(recipe.weights))
    channels, strides = zip(*levels.taps.values(), strict=True)
    cue = random_head(list(channels), list(strides), 16)
    taps = {tap: stride for tap, (_, stride) in levels.taps.items()}
    save_head(HeadFile(cue, taps, find_weights(recipe).sha256, "captions"), tmp_path / "h.safetensors", {})
    out = export_onnx(recipe, tmp_path / "out.onnx", tmp_path / "h.safetensors")
    photos = sorted((REAL / "photos").glob("*.jpg"))[:3]
    crops = np.stack([np.array(Image.open(photo).convert("RGB").resize((192, 256))) for photo in photos])
    rows = np.ones(len(crops), bool)
    refined = OnnxEstimator(replace(recipe, weights=str(out), cues="refined", taps=()), out).estimate(crops, rows)
    for other in (levels, OnnxEstimator(replace(recipe, cues="none"), Path(recipe.weights))):
        found = other.estimate(crops, rows)
        assert np.array_equal(found.keypoints, refined.keypoints) and np.array_equal(found.scores, refined.scores)
    assert refined.cues.shape == (len(crops), 6, 32) and np.abs(refined.cues).min(-1).max() > 0


def test_heads_that_do_not_fit_are_one_sentence(tmp_path: Path) -> None:
    recipe = recipe_of(pose_graph(tmp_path / "g.onnx"))
    head, out = write_head(tmp_path, recipe), tmp_path / "out.onnx"
    with pytest.raises(PosebridgeError, match="Only a model of mmpose can be exported without a --head"):
        export_onnx(recipe, out)
    other = recipe_of(pose_graph(tmp_path / "other.onnx", 2))
    with pytest.raises(PosebridgeError, match="was tuned on other pose weights than"):
        export_onnx(other, out, head)
    tuned = read_head(head)
    for change, why in (
        ({"taps": {"shallow": 4, "middle": 8, "gone": 16}}, "has no tensor 'gone', which the cue head reads"),
        ({"pose_sha256": find_weights(recipe_of(export_onnx(recipe, out, head))).sha256}, "has an output 'refined'"),
        ({"pose_sha256": find_weights(recipe_of(pose_graph(tmp_path / "old.onnx", opset=9))).sha256}, "opset 9"),
    ):
        save_head(replace(tuned, **change), tmp_path / "odd.safetensors", {})
        pose = {"pose_sha256" in change: out, "opset" in why: tmp_path / "old.onnx"}.get(True, tmp_path / "g.onnx")
        with pytest.raises(PosebridgeError, match=why):
            export_onnx(recipe_of(pose), tmp_path / "never.onnx", tmp_path / "odd.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "none.safetensors")
    with safe_open(head, "pt") as file:
        header, state = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    odd = {"cut": ({"project.weight": state["project.weight"]}, {}), "taps": (state, {"taps": '{"a": 0}'})}
    odd |= {"empty": (state, {"taps": '{"a": null}'}), "endless": (state, {"taps": '{"a": 1e999}'})}
    odd |= {"word": (state, {"hpe_text": "all"}), "step": (state, {"taps": header["taps"].replace("16", "8e15")})}
    odd["wide"] = (state | {"refine.project.0.0.weight": torch.zeros(0, 10**7, 1, 1)}, {})  # without a byte of its own
    before = state | {f"refine.project.{len(TAPS) - 1}.0.weight": torch.zeros(24, 8, 1, 1)}  # one for each tap
    expected = {"none": "is no cue head", "away": "is missing", **dict.fromkeys(odd, "damaged"), "before": "earlier"}
    for name, (tensors, said) in (odd | {"before": (before, {})}).items():
        save_file(tensors, tmp_path / f"{name}.safetensors", header | said)
    for name, why in expected.items():
        with pytest.raises(PosebridgeError, match=why):
            read_head(tmp_path / f"{name}.safetensors")


def test_a_head_learns_what_is_held_beside_its_captions() -> None:
    """The loss is that of the captions plus `lambda_hand` times the cross-entropy of the phrases at the hands."""
    torch.manual_seed(0)
    taps, text = list(TAPS.values()), F.normalize(torch.randn(6, 5), dim=-1)
    batch = MapBatch(
        [torch.randn(4, channels, 64 // stride, 48 // stride) for channels, stride in taps],
        torch.rand(4, 17, 2) * 40,
        torch.ones(4, 17),
        torch.tensor([0, 1, 2, 0]),
        torch.tensor([0, 1, 2, 0]),
        torch.tensor([0, 1, 1, 0]),
    )
    model = HeadModel(taps, HeadSettings(pooled_stride=8, width=24), 5).eval()

    def loss(lambda_hand: float) -> torch.Tensor:
        model.settings = HeadSettings(pooled_stride=8, width=24, lambda_hand=lambda_hand)
        return model.losses(batch, TextVectors(text[:3], text[3:5])).detach()

    hands = model.described(batch)[:, [ANCHORS.index("left_hand"), ANCHORS.index("right_hand")]]
    held = F.cross_entropy(held_evidence(hands, text[3:5], model.logit_scale.exp()), batch.held).detach()
    assert held > 0.01
    torch.testing.assert_close(loss(1.0) - loss(0.0), held)
    torch.testing.assert_close(loss(0.5) - loss(0.0), held / 2)


def test_a_small_file_makes_no_large_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors without a number may declare any width: what is made of them takes no memory."""
    recipe = recipe_of(pose_graph(tmp_path / "g.onnx"))
    with safe_open(write_head(tmp_path, recipe), "pt") as file:
        header = file.metadata() | {"taps": '{"a": 8, "b": 8}', "pooled_stride": "8"}
    state = {f"refine.project.{level}.0.weight": torch.zeros(0, 4096, 1, 1) for level in range(2)}
    save_file(state | {"project.weight": torch.zeros(1, 4096)}, tmp_path / "big.safetensors", header)
    made = []
    monkeypatch.setattr("pipeline.hpe.head_file.CueHead", lambda *a: made.append(CueHead(*a)) or made[0])
    with pytest.raises(PosebridgeError, match="damaged"):
        read_head(tmp_path / "big.safetensors")
    assert sum(weight.numel() for weight in made[0].parameters() if weight.device.type != "meta") == 0 < len(made)


def test_taps_in_the_wrong_order_are_one_sentence() -> None:
    with pytest.raises(PosebridgeError, match="name the taps shallow first"):
        CueHead([8, 8, 8], [8, 4, 16], 16, 8)
    maps = [torch.zeros(1, 8, 16, 12), torch.zeros(1, 8, 16, 12), torch.zeros(1, 8, 4, 3), torch.zeros(1, 8, 4, 3)]
    assert CueHead([8] * 4, [4, 4, 16, 16], 16, 8).refine(maps).shape == (1, 8, 4, 3)  # two of a stride, one left out


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with six classes of two clips (folders of two images), extracted with a pose model of noise."""
    root = tmp_path_factory.mktemp("world")
    folder, rng, clips = root / "manifests/toy", np.random.default_rng(0), []
    write_classes(folder / "classes.csv", CLASSES)
    for label in range(len(CLASSES)):
        for take in range(2):
            name = f"{CLASSES[label]}-{take}"
            (root / "videos" / name).mkdir(parents=True)
            for frame in range(2):
                image = rng.integers(0, 256, (64, 48, 3), dtype=np.uint8)
                Image.fromarray(image).save(root / "videos" / name / f"{frame}.png")
            clips.append(Clip(name, f"{name}/", label=label, part="both", fps=1, frames=2, height=64, width=48))
    write_clips(folder / "clips.csv", clips)
    (folder / "protocols").mkdir()
    for name, (unseen, validation) in UNSEEN.items():
        for suffix, classes in (("", unseen), (".val", validation)):
            lines = "".join(f"{c} {CLASSES[c]}\n" for c in classes)
            (folder / f"protocols/{name}{suffix}.txt").write_text(lines)
    texts = [f"{i},{s},{s} of {c}" for i, c in enumerate(CLASSES) for s in ("label", "one_line", "used_object", "legs")]
    (folder / "texts.csv").write_text("\n".join(["index,slot,text", *texts]) + "\n")
    recipe = recipe_of(pose_graph(root / "g.onnx"))
    said = {
        "backend": "onnx", "weights": "g.onnx", "boxes": "full_frame", "frames": 2, "cue_frames": 2, "cues": "levels",
        "taps": list(TAPS), "pooled_stride": 8,
    }  # fmt: skip
    blind = {key: value for key, value in said.items() if key != "taps"}
    told = said | {"hpe_text": "seen-classes", "hpe_classes": "toy/one@0123456789ab"}
    params = {"datasets": {"toy": {"root": "videos"}}, "recipes": {"tiny": said, "blind": blind, "told": told}}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    run_extract(root, "tiny", replace(recipe, pooled_stride=8))
    return root


def run_extract(root: Path, name: str, recipe: Recipe) -> None:
    extract(
        "toy", name, resolve_weights(recipe), root / "videos", params=load_params(root / "params.yaml").extract,
        build_estimator=build_estimator, manifests=root / "manifests", cache=root / "cache",
    )  # fmt: skip


def run(*words: str) -> dict:
    done = CliRunner().invoke(main, [*words, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


TUNE = (
    "tune-hpe", "--recipe", "tiny", "--dataset", "toy", "--protocol", "one", "--out", "head.safetensors",
    "--images", "24", "--epochs", "2", "--batch-size", "8", "--device", "cpu",
)  # fmt: skip


@pytest.fixture
def inside(world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(world)
    monkeypatch.setattr("pipeline.text.encoder.SentenceEncoder", MadeUp)
    return world


def test_bench_cues_looks_into_the_maps_of_a_pose_model_on_clips(inside: Path) -> None:
    """What is known from each map and from both controls is a share of the clips, each map of its own channels."""
    found = run("bench", "cues", "--dataset", "toy", "--recipe", "tiny", "--taps", ",".join(TAPS), "--clips", "12")
    assert (found["clips"], found["chance"], found["compared"]) == (12, pytest.approx(1 / 6), len(TAPS))
    readings = {(each["what"], each["place"]): each for each in found["readings"]}
    for tap, (channels, stride) in TAPS.items():
        there = readings[tap, "background"]
        assert (there["channels"], there["stride"]) == (channels, stride)
    assert {("skeleton", "body"), ("raw colours", "hands"), ("raw colours", "background")} <= readings.keys()
    assert {("chosen taps", anchor) for anchor in ANCHORS} <= readings.keys(), "each anchor by itself"
    assert readings["chosen taps", "head"] != readings["chosen taps", "legs"]
    assert all(round(12 * each["accuracy"], 6).is_integer() for each in found["readings"])
    assert sorted(found["chosen"], key=list(TAPS).index) == found["chosen"]


def test_a_head_is_tuned_put_into_the_graph_and_extracted_with(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, str]] = []
    monkeypatch.setattr("stages.bars.Bar.show", lambda bar, done, total, note="": told.append((total, note)))
    found = run(*TUNE)
    assert {total for total, note in told if "final, epoch" in note} == {2}, "a head has one phase of two epochs"
    assert found["hpe_text"] == "seen-classes" and found["hpe_classes"].startswith("toy/one@") and found["scenes"] == 2
    with safe_open("head.safetensors", "pt") as file:
        header = file.metadata()
    assert header["kind"] == "head" and header["clips"] == "6" and "--recipe tiny" in header["command"]
    weights = load_file("head.safetensors")
    # what was computed is there: nothing is looked at again, and the training goes on where it was, at its end
    monkeypatch.setattr("pipeline.tune.maps._see", lambda *_: pytest.fail("looked at again"))
    assert run(*TUNE) == found
    assert all(torch.equal(value, weights[key]) for key, value in load_file("head.safetensors").items())
    run("export-onnx", "--recipe", "tiny", "--head", "head.safetensors", "--out", "tuned.onnx")
    tiny = load_params(Path("params.yaml")).recipes["tiny"]
    run_extract(inside, "tuned", replace(tiny, weights="tuned.onnx", cues="refined", taps=()))
    dataset = open_dataset("toy", store_root=inside / "cache/store")
    levels, refined = dataset.reader("tiny"), dataset.reader("tuned")
    ids = list(levels.clip_ids)
    assert refined.cue_width == 512 and refined.recipe.hpe_classes == found["hpe_classes"]
    before, after = (reader.read(ids, ("keypoints", "scores")) for reader in (levels, refined))
    assert all(np.array_equal(before[name], after[name], equal_nan=True) for name in before)


def test_no_word_of_a_class_that_is_kept_unseen_goes_into_tuning(inside: Path) -> None:
    """What is embedded, the words that choose the epoch too, is of the other classes."""
    run(*(word.replace("head", "other") for word in TUNE))
    assert {name for name in CLASSES if any(name in text for text in MadeUp.seen)} == set(CLASSES[:5])


def test_a_planted_caption_of_an_unseen_class_is_refused(inside: Path) -> None:
    dataset = open_dataset("toy")
    source, held_out, said = protocol_sources(dataset, "one", "tiny", inside / "videos", "", 0)
    assert said == exposed("toy", dataset.split("one"))
    assert not any(CLASSES[c] in text for c in (3, 4, 5) for text in (*source.captions, *source.phrases))
    assert not any(CLASSES[c] in text for c in (0, 1, 2, 5) for text in held_out.captions)
    reader, clips = dataset.reader("tiny"), [clip for clip in dataset.clips if clip.label in (0, 1, 2)]
    make = partial(ClipSource, reader, root=inside / "videos", allowed=(0, 1, 2))
    seen = {label: {"label": CLASSES[label]} for label in (0, 1, 2)}
    make(clips, texts=seen)
    with pytest.raises(LeakError, match="class 5, which is kept unseen"):
        make(clips, texts=seen | {5: {"label": CLASSES[5]}})
    with pytest.raises(LeakError, match="class 5, which is kept unseen"):
        make([*clips, *(clip for clip in dataset.clips if clip.label == 5)], texts=seen)


def test_weights_that_saw_texts_of_unseen_classes_are_refused(inside: Path) -> None:
    dataset = open_dataset("toy")
    one, two = dataset.split("one"), dataset.split("two")
    said = exposed("toy", one)
    check = partial(require_unexposed, recipe="tuned", dataset="toy", read=dataset.split)
    check(said, split=one)
    check("", split=two)
    check(said.replace("toy", "other"), split=two)  # another data set's words are told by hpe_text
    with pytest.raises(PosebridgeError, match="were tuned with texts of 'wave', which is unseen in two"):
        check(said, split=two)
    with pytest.raises(PosebridgeError, match="were tuned with texts of 'clap', which is unseen in three"):
        check(said, split=replace(one, protocol="three", validation=(1, 3)))
    with pytest.raises(PosebridgeError, match="has changed since the pose weights"):
        check(said, split=replace(one, validation=(3,)))
    with pytest.raises(PosebridgeError, match="which nobody can read"):
        check("gym", split=one)


def test_a_run_takes_the_recipe_of_its_protocol(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("runs: {tuned: {recipe: 'tiny_{protocol}', skeletons: tiny}, plain: {recipe: tiny}}")
    runs = load_params(path).runs
    assert runs["tuned"].of("shoot_1").recipe == "tiny_shoot_1" and runs["tuned"].of("shoot_1").skeletons == "tiny"
    assert runs["plain"].of("shoot_1") == runs["plain"]
    path.write_text("runs: {tuned: {recipe: '{other}'}}")
    with pytest.raises(PosebridgeError, match="cannot be the name of a recipe"):
        load_params(path)


def test_what_a_head_cannot_be_tuned_on_is_one_sentence(inside: Path) -> None:
    def sentence(*words: str) -> str:
        done = CliRunner().invoke(main, ["tune-hpe", "--out", "x.safetensors", *words])
        assert done.exit_code == 1 and done.stderr.count("\n") == 1, done.output
        return done.stderr

    on = ("--dataset", "toy", "--protocol", "one")
    assert "shows no inner map" in sentence("--recipe", "blind", *on)
    assert "give --dataset and --protocol, --captions or --coco" in sentence("--recipe", "tiny", "--dataset", "toy")
    assert "There is no recipe named 'away'" in sentence("--recipe", "away", *on)
    assert "--init is not of a cue head" in sentence("--recipe", "tiny", *on, "--init", "auto")
    assert "--recipe" in sentence(*on)
    assert "is tuned on one of --dataset" in sentence("--recipe", "tiny", *on, "--captions", "own.csv")
    assert "were tuned with texts of classes (toy/one@" in sentence("--recipe", "told", *on)


def test_weights_that_saw_texts_of_classes_say_of_which(tmp_path: Path) -> None:
    recipe = recipe_of(pose_graph(tmp_path / "g.onnx"), hpe_text="seen-classes")
    with pytest.raises(PosebridgeError, match="but nobody says of which; add the recipe's hpe_classes"):
        resolve_weights(recipe)
    assert resolve_weights(replace(recipe, hpe_classes="toy/one@0123456789ab")).hpe_text == "seen-classes"


def write_captions(folder: Path, rows: list[tuple[str, str]]) -> Path:
    (folder / "own.csv").write_text("image,caption\n" + "".join(f"{image},{text}\n" for image, text in rows))
    return folder / "own.csv"


def test_a_labs_own_captioned_images(inside: Path, tmp_path: Path) -> None:
    for number in range(20):
        Image.fromarray(noise(1, (30 + number, 40))[0]).save(tmp_path / f"{number}.png")
    rows = [(f"{number}.png", f"somebody with thing {number % 5} {take}") for number in range(20) for take in "ab"]
    words = ["--recipe", "tiny", "--epochs", "1", "--images", "16", "--device", "cpu"]
    words += ["--out", str(tmp_path / "h.safetensors")]
    found = run("tune-hpe", *words, "--captions", str(write_captions(tmp_path, rows)))
    assert (found["hpe_text"], found["hpe_classes"], found["scenes"]) == ("captions", "", 2)
    elsewhere = [(str(tmp_path / image), text) for image, text in rows]
    (tmp_path / "table").mkdir()
    tiny = load_params(inside / "params.yaml").recipes["tiny"]
    away = captioned_sources(write_captions(tmp_path / "table", elsewhere), tiny, 0, torch.device("cpu"))
    assert [len(source) for source in away] == [18, 2]
    both = captioned_sources(write_captions(tmp_path / "table", [*elsewhere, ("../0.png", "again")]), tiny, 0,
                             torch.device("cpu"))  # fmt: skip
    assert [len(source) for source in both] == [18, 2], "one image under two names is one scene"
    require_readable(["1", "2"], "minilm")  # no letters at all are of no other script
    require_readable(["un deux", "die cast en route"] * 9 + ["the man with the bar"] * 9, "minilm")  # English, mostly
    require_readable(["un homme et une barre"], "another encoder")
    odd = {
        "line 2, column caption": [("0.png", ""), *rows[1:]],
        "1 of 21 images": [*rows, ("away.png", "somebody")],
        "names 3 images; a cue head needs at least 20": rows[:6],
        "The captions are not in English": [(image, "человек держит гантель") for image, _ in rows],
        "which is all that minilm reads": [(image, f"eine Frau hebt {image}") for image, _ in rows],
        "All captions are the same to minilm": [(image, "somebody lifts something") for image, _ in rows],
    }
    for why, said in odd.items():
        done = CliRunner().invoke(main, ["tune-hpe", *words, "--captions", str(write_captions(tmp_path, said))])
        *_, last = done.stderr.splitlines()  # a bar may stand above
        assert done.exit_code == 1 and why in last and done.stderr.count("Error") == 1, done.output
    (tmp_path / "7.png").write_bytes(b"no image")
    done = CliRunner().invoke(main, ["tune-hpe", *words, "--captions", str(write_captions(tmp_path, rows))])
    assert done.exit_code == 1 and "7.png cannot be read" in done.stderr.splitlines()[-1]


@dataclass
class MadeUpMaps:
    """Four crops, which the head of the test knows by their rows."""

    facts: dict[str, torch.Tensor]

    def __len__(self) -> int:
        return 4

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        return rows


def test_scenes_of_the_same_captions_are_not_found_at_once() -> None:
    """Of four scenes two have one caption: a head that looks at it finds either, and a head of nothing none."""
    cue, words = torch.eye(3)[[0, 1, 2, 2]], torch.eye(3)
    maps = MadeUpMaps({"scene": torch.arange(4), "caption": torch.tensor([0, 1, 2, 2])})
    model = SimpleNamespace(
        eval=lambda: None, logit_scale=torch.ones(1), described=lambda rows: cue[rows][:, None]
    )
    found = find_scenes(model, maps, TextVectors(words))  # type: ignore[arg-type]
    assert found["caption_r1"] == 0.5 and found["caption_mrr"] == pytest.approx((1 + 1 + 2 / 3 + 2 / 3) / 4)
    maps.facts["caption"] = torch.zeros(4, dtype=torch.long)
    assert find_scenes(model, maps, TextVectors(words))["caption_mrr"] == pytest.approx(1 / 2.5)  # type: ignore[arg-type]


def test_of_an_image_the_first_person_that_is_sure_enough_is_taken(tmp_path: Path) -> None:
    Image.fromarray(noise(1)[0]).save(tmp_path / "a.png")
    faint_and_large, sure, whole = [0, 0, 40, 60], [10, 10, 20, 30], [0, 0, 48, 64]
    found = np.array([faint_and_large, sure], np.float32), np.array([0.3, 0.9])
    boxes = SimpleNamespace(prepare=lambda picture: picture, find=lambda frames: [[found]])
    for threshold, box in ((0.2, faint_and_large), (0.5, sure), (0.95, whole)):
        source = CaptionedImages([(tmp_path / "a.png", ("somebody",))], boxes, threshold, 0, False)
        (seen,) = source.crops(0, (48, 64))
        assert np.array_equal(seen.image, changed_crop(noise(1)[0], np.array(box, np.float32), (48, 64), None))


def test_maps_are_looked_at_again_where_they_are_damaged_or_of_other_things(inside: Path, tmp_path: Path) -> None:
    source, *_ = protocol_sources(open_dataset("toy"), "one", "tiny", inside / "videos", "", 0)
    estimator = build_estimator(resolve_weights(load_params(inside / "params.yaml").recipes["tiny"]))
    seen: list[int] = []

    def look(**facts: str) -> list[int]:
        seen.clear()
        cache_maps(estimator, source, 12, tmp_path, facts, lambda groups: (seen.append(g) or g for g in groups))
        return list(seen)

    maps = cache_maps(estimator, source, 12, tmp_path, {})
    assert len(maps) == 12 and [m.shape[1:] for m in maps.take(torch.tensor([3, 1])).maps] == [
        (8, 16, 12), (12, 8, 6), (16, 4, 3)
    ]  # fmt: skip
    assert look() == [] and look(other="thing") == list(range(12)) and look() == list(range(12))
    part = tmp_path / "part-00000.safetensors"
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    assert look() == list(range(12))


def test_a_graph_with_a_head_is_whole(tmp_path: Path) -> None:
    recipe = recipe_of(pose_graph(tmp_path / "g.onnx"))
    model = load_graph(tmp_path / "g.onnx")
    model.graph.name = ""  # ONNX's own checker refuses that, ONNX Runtime does not
    helper.set_model_props(model, {"licence": "theirs"})
    onnx.save(model, tmp_path / "g.onnx")
    written = load_graph(export_onnx(recipe, tmp_path / "out.onnx", write_head(tmp_path, recipe)))
    assert [entry.key for entry in written.metadata_props] == ["licence", "posebridge"]
    before, after = model.graph, written.graph
    assert list(after.node)[: len(before.node)] == list(before.node)
    assert list(after.initializer)[: len(before.initializer)] == list(before.initializer)
    assert [output.name for output in after.output] == ["heatmap", "refined"]
