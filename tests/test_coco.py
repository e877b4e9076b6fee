"""tune-hpe on COCO's layout: a miniature tree of rendered stills, and four real photos where they are."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from pipeline.errors import PosebridgeError
from pipeline.hpe.crops import crop_matrix, to_frame
from pipeline.hpe.factory import build_estimator
from pipeline.hpe.head_file import read_head
from pipeline.hpe.mmpose_adapter import MmposeEstimator
from pipeline.hpe.model import PoseBridgeHPE
from pipeline.hpe.weights import resolve_weights
from pipeline.recipe import Recipe
from pipeline.synth.stills import stills
from pipeline.tune.coco import CocoPeople, read_people
from pipeline.tune.coco_crops import MIRRORED, CocoSource, augmentation, person_crop
from pipeline.tune.coco_quality import keypoint_quality, measure_coco
from pipeline.tune.data import Groups, collate
from pipeline.tune.losses import TuningModel
from pipeline.tune.quality import retrieve
from pipeline.tune.settings import TuneSettings
from pipeline.tune.start import find_start, load_start
from pipeline.tune.text import TextVectors
from pipeline.tune.tune import tune
from stages.tune_hpe import command

SIZE = (192, 256)
TINY = "rtmpose-t_8xb256-420e_coco-256x192"
PHOTOS = Path(__file__).parent.parent.parent / "shared" / "real" / "photos"
JOINTS = [f"joint {i}" for i in range(17)]


def write_part(root: Path, part: str, stream: int, images: int) -> None:
    """Images of two people each, in COCO's layout, with a crowd and a person with two joints in the first image."""
    folder = root / f"{part}2017"
    folder.mkdir(parents=True)
    drawn = islice((still for group in range(images) for still in stills(stream, group)), 2 * images)
    coco: dict = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person", "keypoints": JOINTS}]}
    captions: list[dict] = []
    for number, pair in enumerate(zip(drawn, drawn, strict=True), start=1):
        file = f"{number:012d}.jpg"
        Image.fromarray(np.hstack([still.image for still in pair])).save(folder / file, quality=95)
        coco["images"].append({"id": number, "file_name": file, "width": 512, "height": 256})
        for place, still in enumerate(pair):
            points = np.column_stack([still.keypoints + [256 * place, 0], np.where(still.visible, 2, 1)])
            box = still.box + [256 * place, 0, 0, 0]
            coco["annotations"].append(annotation(number, points, box.tolist()))
            captions.append({"image_id": number, "id": len(captions), "caption": f" {still.caption}\n"})
    few = np.where(np.arange(17)[:, None] < 2, [[20.0, 30.0, 1.0]], 0.0)
    coco["annotations"] += [
        annotation(1, few, [10, 10, 50, 90]),
        annotation(1, np.zeros((17, 3)), [0, 0, 512, 256]) | {"iscrowd": 1},
    ]
    for row, each in enumerate(coco["annotations"]):
        each["id"] = 100 + row
    # COCO has images without people, and their captions.
    coco["images"].append({"id": 999, "file_name": "nobody.jpg", "width": 640, "height": 480})
    captions.append({"image_id": 999, "id": len(captions), "caption": "an empty street"})
    (root / "annotations").mkdir(exist_ok=True)
    (root / f"annotations/person_keypoints_{part}2017.json").write_text(json.dumps(coco))
    (root / f"annotations/captions_{part}2017.json").write_text(json.dumps({"annotations": captions}))


def annotation(image: int, points: np.ndarray, box: list[float]) -> dict:
    return {
        "image_id": image, "category_id": 1, "iscrowd": 0, "bbox": box, "area": 0.5 * box[2] * box[3],
        "keypoints": points.astype(float).ravel().tolist(), "num_keypoints": int((points[:, 2] > 0).sum()),
    }  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("coco")
    write_part(root, "train", 31, 8)
    write_part(root, "val", 32, 3)
    return root


@pytest.fixture
def broken(tree: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(tree, tmp_path / "coco"))


