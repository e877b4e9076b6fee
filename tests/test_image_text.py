"""The image-text reference: a tiny CLIP with weights set by hand, whose answers are known, through every stage."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from fabricated import write_run
from test_image_network import Standing

from pipeline.cache.reader import CacheReader
from pipeline.errors import PosebridgeError
from pipeline.extract.extract import extract
from pipeline.files.sentence_model import load_model
from pipeline.hpe import factory, image_text, weights
from pipeline.hpe.image_text import SIDE, ImageTextCues, fitted, load_image_text
from pipeline.learn.dataset import open_dataset
from pipeline.learn.evaluate import evaluate
from pipeline.learn.run import open_run
from pipeline.learn.train import train
from pipeline.manifest.clips import Clip, write_classes, write_clips
from pipeline.methods.base import Features, Shapes
from pipeline.methods.image_text import ImageText
from pipeline.params import EncodeParams, ExtractParams, Params, RunParams
from pipeline.predict.live import LivePoses
from pipeline.recipe import Recipe
from pipeline.report import leaderboard
from pipeline.report.runs import read_runs
from pipeline.text.bank import make_bank
from stages.cli import main

pytestmark = pytest.mark.unit
COLOURS = {"r": (1, 0, 0), "g": (0, 1, 0), "b": (0, 0, 1), "c": (0, 1, 1), "m": (1, 0, 1), "y": (1, 1, 0)}
NAMES = list(COLOURS)
UNSEEN, VALIDATION = ["r", "g"], ["c", "m"]
WEB = "nothing: made by a test"
PLAIN = Recipe(
    backend="onnx", weights="pose.onnx", cues="levels", cues_from="image-text", anchors=("frame", "person"),
    boxes="full_frame", persons=1, frames=2, cue_frames=2, web_data=WEB,
)  # fmt: skip
PARAMS = Params(encode=EncodeParams(seeds=(0,)))


def write_model(folder: Path) -> str:
    """A CLIP of 8 numbers, in sentence-transformers' own form; returns its place. A picture's vector is the mean of its
    colours, less their own mean, and a word's that of the colour that it names: by attention that weighs all alike.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (raw := folder / "raw").mkdir(parents=True)
    (raw / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(words)}))
    (raw / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(raw / "vocab.json"), str(raw / "merges.txt"))
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    small["projection_dim"] = 3
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    model = CLIPModel(CLIPConfig(
        text_config=small | ends | {"vocab_size": len(words)}, projection_dim=3,
        vision_config=small | {"image_size": 32, "patch_size": 16},
    ))  # fmt: skip
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if name.endswith(("v_proj.weight", "out_proj.weight")):
                weights.copy_(torch.eye(8))
            elif name.endswith(("visual_projection.weight", "text_projection.weight")):
                weights.copy_(torch.eye(3, 8))
            elif "norm" not in name or name.endswith("bias"):
                weights.zero_()
        for channel in range(3):
            model.vision_model.embeddings.patch_embedding.weight[channel, channel] = 1 / 16**2
        for name, colour in COLOURS.items():
            row = model.text_model.embeddings.token_embedding.weight[words.index(f"{name}</w>")]
            row[:3] = 2 * torch.tensor(colour) - 1
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPProcessor(CLIPImageProcessorPil(**size), tokenizer).save_pretrained(raw)
    model.save_pretrained(raw)
    SentenceTransformer(modules=[Transformer(str(raw))]).save_pretrained(str(folder / "clip"))
    assert not list((folder / "clip").rglob("*.bin")), "safetensors only"
    return str(folder / "clip")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def recipe(clip: str) -> Recipe:
    named = replace(PLAIN, image_text=clip)
    return replace(named, image_text_sha256=load_image_text(named)[1])


def test_a_model_that_was_loaded_for_its_hash_is_not_loaded_again(
    clip: str, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(image_text, "load_model", lambda name, *rest: loaded.append(name) or load_model(name, *rest))
    monkeypatch.setattr(weights, "find_weights", lambda _: weights.WeightsFile(Path("pose.onnx"), "0" * 64, None))
    monkeypatch.setattr(factory, "_build_pose", lambda *_: Standing())
    found = weights.resolve_weights(replace(recipe, image_text_sha256=""))
    assert found.image_text_sha256 == recipe.image_text_sha256
    first, second = (factory._build(found, None) for _ in range(2))
    assert loaded == [clip, clip] and first._model is not second._model, "the second one has one of its own"
    weights.resolve_weights(found)
    with pytest.raises(PosebridgeError, match="the recipe wants 111"):
        factory._build(replace(found, image_text_sha256="1" * 64), None)


class Harm:
    """What a pickle runs when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.path,)


def test_no_code_of_a_model_is_run(clip: str, tmp_path: Path) -> None:
    """Not by a pickle in the place of its safetensors, by one of a layer after the network, or by a file beside it."""
    harm = tmp_path / "harm"
    folders = [Path(shutil.copytree(clip, tmp_path / name)) for name in "abc"]
    for folder in folders[:1]:
        (folder / "model.safetensors").unlink()
        torch.save({"x": Harm(harm)}, folder / "pytorch_model.bin")
    for folder, kind in zip(folders[1:], ("sentence_transformers.models.Dense", "own.Own"), strict=True):
        modules = json.loads((folder / "modules.json").read_text())
        modules.append({"idx": 1, "name": "1", "path": "1_Own", "type": kind})
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "1_Own").mkdir()
        (folder / "1_Own/config.json").write_text(json.dumps({"in_features": 3, "out_features": 2}))
        torch.save({"linear.weight": Harm(harm)}, folder / "1_Own/pytorch_model.bin")
        (folder / "own.py").write_text(f"open({str(harm)!r}, 'w')\nclass Own: pass\n")
    for folder in folders:
        with pytest.raises(PosebridgeError, match="could not be loaded"):
            load_image_text(replace(PLAIN, image_text=str(folder)))
    assert not harm.exists()


def picture(colour: tuple[int, int, int], height: int = 30, width: int = 40, level: int = 255) -> np.ndarray:
    return np.full((height, width, 3), level * np.array(colour), np.uint8)


def build(recipe: Recipe) -> ImageTextCues:
    return ImageTextCues(recipe, Standing(), load_image_text(recipe)[0])


@pytest.fixture(scope="module")
def world(clip: str, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of two frames, each of one colour, after which its class is named, and one that is damaged; extracted, with
    a bank of texts.
    """
    root = tmp_path_factory.mktemp("world")
    folder = root / "manifests/toy"
    write_classes(folder / "classes.csv", NAMES)
    (folder / "texts.csv").write_text("index,slot,text\n" + "".join(f"{i},label,{n}\n" for i, n in enumerate(NAMES)))
    (folder / "protocols").mkdir()
    for suffix, names in ((".txt", UNSEEN), (".val.txt", VALIDATION)):
        lines = [f"{NAMES.index(name)} {name}" for name in names]
        (folder / "protocols" / f"p{suffix}").write_text("\n".join(lines) + "\n")
    clips = []
    for label, (name, colour) in enumerate(COLOURS.items()):
        for part in ("test",) if name in UNSEEN else ("train", "test"):
            clips.append(Clip(f"{name}-{part}", f"{name}-{part}/", label=label, part=part, fps=1.0))
            (root / f"videos/{name}-{part}").mkdir(parents=True)
            for frame in range(2):
                darker = picture(colour, level=250 - 30 * frame - 10 * (part == "test"))  # so that none repeats another
                cv2.imwrite(str(root / f"videos/{name}-{part}/{frame}.png"), darker[..., ::-1])
    (root / "videos/broken").mkdir()
    (root / "videos/broken/0.png").write_bytes(b"no picture")
    write_clips(folder / "clips.csv", [*clips, Clip("broken", "broken/", label=0, part="test", fps=1.0)])
    extracted(root, recipe)
    make_bank("toy", clip, root / "manifests", root / "cache")
    return root


def extracted(root: Path, recipe: Recipe):
    return extract(
        "toy", "clip", recipe, root / "videos", params=ExtractParams(), build_estimator=build,
        manifests=root / "manifests", cache=root / "cache",
    )  # fmt: skip


def figures_of(root: Path, clip: str, **flags: str) -> dict:
    world = open_dataset("toy", root / "manifests", root / "cache")
    run = RunParams(method="image_text", recipe="clip", text=clip, flags=flags)
    train(world, "p", "reference", run, PARAMS)
    return json.loads((evaluate(world, "p", "reference", run, PARAMS) / "seed-0/metrics.json").read_text())


def test_frames_and_persons_are_seen_and_joints_are_the_pose_models(recipe: Recipe) -> None:
    crops = np.stack([picture(COLOURS[name], 64, 48) for name in ("g", "b", "g")])
    frames = np.stack([fitted(picture(COLOURS[name]), SIDE) for name in ("r", "r", "y")])
    made, wanted = build(recipe), np.array([True, True, False])
    looked_at: list[int] = []
    encode = made._model.encode
    made._model.encode = lambda pictures, **rest: looked_at.append(len(pictures)) or encode(pictures, **rest)
    found = made.estimate(crops, wanted, frames)
    assert looked_at == [1, 2], "two crops in one frame, and nothing of whom no cues are wanted"
    assert found.keypoints.tobytes() == Standing().estimate(crops, np.zeros(3, bool)).keypoints.tobytes()
    assert found.cues.shape == (2, 2, 3) and np.allclose(np.linalg.norm(found.cues, axis=-1), 1, atol=1e-5)
    assert found.cues.argmax(-1).tolist() == [[0, 1], [0, 2]], "a red frame with something green, then blue, in it"
    with pytest.raises(PosebridgeError, match="sees whole frames, which this command does not show it"):
        made.estimate(crops, wanted)


def test_a_frame_is_fitted_whole() -> None:
    square = fitted(picture((1, 1, 1), 100, 400), 64)
    assert square.shape == (64, 64, 3) and (square[24:40] == 255).all() and not square[:24].any()
    assert fitted(picture((1, 1, 1), 3000, 1), 64).any(), "and a thin one has a column"


def seen(view: str, cues: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
    """What the method compares clips of these cues [B, M, S, A, 3] by."""
    shapes = Shapes(3, cues.shape[1], cues.shape[2], ("frame", "person"), 3)
    method = ImageText(shapes, 2, {"view": view})
    return method.embed(Features(torch.zeros(len(cues), 1), torch.zeros(len(cues), cues.shape[1], 2), cues, there))


def test_a_frame_counts_once_however_many_persons_are_in_it_and_a_crop_for_itself() -> None:
    """Two persons in the first frame, one of them in the second one, and nobody in the third."""
    x, y, z = torch.eye(3).half()
    persons = ((x, y), (y, z), (x, x)), ((x, z), (z, z), (x, x))  # frames of (frame, person)
    cues = torch.stack([torch.stack([torch.stack(pair) for pair in frames]) for frames in persons])[None]
    there = torch.tensor([[1.0, 1, 0], [1, 0, 0]])[None, ..., None].expand(-1, -1, -1, 2)
    assert torch.allclose(seen("frame", cues, there), torch.tensor([[0.5, 0.5, 0]]).sqrt())
    assert torch.allclose(seen("person", cues, there), torch.tensor([[0.0, 1, 2]]) / 5**0.5)


def test_of_one_person_frames_are_weighed_as_they_were() -> None:
    """To the bit, for the sake of results that there are."""
    generator = torch.Generator().manual_seed(0)
    cues = torch.randn(50, 1, 7, 2, 3, generator=generator).half()
    there = (torch.rand(50, 1, 7, 2, generator=generator) > 0.3).float()
    for place, view in enumerate(("frame", "person")):
        weight = there[..., place, None]
        mean = (cues[..., place, :].float() * weight).sum((1, 2)) / weight.sum((1, 2)).clamp_min(1)
        assert torch.equal(seen(view, cues, there), torch.nn.functional.normalize(mean, dim=-1))


def test_the_view_of_a_run_reaches_the_method(world: Path, clip: str) -> None:
    """Of frames that are red with green persons in them."""
    data = open_dataset("toy", world / "manifests", world / "cache")
    cues = torch.eye(3)[:2].expand(1, 1, 2, 2, 3)
    features = Features(torch.zeros(1, 1), torch.zeros(1, 1, 2), cues, torch.ones(1, 1, 2, 2))
    for view, wanted in (("frame", 0), ("person", 1)):
        run = RunParams(method="image_text", recipe="clip", text=clip, flags={"view": view})
        assert open_run(data, "p", run).method(2).embed(features).argmax() == wanted


def test_a_clip_is_named_by_its_colour(world: Path, clip: str) -> None:
    found = figures_of(world, clip)
    assert found["zsl"]["top1"] == 1.0 and found["zsl"]["n"] == 2 and found["missing"] == 1
    assert found["gzsl"]["ausuc"] == 1.0 and found["gzsl"]["harmonic"] == 1.0
    assert found["cues_from"] == f"image-text model; web data: {WEB}" and found["web_data"] == WEB
    assert figures_of(world, clip, view="person")["zsl"]["top1"] == 1.0, "whose crop is of the same colour"


def test_other_words_give_other_answers(world: Path, clip: str) -> None:
    """So that the test above can fail: with each unseen class described as the other, every answer is wrong."""
    texts = world / "manifests/toy/texts.csv"
    before = texts.read_text()
    texts.write_text(before.replace("0,label,r", "0,label,g").replace("1,label,g", "1,label,r"))
    make_bank("toy", clip, world / "manifests", world / "cache")
    assert figures_of(world, clip)["zsl"]["top1"] == 0.0
    texts.write_text(before)
    make_bank("toy", clip, world / "manifests", world / "cache")


def test_vectors_are_cached_once_and_a_damaged_clip_is_a_failure(world: Path, recipe: Recipe) -> None:
    again = extracted(world, recipe)
    assert again.estimated == 0 and [failure.clip_id for failure in again.failures] == ["broken"]
    assert "image-text" in again.store.name
    with CacheReader(again.index) as reader:
        row = reader.read(["r-test"], ("cues", "cue_scores"))
        assert reader.recipe.web_data == WEB and reader.recipe.image_text_sha256 == recipe.image_text_sha256
        assert reader.recipe.image_text == "", "where it lies is no matter"
    assert row["cues"].shape == (1, 1, 2, 2, 3) and (row["cues"].argmax(-1) == 0).all() and row["cue_scores"].all()


def test_pictures_and_words_are_of_one_model(world: Path) -> None:
    data = open_dataset("toy", world / "manifests", world / "cache")
    make_bank("toy", "minilm", world / "manifests", world / "cache")
    with pytest.raises(PosebridgeError, match="words of 'minilm' are not of one image-text model; set the run's"):
        open_run(data, "p", RunParams(method="image_text", recipe="clip"))
    assert open_run(data, "p", RunParams(recipe="clip")).cues_from.startswith("image-text"), "others may learn from it"


def test_what_it_lacks_is_one_sentence(clip: str, tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(PosebridgeError, match="needs `image_text`, .* and `web_data`, in words"):
        load_image_text(PLAIN)
    with pytest.raises(PosebridgeError, match="needs `image_text`"):
        load_image_text(replace(PLAIN, image_text=clip, web_data=""))
    with pytest.raises(PosebridgeError, match="bring the right one or correct image_text_sha256"):
        load_image_text(replace(recipe, image_text_sha256="0" * 64))
    (tmp_path / "empty").mkdir()
    absent = f"The image-text model '{tmp_path}/empty' could not be loaded; .*save.*run `posebridge extract` again"
    with pytest.raises(PosebridgeError, match=absent) as told:
        load_image_text(replace(PLAIN, image_text=str(tmp_path / "empty")))
    assert "\n" not in str(told.value)
    with pytest.raises(PosebridgeError, match="anchor 'body' is unknown; there are frame, person"):
        replace(PLAIN, anchors=("body",))
    with pytest.raises(PosebridgeError, match="is a reference for `posebridge evaluate`"):
        LivePoses(recipe, build)


def test_the_command_says_what_to_bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pose.onnx").write_bytes(b"")
    monkeypatch.setattr("pipeline.hpe.weights.find_weights", lambda recipe: recipe_file)
    from pipeline.hpe.weights import WeightsFile

    recipe_file = WeightsFile(Path("pose.onnx"), "0" * 64, "none")
    Path("params.yaml").write_text(
        "datasets: {toy: {root: .}}\nrecipes: {clip: {backend: onnx, weights: pose.onnx, cues: levels, cues_from: "
        "image-text, anchors: [frame], image_text: ./nowhere/clip, web_data: unknown}}\n"
    )
    done = CliRunner().invoke(main, ["extract", "--dataset", "toy", "--recipe", "clip"])
    assert done.exit_code == 1 and "The image-text model './nowhere/clip' could not be loaded" in done.output
    assert done.output.count("\n") == 1


def test_it_stands_last_and_tells_what_it_may_have_seen(tmp_path: Path) -> None:
    write_run(tmp_path, "posebridge", 0.9, 0.5, cues_from="pose model")
    write_run(tmp_path, "clip", 0.99, 0.95, method="image_text", cues_from=PLAIN.cues_told, web_data=WEB)
    runs, complaints = read_runs(tmp_path)
    assert not complaints and [run.first.run for run in runs] == ["posebridge", "clip"]
    assert leaderboard.rows(runs)["reference"].to_list() == [leaderboard.NONE, f"image-text model; web data: {WEB}"]
    assert leaderboard.board(runs, {})["web_data"].to_list() == ["", WEB]