@pytest.mark.unit
def test_people_are_read_with_their_captions(tree: Path) -> None:
    people = read_people(tree, "train", captions=True)
    assert (len(people), len(people.files)) == (16, 8)
    assert people.left_out == {"with fewer than 5 labelled joints": 1, "crowds": 1}
    assert people.image.tolist() == [i // 2 for i in range(16)]
    assert people.labelled.all(), "hidden joints are labelled too"
    first, second = islice(stills(31, 0), 2)
    assert np.allclose(people.keypoints[:2], [first.keypoints, second.keypoints + [256, 0]])
    assert people.captions[0] == (first.caption, second.caption)
    assert people.picture(0).shape == (256, 512, 3)
    assert len(read_people(tree, "train", captions=False, fewest_joints=1)) == 17
    assert read_people(tree, "val", captions=False).captions == ((),) * 3


@pytest.mark.unit
def test_images_that_name_a_left_out_object_are_left_out(tree: Path) -> None:
    everybody = read_people(tree, "train", captions=True)
    said = " ".join(" ".join(texts) for texts in everybody.captions)
    word = next(word for word in ("bottle", "cup", "book", "ball", "flag", "phone") if word in said)
    people = read_people(tree, "train", captions=True, without=(word,))
    named = [i for i, texts in enumerate(everybody.captions) if word in " ".join(texts)]
    assert len(people) == 16 - 2 * len(named) and people.left_out[f"where a caption names {word!r}"] >= 2 * len(named)
    assert word not in " ".join(CocoSource(people).captions)


@pytest.mark.unit
def test_a_mark_in_the_picture_lies_under_its_keypoint_in_every_crop(tree: Path) -> None:
    """Shift, scale, rotation and flip move the picture and its keypoints alike."""
    people = read_people(tree, "train", captions=False)
    rng, marks = np.random.default_rng(0), 0
    for trial in range(40):
        person, joint = trial % 16, int(rng.integers(17))
        picture = np.zeros((256, 512, 3), np.uint8)
        x, y = people.keypoints[person, joint].round().astype(int)
        picture[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] = 255
        flip = trial % 2 == 1
        image, keypoints = person_crop(people, person, picture, SIZE, augmentation(SIZE, rng), flip)
        x, y = keypoints[MIRRORED[joint] if flip else joint].round().astype(int)
        if 2 < x < 189 and 2 < y < 253:
            marks += 1
            assert image[y, x, 0] > 150, (trial, person, joint)
    assert marks > 25
    left_to_right = [MIRRORED[MIRRORED[joint]] for joint in range(17)]
    assert left_to_right == list(range(17)) and MIRRORED[9] == 10


@pytest.mark.unit
def test_augmentation_has_the_ranges_of_rtmpose() -> None:
    rng = np.random.default_rng(0)
    drawn = np.stack([augmentation(SIZE, rng) for _ in range(2000)])
    zoom = np.sqrt(np.linalg.det(drawn[:, :2, :2]))
    assert 1 / 1.4 <= zoom.min() < 0.75 and 1.55 < zoom.max() <= 1 / 0.6
    angle = np.degrees(np.arctan2(drawn[:, 0, 1], drawn[:, 0, 0]))
    assert 75 < np.abs(angle).max() <= 80 and (np.abs(angle) > 1e-6).mean() == pytest.approx(0.6, abs=0.04)
    shift = (np.linalg.inv(drawn) @ [96, 128, 1])[:, :2] / SIZE - 0.5  # from where the crop's middle is looked at
    assert 0.155 < np.abs(shift).max() <= 0.16 + 1e-9
    assert (np.abs(shift) > 1e-6).any(1).mean() == pytest.approx(0.3, abs=0.04)


@pytest.mark.unit
def test_everybody_comes_once_a_pass_and_a_resumed_run_sees_the_same(tree: Path) -> None:
    people = read_people(tree, "train", captions=True)
    source = CocoSource(people, seed=1)
    seen = [source.crops(group, SIZE)[0] for group in range(32)]
    assert sorted(crop.scene for crop in seen[:16]) == sorted(crop.scene for crop in seen[16:]) == people.image.tolist()
    assert [crop.scene for crop in seen[:16]] != [crop.scene for crop in seen[16:]]
    for crop in seen:
        assert source.captions[crop.caption] in people.captions[crop.scene]
        assert crop.image.shape == (256, 192, 3) and crop.image.dtype == np.uint8
        assert crop.keypoints.dtype == crop.weights.dtype == np.float32 and set(crop.weights) <= {0.0, 1.0}
    again = CocoSource(people, seed=1).crops(29, SIZE)[0]
    assert np.array_equal(again.image, seen[29].image) and again.caption == seen[29].caption
    assert source.phrases == (), "captions do not say what a hand holds"


@pytest.mark.unit
def test_joints_that_nobody_labelled_are_not_learnt(tree: Path) -> None:
    people = read_people(tree, "train", captions=False)
    people.labelled[:, 9] = False  # left wrists
    people.keypoints[:, 9] = 0
    flipped = set()
    for crop in (CocoSource(people).crops(group, SIZE)[0] for group in range(64)):
        assert crop.weights[9] == 0 or crop.weights[10] == 0
        flipped |= {joint for joint in (9, 10) if crop.weights[joint]}
    assert flipped == {9, 10}, "in a mirrored crop it is the right wrist that is not known"


@pytest.mark.fault
@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda root: (root / "annotations/captions_train2017.json").unlink(), "captions_train2017.json is missing"),
        (lambda root: (root / "annotations/person_keypoints_train2017.json").unlink(), "_train2017.json is missing"),
        (lambda root: (root / "annotations/person_keypoints_train2017.json").write_text("{"), "is damaged or no JSON"),
        (lambda root: (root / "annotations/captions_train2017.json").write_text("[]"), "has no list 'annotations'"),
        (lambda root: [p.unlink() for p in sorted((root / "train2017").iterdir())[2:5]],
         "3 of 8 images with people are missing in .*train2017 \\(first: 000000000003.jpg\\)"),
        (lambda root: (root / "train2017/000000000004.jpg").write_bytes(b"not a picture"),
         "1 of 8 images in .* are damaged or .* \\(first: 000000000004.jpg\\)"),
        (lambda root: Image.new("RGB", (99, 99)).save(root / "train2017/000000000005.jpg"),
         "not of the size .* \\(first: 000000000005.jpg\\)"),
        (lambda root: edit(root, lambda coco: coco.update(annotations=[])), "nobody to use \\(it lists nobody\\)"),
        (lambda root: edit(root, lambda coco: [a.update(iscrowd=1) for a in coco["annotations"]]), "\\(18 crowds\\)"),
        (lambda root: edit(root, lambda coco: coco.update(images=coco["images"][1:])), "not in COCO's .*Error: 1"),
        (lambda root: edit(root, lambda coco: coco["annotations"][0].pop("keypoints")), "KeyError: 'keypoints'"),
        (lambda root: edit(root, lambda coco: coco["categories"][0].pop("keypoints")), "no category `person`"),
        (lambda root: edit(root, lambda coco: [c.update(image_id=5) for c in coco["annotations"][:6]], "captions"),
         "3 of 8 images with people have no caption in .* \\(first: 000000000001.jpg\\)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_sentence_before_any_training(broken: Path, spoil, complaint: str) -> None:
    spoil(broken)
    out = broken / "out.safetensors"
    arguments = ["--coco", str(broken), "--kind", "sem", "--init", "skelgap-kp", "--config", TINY, "--out", str(out)]
    answer = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert answer.exit_code == 1 and not out.exists() and not out.with_suffix(".work").exists()
    sentence = answer.stderr.strip().splitlines()[-1]
    assert re.search(complaint, sentence) and sentence.startswith("Error: ") and sentence.endswith("."), sentence


def edit(root: Path, change, what: str = "person_keypoints") -> None:
    path = root / f"annotations/{what}_train2017.json"
    coco = json.loads(path.read_text())
    change(coco)
    path.write_text(json.dumps(coco))


@pytest.mark.fault
@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_breaks_off_is_named_when_its_turn_comes(broken: Path, tmp_path: Path, workers: int) -> None:
    path = broken / "train2017/000000000006.jpg"
    path.write_bytes(path.read_bytes()[:4000])
    source = CocoSource(read_people(broken, "train", captions=False))
    settings = TuneSettings(config=TINY, images=32, images_per_epoch=32, batch_size=8, workers=workers)
    with pytest.raises(PosebridgeError, match=r"^\S*000000000006.jpg is damaged \(.*\); bring it again\.$"):
        tune(settings, source, tmp_path / "work")


@pytest.mark.e2e
def test_the_losses_fall(tree: Path, tmp_path: Path) -> None:
    """Keypoints from nothing, captions from a pose model, on eight images."""
    source = CocoSource(read_people(tree, "train", captions=True))
    batch = collate([Groups(source, SIZE)[group] for group in range(32)])
    torch.manual_seed(0)
    text = TextVectors(F.normalize(torch.randn(len(source.captions), 32), dim=-1), None, "made up")

    def losses(model: PoseBridgeHPE, settings: TuneSettings, text: TextVectors | None) -> dict[str, float]:
        torch.manual_seed(0)
        with torch.no_grad():
            found = TuningModel(model, settings, text, None).eval()(**batch)
        return {name: value.item() for name, value in found.items()}

    kp = TuneSettings(config=TINY, images=96, images_per_epoch=96, batch_size=16, workers=0)
    torch.manual_seed(0)
    before = losses(PoseBridgeHPE(TINY), kp, None)
    after = losses(tune(kp, source, tmp_path / "kp"), kp, None)
    assert after["loss_kp"] < 0.8 * before["loss_kp"]

    sem = replace(kp, kind="sem", mode="frozen", images=240, images_per_epoch=240, lr=5e-3, lambda_hand=0.0)
    start = find_start("skelgap-kp", TINY)
    fresh = PoseBridgeHPE(TINY, text_width=32)
    load_start(fresh, start)
    before, after = losses(fresh, sem, text), losses(tune(sem, source, tmp_path / "sem", start, text), sem, text)
    assert set(after) == {"loss_caption"}, "no hand term, and frozen keypoints"
    assert after["loss_caption"] < 0.85 * before["loss_caption"]


@pytest.mark.e2e
def test_kp_then_sem_then_frozen_from_the_command_line(tree: Path, tmp_path: Path) -> None:
    kp, sem, frozen = (tmp_path / f"{name}.safetensors" for name in ("kp", "sem", "frozen"))
    # What mmpose's own checkpoints look like; float32, so that a rounding would show.
    public = tmp_path / "public.pth"
    torch.save({"state_dict": PoseBridgeHPE(TINY).pose.model.state_dict(), "meta": {}}, public)

    def run(*arguments: str) -> dict:
        common = ["--coco", str(tree), "--config", TINY, "--images", "16", "--batch-size", "8", "--workers", "0"]
        answer = CliRunner().invoke(command, [*common, "--json", *arguments], catch_exceptions=False)
        assert answer.exit_code == 0, answer.stderr
        return json.loads(answer.stdout)  # and nothing but JSON

    def header(path: Path) -> dict[str, str]:
        with safe_open(path, "pt") as file:
            return file.metadata()

    assert run("--init", str(public), "--out", str(kp))["hpe_text"] == "none"
    found = run("--kind", "sem", "--init", str(kp), "--out", str(sem))
    assert found["hpe_text"] == "captions" and found["people"] == 7
    assert {"oks_ap", "pck", "pck_wrists", "mean_score", "pck_dark", "pck_blurred", "pck_occluded"} <= set(found)
    said = header(sem)
    assert said["dataset"] == "COCO" and said["people"] == "16" and json.loads(said["quality"])["pck"] == found["pck"]
    assert said["command"].startswith(f"posebridge tune-hpe --kind sem --coco {tree} --config {TINY} --init {kp} --out")
    assert said["text"].startswith("minilm sha256:")
    assert said["init"].startswith("kp.safetensors sha256:") and json.loads(said["settings"])["lambda_hand"] == 0

    recipe = resolve_weights(Recipe(config=TINY, weights=str(sem), cues="refined"))
    assert recipe.hpe_text == "captions"
    crops = collate([Groups(CocoSource(read_people(tree, "val", captions=False)), SIZE)[g] for g in range(4)])["crops"]
    estimate = build_estimator(recipe).estimate(crops.numpy(), np.ones(4, bool))
    assert estimate.cues.shape == (4, 6, 512) and np.isfinite(estimate.cues).all() and estimate.cues.any()

    run("--kind", "sem", "--mode", "frozen", "--init", str(public), "--measure", "4", "--out", str(frozen))
    base, tuned = (
        build_estimator(Recipe(config=TINY, weights=str(path), cues=cues)).estimate(crops.numpy(), np.ones(4, bool))
        for path, cues in ((public, "none"), (frozen, "refined"))
    )
    assert np.array_equal(base.keypoints, tuned.keypoints) and np.array_equal(base.scores, tuned.scores)


@pytest.mark.e2e
def test_a_cue_head_on_a_frozen_mmpose_model(tree: Path, tmp_path: Path) -> None:
    public, out, params = tmp_path / "public.pth", tmp_path / "head.safetensors", tmp_path / "params.yaml"
    torch.save({"state_dict": PoseBridgeHPE(TINY).pose.model.state_dict(), "meta": {}}, public)
    params.write_text(f"recipes: {{rt: {{config: {TINY}, weights: {public}, boxes: full_frame}}}}")
    words = ["--recipe", "rt", "--coco", str(tree), "--params", str(params), "--out", str(out), "--device", "cpu"]
    words += ["--images", "8", "--epochs", "1", "--json"]
    done = CliRunner().invoke(command, words, catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["hpe_text"] == "captions" and json.loads(done.stdout)["scenes"] == 3
    maps = out.with_suffix(".work") / "maps/part-00000.safetensors"
    before = load_file(maps)["scene"]
    assert CliRunner().invoke(command, [*words, "--seed", "1"], catch_exceptions=False).exit_code == 0
    assert load_file(maps)["scene"].tolist() != before.tolist(), "other people, or another order of them"
    head, pose = read_head(out), MmposeEstimator(Recipe(config=TINY, weights=str(public), cues="levels"), public)
    assert head.taps == {tap: stride for tap, (_, stride) in pose.taps.items()}
    maps, keypoints, _ = pose.tapped(np.zeros((2, 256, 192, 3), np.uint8))
    with torch.inference_mode():
        assert head.cue.refine(maps).shape == (2, 96, 16, 12) and keypoints.shape == (2, 17, 2)


@pytest.mark.unit
def test_the_truth_has_an_average_precision_of_one(tree: Path) -> None:
    people = read_people(tree, "val", captions=False, fewest_joints=1)
    scores = np.ones((len(people), 17))
    right = keypoint_quality(people, people.keypoints, scores)
    assert right["oks_ap"] == pytest.approx(1) and right["pck"] == right["pck_wrists"] == 1 and right["people"] == 7
    wrong = keypoint_quality(people, people.keypoints + 40, scores)
    assert wrong["oks_ap"] < 0.1 and wrong["pck"] < 0.1
    people.keypoints[people.labelled[:, 9], 9] += 500  # one joint of seventeen
    assert 0.8 < keypoint_quality(people, read_people(tree, "val", False, (), 1).keypoints, scores)["pck"] < 1


@pytest.mark.e2e
def test_a_body_is_asked_for_the_caption_of_its_own_image(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    people = read_people(tree, "val", captions=False)
    _, rows = np.unique(people.image, return_index=True)  # one body an image
    names = ("image", "boxes", "keypoints", "labelled", "areas")
    people = replace(people, **{name: getattr(people, name)[rows] for name in names})
    torch.manual_seed(0)
    model, bodies = PoseBridgeHPE(TINY, (), 4, 64, 32), []
    text = TextVectors(torch.randn(3, 32), torch.randn(13, 32), "0" * 64)
    assert "caption_r1" not in measure_coco(model, people, text, batch_size=2), "three images are no gallery of 100"

    def retrieve_of_three(cues: torch.Tensor, said: list[str], vectors: dict[str, torch.Tensor]) -> np.ndarray:
        bodies.append(cues)
        return retrieve(cues, said, vectors, size=3)

    monkeypatch.setattr("pipeline.tune.coco_quality.retrieve", retrieve_of_three)
    measure_coco(model, people, text, batch_size=2)
    for captions, share in ((bodies[0], 1), (bodies[0].roll(1, 0), 0)):
        assert measure_coco(model, people, replace(text, captions=captions), batch_size=2)["caption_r1"] == share


@pytest.mark.e2e
def test_text_by_clip_from_a_folder(tmp_path: Path) -> None:
    """A CLIP of random weights in the form in which sentence-transformers keeps CLIP."""
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    from pipeline.text.encoder import SentenceEncoder
    from pipeline.tune.text import embed

    folder = tmp_path / "clip-ViT-B-32" / "0_CLIPModel"
    folder.mkdir(parents=True)
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz")]
    vocabulary = {token: row for row, token in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = CLIPTextConfig(vocab_size=len(vocabulary), bos_token_id=52, eos_token_id=53, projection_dim=16, **size)
    vision = CLIPVisionConfig(image_size=32, patch_size=16, projection_dim=16, **size)
    both = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    CLIPModel(both).save_pretrained(folder)
    end = "<|endoftext|>"
    files = {
        "vocab.json": vocabulary,
        "tokenizer_config.json": {
            "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "bos_token": "<|startoftext|>",
            "eos_token": end, "pad_token": end, "unk_token": end,
        },
        "preprocessor_config.json": {"feature_extractor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 32},
        "../modules.json": [
            {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
        ],
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "merges.txt").write_text("#version: 0.2\n")

    class Source:
        per_group, facts = 1, {}
        phrases: tuple[str, ...] = ()
        captions = ("a man rides a wave", "a dog", "word " * 200)  # longer than CLIP reads

    encoder = SentenceEncoder(str(folder.parent))
    found = embed(Source(), encoder, tmp_path)  # type: ignore[arg-type]
    assert found.phrases is None and found.captions.shape == (3, 16)
    assert torch.allclose(found.captions.norm(dim=1), torch.ones(3)) and not torch.allclose(*found.captions[:2])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> CocoPeople:
    """Four photos of COCO, put into COCO's layout."""
    root = tmp_path_factory.mktemp("photos")
    (root / "annotations").mkdir()
    shutil.copy(PHOTOS / "test_coco.json", root / "annotations/person_keypoints_val2017.json")
    (root / "val2017").mkdir()
    for path in PHOTOS.glob("*.jpg"):
        shutil.copy(path, root / "val2017")
    return read_people(root, "val", captions=False)


@pytest.mark.real
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="../shared/real, with photos of COCO, is absent")
def test_real_photos_are_read_and_their_crops_keep_the_people(photos: CocoPeople) -> None:
    assert (len(photos), len(photos.files)) == (12, 4)
    assert photos.left_out == {"with fewer than 5 labelled joints": 2}
    assert photos.labelled.sum(1).tolist() == [17, 14, 15, 15, 15, 12, 17, 16, 16, 15, 16, 13]
    for person in range(len(photos)):
        picture = photos.picture(photos.image[person])
        image, keypoints = person_crop(photos, person, picture, SIZE)
        labelled = photos.labelled[person]
        assert ((keypoints[labelled] >= 0) & (keypoints[labelled] < SIZE)).all(), "padding keeps every joint"
        back = to_frame(keypoints, crop_matrix(photos.boxes[person], SIZE))
        assert np.abs(back - photos.keypoints[person])[labelled].max() < 1e-3
        # The crop shows at a joint what the photo shows there.
        x, y = keypoints[labelled].round().astype(int).T
        there = to_frame(np.column_stack([x, y]), crop_matrix(photos.boxes[person], SIZE)).round().astype(int)
        there = there.clip(0, [picture.shape[1] - 1, picture.shape[0] - 1])
        difference = np.abs(image[y, x].astype(int) - picture[there[:, 1], there[:, 0]].astype(int)).mean()
        assert difference < 20, person
    assert keypoint_quality(photos, photos.keypoints, np.ones((12, 17)))["oks_ap"] == pytest.approx(1)


@pytest.mark.real
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="../shared/real, with photos of COCO, is absent")
def test_real_photos_go_through_measuring(photos: CocoPeople) -> None:
    model = PoseBridgeHPE(TINY)
    quality = measure_coco(model, photos.first(5))
    assert quality["people"] == 5 and 0 <= quality["oks_ap"] < 0.2, "an untrained model"
    load_start(model, find_start("skelgap-kp", TINY))
    seen = measure_coco(model, photos.first(5))
    assert measure_coco(model, photos.first(5), change=lambda crop, rng: crop) == seen
    black = measure_coco(model, photos.first(5), change=lambda crop, rng: np.zeros_like(crop))
    assert black["mean_score"] != seen["mean_score"], "the crops are changed"
