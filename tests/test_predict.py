"""`predict`: a trained run, or examples, asked about videos; what it says where there is nothing to say."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from fakes import FakeEstimator, write_audio, write_video
from PIL import Image

from pipeline.cache.sealed import read_sealed, seal
from pipeline.errors import PosebridgeError
from pipeline.extract.extract import extract
from pipeline.files.tensors import save_tensors
from pipeline.hpe.weights import resolve_weights
from pipeline.learn.dataset import Dataset, open_dataset
from pipeline.learn.encode import encode
from pipeline.learn.encoders import load_encoder
from pipeline.learn.run import open_run
from pipeline.learn.score import score_clips
from pipeline.learn.train import train
from pipeline.learn.trained import load_method
from pipeline.manifest.clips import Clip, write_classes, write_clips
from pipeline.manifest.failure import Failure
from pipeline.params import ExtractParams, Params, load_params
from pipeline.predict.live import LivePoses, OnceEach, windows
from pipeline.predict.overlay import Sight, sights
from pipeline.predict.predict import NOBODY, RunScorer, find_trained, listed_boxes, load_run, predict
from pipeline.predict.words import Asked, parse_labels
from pipeline.recipe import Recipe
from pipeline.text.minilm import MiniLM
from pipeline.video.decode import Video
from pipeline.video.identity import identify
from stages.cli import main

CLASSES = ["wave a hand", "bow", "kick a ball", "sit down"]
LABELS = "greeting somebody, kicking, sitting"
PARAMS = """
datasets:
  toy: {root: videos}
recipes:
  fake: {weights: fake.safetensors, frames: 8, cue_frames: 4, cues: levels, persons: 2}
  other: {weights: fake.safetensors, frames: 4, cue_frames: 4, cues: levels}
runs:
  fast: {recipe: fake, flags: {width: 16, heads: 2, layers: 1}}
  untrained: {recipe: fake}
  exact: {recipe: fake, skeletons: gt}
encode: {epochs: 2, batch_size: 8, width: 8, blocks: [1, 1, 1], seeds: [0]}
train: {epochs: 2, batch_size: 8, views: 1}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A project folder with a run `fast` trained on `toy`, protocol all_seen; a copy for each file of tests."""
    root = tmp_path_factory.mktemp("project")
    return shutil.copytree(make_project(tmp_path_factory.getbasetemp()), root, dirs_exist_ok=True)


@functools.cache  # trained once a session
def make_project(folder: Path) -> Path:
    root = folder / "trained"
    root.mkdir()
    (root / "params.yaml").write_text(PARAMS)
    save_tensors({"w": torch.zeros(1)}, root / "fake.safetensors")
    folder = root / "manifests/toy"
    write_classes(folder / "classes.csv", CLASSES)
    (folder / "protocols").mkdir()
    (folder / "protocols/all_seen.txt").write_text("# none\n")
    (folder / "protocols/all_seen.val.txt").write_text(f"0 {CLASSES[0]}\n1 {CLASSES[1]}\n")
    clips = []
    for label in range(len(CLASSES)):
        for i in range(5):
            path = f"{label}-{i}.mp4"
            write_video(root / "videos" / path, frames=10, offset=50 * label + i)
            clips.append(Clip(path[:-4], path, label=label, part="train"))
    write_clips(folder / "clips.csv", clips)
    write_bank(root / "cache/text/minilm/toy.h5")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        params = load_params(Path("params.yaml"))
        recipe = resolve_weights(params.recipes["fake"])
        knobs = ExtractParams()
        extract("toy", "fake", recipe, Path("videos"), params=knobs, build_estimator=lambda _: FakeEstimator())
        dataset = open_dataset("toy")
        encode(dataset, "all_seen", "fake", params.encode)
        train(dataset, "all_seen", "fast", params.runs["fast"], params)
    return root


def write_bank(path: Path) -> None:
    """The class names in the slots that a method asks for, without the slow framework."""
    encoder = MiniLM()
    slots = ["one_line", "hands", "global"]
    vectors = np.repeat(encoder.encode(CLASSES)[:, None], len(slots), 1)
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file.attrs.update(schema=2, dataset="toy", encoder="minilm", encoder_sha256=encoder.sha256)
        file["embeddings"], file["mask"] = vectors, np.ones(vectors.shape[:2], bool)
        file.create_dataset("slots", data=slots, dtype=h5py.string_dtype())
        file.create_dataset("class_names", data=CLASSES, dtype=h5py.string_dtype())


@pytest.fixture
def project(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project as the current folder, with the fake pose model."""
    monkeypatch.chdir(trained)
    monkeypatch.setattr("stages.extract.build_estimator", lambda recipe: FakeEstimator())
    return trained


def project_params() -> Params:
    return load_params(Path("params.yaml"))


def ask(*words: str) -> dict:
    """The JSON answer of `predict`."""
    done = CliRunner().invoke(main, ["predict", *words, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def refused(*words: str) -> str:
    """The one sentence of a refusal."""
    done = CliRunner().invoke(main, ["predict", *words])
    assert done.exit_code == 1 and done.stdout == "", done.output
    sentences = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(sentences) == 1 and sentences[0].endswith(".")
    return sentences[0]


RUN = ("--run", "fast", "--labels", LABELS)


@pytest.mark.e2e
def test_the_answer_is_that_of_extract_and_evaluate_in_every_bit(project: Path) -> None:
    params = project_params()
    dataset = open_dataset("toy")
    opened = open_run(dataset, "all_seen", params.runs["fast"])
    chosen = [clip for clip in dataset.clips if clip.clip_id in ("0-1", "2-3")]
    method, _ = load_method(opened, "all_seen", "fast", 0)
    cached = score_clips(
        opened, load_encoder(dataset, "all_seen", "fake", 0, "final"), method, opened.samples(chosen)
    )
    model = load_run("toy", "all_seen", "fast", params)
    live = LivePoses(model.recipe, lambda _: FakeEstimator())
    scorer = RunScorer(model, Asked(tuple(name.upper() for name in CLASSES)))
    assert scorer.described == "classes" and scorer.cues
    found = [clip for name in ("0-1", "2-3") for clip in windows(Path("videos") / f"{name}.mp4")]
    for row, (prediction, _) in zip(cached, predict(found, live, scorer, top=4), strict=True):
        scores = {ranked.label: ranked.score for ranked in prediction.ranking}
        assert [scores[name.upper()] for name in CLASSES] == [round(float(s), 4) for s in row]
    reader = live.reader([row for _, row in live.rows(found)])
    with dataset.reader("fake") as stored:
        for name in ("keypoints", "scores", "person_valid", "cues", "cue_scores"):
            ids = [clip.clip_id for clip in chosen]
            assert np.array_equal(reader.read(reader.clip_ids, [name])[name], stored.read(ids, [name])[name]), name


@pytest.mark.e2e
def test_own_labels_are_ranked_with_shares_and_times(project: Path) -> None:
    found = ask("videos/1-0.mp4", *RUN, "--top", "3")
    assert found["texts"] == "labels" and found["dataset"] == "toy" and found["temperature"] == pytest.approx(0.1)
    (answer,) = found["predictions"]
    shares = [ranked["confidence"] for ranked in answer["ranking"]]
    assert sum(shares) == pytest.approx(1, abs=1e-3) and shares == sorted(shares, reverse=True)
    assert {ranked["label"] for ranked in answer["ranking"]} == set(LABELS.split(", "))
    assert (answer["start"], answer["end"], answer["persons"]) == (0, pytest.approx(0.4), 1)
    assert found["video_seconds"] == pytest.approx(0.4) and found["seconds"] > 0 and found["load_seconds"] > 0
    assert found["synthetic"] is False and not any("generated" in sentence for sentence in found["warnings"])


@pytest.mark.e2e
def test_without_a_run_the_one_that_fits_answers_and_is_named(project: Path) -> None:
    words = ("videos/1-0.mp4", "--labels", LABELS)
    chosen, named = ask(*words), ask(*words, "--run", "fast")
    assert chosen["predictions"] == named["predictions"] and (chosen["run"], chosen["protocol"]) == ("fast", "all_seen")
    told = CliRunner().invoke(main, ["predict", *words]).stderr
    assert "The run fast answers, trained on toy, protocol all_seen (4 seen classes; 0 of the 3 labels" in told
    assert "No run of the parameters is trained here" in refused(*words, "--dataset", "nowhere")


@pytest.mark.e2e
def test_windows_make_a_timeline_and_look_at_shared_frames_once(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = write_video(tmp_path / "long.mp4", frames=48, fps=12)  # 4 s
    found = ask(str(video), *RUN, "--window", "2", "--stride", "1")
    assert [(p["start"], p["end"]) for p in found["predictions"]] == [(0, 2), (1, 3), (2, 4)]
    (whole,) = found["timeline"]
    assert (whole["start"], whole["end"], whole["windows"]) == (0, 4, 3) and whole["answer"] in LABELS
    done = CliRunner().invoke(main, ["predict", str(video), *RUN, "--window", "2", "--stride", "1"])
    assert done.exit_code == 0 and done.stdout.split(" s  ")[0].split() == ["0.0", "-", "4.0"]
    estimator, hashed = FakeEstimator(), []
    monkeypatch.setattr("pipeline.predict.live.identify", lambda path: hashed.append(path) or identify(path))
    live = LivePoses(resolve_weights(project_params().recipes["fake"]), lambda _: estimator, batch_size=64)
    rows = dict(live.rows(windows(video, 2, 1)))
    assert len(rows) == 3 and estimator.crops == 4 * 4, "4 s, 4 frames a second, and not 3 x 8"
    assert hashed == [video], "a day has 86,400 windows"
    alone = dict(live.rows(windows(video, 2, 1)[1:2]))
    (clip,) = alone
    assert np.array_equal(alone[clip]["cues"], rows[clip]["cues"])


@pytest.mark.e2e
def test_a_long_video_without_windows_is_warned_of(project: Path, tmp_path: Path) -> None:
    video = str(write_video(tmp_path / "long.mp4", frames=12, fps=4))  # 3 s, 8 frames of it
    assert any("--window" in sentence for sentence in ask(video, *RUN)["warnings"])
    assert not any("--window" in sentence for sentence in ask(video, *RUN, "--window", "1")["warnings"])
    assert any("a shorter --window" in sentence for sentence in ask(video, *RUN, "--window", "2.9")["warnings"])


@pytest.mark.e2e
def test_an_answer_that_rests_on_a_still_is_warned_of(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = str(write_video(tmp_path / "a.mp4", frames=12))
    assert not any("few different frames" in sentence for sentence in ask(video, *RUN)["warnings"])
    monkeypatch.setattr(Video, "sample", lambda video, count, *segment: np.zeros(count, np.int32))
    (warning,) = (sentence for sentence in ask(video, *RUN)["warnings"] if "few different frames" in sentence)
    assert "a.mp4" in warning and "Warning: " + warning in CliRunner().invoke(main, ["predict", video, *RUN]).stderr


@pytest.mark.e2e
def test_a_folder_goes_on_after_what_is_no_video(project: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=6)
    write_audio(tmp_path / "b.mp4")
    (tmp_path / "c.txt").write_text("no video by its name")
    found = ask(str(tmp_path), *RUN)
    assert [Path(p["video"]).name for p in found["predictions"]] == ["a.mp4"]
    assert [Path(u["video"]).name for u in found["unreadable"]] == ["b.mp4"]
    assert "no video stream" in found["unreadable"][0]["reason"] and found["failures"] == 1
    lines = CliRunner().invoke(main, ["predict", str(tmp_path), *RUN]).stdout.splitlines()
    assert lines[0].startswith(str(tmp_path / "a.mp4")) and lines[-1] == "1 of 2 videos failed."
    assert [line.count(str(tmp_path / "b.mp4")) for line in lines] == [0, 1, 0], "a name is told once"
    (tmp_path / "a.mp4").unlink()
    for words in ((), ("--overlay", str(tmp_path / "seen.mp4"))):
        done = CliRunner().invoke(main, ["predict", str(tmp_path), *RUN, *words])
        assert done.exit_code == 1 and "b.mp4" in done.stdout and "none of the videos could be read" in done.stderr


@pytest.mark.e2e
def test_a_folder_of_images_is_a_video_or_an_example(project: Path, tmp_path: Path) -> None:
    for name, count, grey in (("one", 20, 60), ("mine/dark/a", 2, 10), ("mine/light", 1, 200)):
        (tmp_path / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (64, 48), (grey + i,) * 3).save(tmp_path / name / f"{i}.png")
    one, seen = str(tmp_path / "one"), tmp_path / "seen.mp4"
    (answer,) = ask(one, *RUN, "--overlay", str(seen))["predictions"]
    assert (answer["video"], answer["start"], answer["end"]) == (f"{one}/", 0, 0.8), "25 a second"
    with av.open(str(seen)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 20
    (tmp_path / "params.yaml").write_text(PARAMS.replace("{root: videos}", "{root: videos, image_fps: 2}"))
    words = ("--dataset", "toy", "--params", str(tmp_path / "params.yaml"), "--window", "5")
    assert [(p["start"], p["end"]) for p in ask(one, *RUN, *words)["predictions"]] == [(0, 5), (2.5, 7.5), (5, 10)]
    assert ask(one, "--examples", str(tmp_path / "mine"), "--recipe", "fake")["labels"] == ["dark", "light"]
    for i in range(20):
        (tmp_path / "one" / f"{i}.png").write_bytes(b"")
    assert "3 of 20 images cannot be read; first 0.png: it is no JPEG" in refused(one, *RUN)


@pytest.mark.e2e
@pytest.mark.parametrize("frames", [1, 2])
def test_a_video_of_one_frame_is_answered_and_drawn(project: Path, tmp_path: Path, frames: int) -> None:
    video = write_video(tmp_path / "short.mp4", frames=frames)
    seen = Path("12:30 seen.mp4")  # no protocol
    found = ask(str(video), *RUN, "--overlay", str(seen))
    assert len(found["predictions"][0]["ranking"]) == 3
    with av.open(str(seen.absolute())) as container:
        assert sum(1 for _ in container.decode(video=0)) == frames


@pytest.mark.e2e
def test_a_phone_video_is_seen_and_drawn_upright(project: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "phone.mp4", frames=10, size=(64, 48), rotation=90)
    seen = tmp_path / "seen.mp4"
    ask(str(video), *RUN, "--overlay", str(seen))
    with av.open(str(seen)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 48, 64)
        assert sum(1 for _ in container.decode(video=0)) == 10
    live = LivePoses(resolve_weights(project_params().recipes["fake"]), lambda _: FakeEstimator())
    ((_, row),) = live.rows(windows(video))
    assert row["boxes"][0, 0].tolist() == [0, 0, 48, 64]
    assert (row["video_width"], row["video_height"]) == (48, 64)
    assert (row["keypoints"][0] <= [48, 64]).all()


@pytest.mark.e2e
def test_nobody_is_an_answer(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Blind:
        together, provider = 1, "none"

        def __init__(self, path: Path, device: torch.device):
            pass

        def letterbox(self, frame: np.ndarray) -> np.ndarray:
            return frame

        def detect_together(self, frames: list[np.ndarray], threshold: float) -> list[tuple[np.ndarray, np.ndarray]]:
            return [(np.zeros((0, 4), np.float32), np.zeros(0, np.float32)) for _ in frames]

    monkeypatch.setattr("pipeline.hpe.detector.Detector", Blind)
    (tmp_path / "detector.onnx").write_bytes(b"any")
    video = write_video(tmp_path / "empty.mp4", frames=10)
    words = [str(video), *RUN, "--detector", str(tmp_path / "detector.onnx")]
    found = ask(*words, "--overlay", str(tmp_path / "seen.mp4"))
    assert found["predictions"][0]["ranking"] == [] and found["predictions"][0]["reason"] == NOBODY
    assert (tmp_path / "seen.mp4").is_file()
    assert CliRunner().invoke(main, ["predict", *words]).stdout.strip() == NOBODY


@pytest.mark.unit
def test_a_pose_model_that_is_sure_of_no_joint_saw_nobody(tmp_path: Path) -> None:
    class Unsure(FakeEstimator):
        def estimate(self, crops, cue_rows):
            found = super().estimate(crops, cue_rows)
            return replace(found, scores=found.scores * 0.1)

    video = write_video(tmp_path / "a.mp4", frames=4)
    recipe = Recipe(frames=4, cue_frames=2, cues="levels")
    ((_, row),) = LivePoses(recipe, lambda _: Unsure()).rows(windows(video))
    assert isinstance(row, Failure) and row.stage == "track"


@pytest.mark.unit
@pytest.mark.parametrize(
    ("labels", "said"),
    [("", "no labels"), (" , ", "no labels"), ("one", "one label"), ("bow, wave,  BOW", "'bow' is there twice")],
)
def test_labels_that_leave_no_choice_are_refused(labels: str, said: str) -> None:
    with pytest.raises(PosebridgeError, match=said):
        parse_labels(labels)
    assert parse_labels(" shaking   hands,push ,").labels == ("shaking hands", "push")


@pytest.mark.e2e
def test_bad_questions_are_one_sentence(project: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("this is no video")
    assert "cannot be read as a video" in refused(str(text), *RUN)
    assert "does not exist" in refused("nowhere.mp4", *RUN)
    (tmp_path / "empty").mkdir()
    assert "holds no video" in refused(str(tmp_path / "empty"), *RUN)
    video = "videos/0-0.mp4"
    assert "one label" in refused(video, "--run", "fast", "--labels", "bow")
    assert "above 0 seconds" in refused(video, *RUN, "--window", "0")
    assert "no run named 'nobody'" in refused(video, "--run", "nobody", "--labels", LABELS)
    assert "true skeletons" in refused(video, "--run", "exact", "--labels", LABELS, "--dataset", "toy")
    (tmp_path / "link.mp4").symlink_to(Path(video).resolve())
    for words in (
        [video], [video, "--run", "fast"], [video, *RUN, "--examples", "videos"], [video, *RUN, "--overlay", "x.png"],
        [video, *RUN, "--overlay", str(tmp_path / "link.mp4")],
    ):  # fmt: skip
        assert CliRunner().invoke(main, ["predict", *words]).exit_code == 2


@pytest.mark.e2e
def test_an_untrained_run_names_the_commands(project: Path) -> None:
    for words in ((), ("--dataset", "toy")):
        said = refused("videos/0-0.mp4", "--run", "untrained", "--labels", LABELS, *words)
        for stage in ("extract", "text", "encode", "train"):
            assert f"`posebridge {stage}" in said, said
    assert "seed 7" in refused("videos/0-0.mp4", *RUN, "--seed", "7")
    said = refused("videos/0-0.mp4", *RUN, "--protocol", "another")
    assert "(but with `--dataset toy --protocol all_seen`)" in said
    with pytest.raises(PosebridgeError, match="choose with --dataset"):
        shutil.copytree("cache/models/toy", "cache/models/zoo")
        try:
            find_trained(Path("cache"), "fast")
        finally:
            shutil.rmtree("cache/models/zoo")


@pytest.mark.e2e
def test_the_protocol_is_one_that_the_run_is_trained_with(project: Path) -> None:
    models = Path("cache/models/toy")
    shutil.copytree(models / "all_seen", models / "first")
    try:
        assert find_trained(Path("cache"), "fast") == ("toy", "all_seen"), "all_seen before others"
        (models / "all_seen").rename(models / "second")
        with pytest.raises(PosebridgeError, match="--protocol first` and .*--protocol second"):
            find_trained(Path("cache"), "fast")
        shutil.rmtree(models / "first")
        assert find_trained(Path("cache"), "fast") == find_trained(Path("cache"), "fast", "toy") == ("toy", "second")
    finally:
        shutil.rmtree(models / "first", ignore_errors=True)
        (models / "second").rename(models / "all_seen")


@pytest.mark.e2e
def test_another_recipe_is_refused_with_the_commands_that_help(project: Path, tmp_path: Path) -> None:
    said = refused("videos/0-0.mp4", *RUN, "--recipe", "other")
    assert "'fake', not 'other'" in said and "posebridge extract --dataset toy --recipe other" in said
    assert ask("videos/0-0.mp4", *RUN, "--recipe", "fake")["recipe"] == "fake"
    changed = tmp_path / "params.yaml"
    changed.write_text(PARAMS.replace("fast: {recipe: fake", "fast: {recipe: other"))
    said = refused("videos/0-0.mp4", *RUN, "--params", str(changed))
    assert "trained with the recipe 'fake'" in said and "posebridge train --dataset toy" in said
    changed.write_text(PARAMS.replace("frames: 8", "frames: 12"))
    assert "is not the one that toy was extracted with" in refused("videos/0-0.mp4", *RUN, "--params", str(changed))


@pytest.mark.e2e
def test_a_run_trained_on_generated_data_says_so_of_other_videos(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.predict.predict.PROTOCOLS", {"toy": {}})
    outside = write_video(tmp_path / "real.mp4", frames=6)
    words = ["predict", str(outside), *RUN]
    said = CliRunner().invoke(main, words)
    assert "Warning: " in said.stderr and "generated data only (toy)" in said.stderr
    found = ask(*words[1:])
    assert found["synthetic"] and any("generated data only" in sentence for sentence in found["warnings"])
    assert not any("generated" in sentence for sentence in ask("videos/0-0.mp4", *RUN)["warnings"])


@pytest.mark.unit
def test_videos_of_the_data_set_keep_its_boxes(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", frames=3)
    dataset = Dataset("toy", tmp_path, tmp_path, ("x",), (Clip("a", "a.mp4"),))
    recipe = Recipe(boxes="manifest", frames=3, cue_frames=3, cues="levels")
    with h5py.File(tmp_path / "ground_truth.h5", "w") as file:
        file.create_dataset("clip_id", data=["a"], dtype=h5py.string_dtype())
        file["keypoints"], file["visible"] = np.zeros((1, 3, 17, 2), "f4"), np.ones((1, 3, 17), bool)
        file["boxes"] = np.array([[[1, 2, 20, 30]] * 3], "f4")
    boxes = listed_boxes(dataset, tmp_path, recipe, [video])
    ((_, row),) = LivePoses(recipe, lambda _: FakeEstimator(), boxes=boxes).rows(windows(video))
    assert row["boxes"][0].tolist() == [[1, 2, 20, 30]] * 3
    other = write_video(tmp_path / "b.mp4", frames=3)
    assert listed_boxes(dataset, tmp_path, recipe, [video, other]) is None
    ((_, row),) = LivePoses(recipe, lambda _: FakeEstimator()).rows(windows(other))
    assert row["boxes"][0, 0].tolist() == [0, 0, 64, 48]


@pytest.mark.e2e
def test_examples_need_no_training_and_are_estimated_once(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for action, offset in (("dark_one", 0), ("light_one", 150)):
        for i in range(2):
            write_video(tmp_path / "mine" / action / f"{i}.mp4", frames=8, offset=offset + i)
    asked: list[FakeEstimator] = []
    monkeypatch.setattr("stages.extract.build_estimator", lambda _: asked.append(FakeEstimator()) or asked[-1])
    words = ("--examples", str(tmp_path / "mine"), "--recipe", "fake")
    unknown = write_video(tmp_path / "unknown.mp4", frames=8, offset=152)
    for more in ((), ("--neighbours", "0"), ("--neighbours", "5")):
        found = ask(str(unknown), *words, *more)
        ranking = found["predictions"][0]["ranking"]
        assert {ranked["label"] for ranked in ranking} == {"dark one", "light one"}, more
    assert [estimator.crops for estimator in asked] == [8 * 5, 8, 8]
    assert found["labels"] == ["dark one", "light one"] and not found["cues"]
    assert ask(str(unknown), *words, "--cues")["cues"]
    assert "two at least" in refused(str(unknown), "--examples", str(tmp_path / "mine/dark_one"), "--recipe", "fake")
    for name in ("light one", "Light One"):
        (tmp_path / "mine" / name).mkdir()
        assert f"two sub-folders for the action '{name}'" in refused(str(unknown), *words)
        (tmp_path / "mine" / name).rmdir()
    (tmp_path / "mine" / "None_of_these").mkdir()
    assert "'none of these' is an answer by itself" in refused(str(unknown), *words)
    (tmp_path / "mine" / "None_of_these").rmdir()
    write_audio(tmp_path / "mine" / "light_one" / "sound.mp4")
    found = ask(str(unknown), *words)
    (left_out,) = found["examples_left_out"]
    assert left_out["clip_id"].endswith("sound.mp4") and any("is left out: no video" in w for w in found["warnings"])
    for i in range(2):
        (tmp_path / "mine" / "light_one" / f"{i}.mp4").rename(tmp_path / f"{i}.mp4")
    assert "shows anybody, first" in refused(str(unknown), *words), "nothing is left of an action"
    for i in range(2):
        (tmp_path / f"{i}.mp4").rename(tmp_path / "mine" / "light_one" / f"{i}.mp4")
    (saved,) = {p.parent for p in Path("cache/examples").rglob("*.safetensors")}
    for path in saved.iterdir():
        path.write_bytes(path.read_bytes()[:20])
    assert ask(str(unknown), *words)["predictions"] == ask(str(unknown), *words)["predictions"]


@pytest.mark.unit
def test_equal_crops_are_looked_at_once_and_answered_alike() -> None:
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 255, (3, 32, 24, 3), np.uint8)[[0, 1, 0, 2, 1]]
    wanted = np.array([False, True, True, False, True])
    plain, once = FakeEstimator(), FakeEstimator()
    a, b = plain.estimate(crops, wanted), OnceEach(once).estimate(crops, wanted)
    assert (plain.crops, once.crops) == (5, 3)
    for name in ("keypoints", "scores", "cues", "cue_scores"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name


@pytest.mark.unit
def test_windows_cover_the_video_to_its_end(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", frames=90)  # 3.6 s
    assert [(c.start, c.end) for c in windows(video)] == [(0, pytest.approx(3.6))]
    starts = [c.start for c in windows(video, 2)]
    assert starts == [0, 1, pytest.approx(1.6)]
    assert [c.start for c in windows(video, 2, float("inf"))] == [0, pytest.approx(1.6)]
    for words in ((2, 1e-7), (1e-9,)):
        with pytest.raises(PosebridgeError, match=r"a.mp4 of 4 s has more than 100000 windows.*longer --stride\.$"):
            windows(video, *words)
    assert len(windows(video, 60)) == 1 and len({c.clip_id for c in windows(video, 0.5, 0.1)}) == 32


@pytest.mark.unit
def test_poses_are_in_between_between_samples_and_nowhere_far_from_them() -> None:
    times = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    valid = np.array([[1, 1, 1, 0, 0, 0]], bool)
    keypoints = np.zeros((1, 6, 17, 2)) + times[None, :, None, None] * 10
    row = {"timestamp": times, "keypoints": keypoints, "scores": np.ones((1, 6, 17)), "boxes": np.ones((1, 6, 4)),
           "person_valid": valid}  # fmt: skip
    sight = Sight(row, [4])
    (person,) = sight.at(0.25)
    assert person.identity == 4 and person.keypoints == pytest.approx(np.full((17, 2), 2.5))
    assert sight.at(1.25)[0].keypoints[0, 0] == pytest.approx(12.5)
    assert sight.at(2.5)[0].keypoints[0, 0] == 20 and sight.at(3.5) == [] and sight.at(99) == []


@pytest.mark.unit
def test_identities_go_on_from_window_to_window() -> None:
    def row(start: float, lefts: list[float]) -> dict:
        boxes = np.stack([np.tile([left, 0, 10, 20], (4, 1)) for left in lefts]).astype(float)
        m = len(lefts)
        return {"timestamp": start + np.arange(4.0), "keypoints": np.zeros((m, 4, 17, 2)), "boxes": boxes,
                "scores": np.ones((m, 4, 17)), "person_valid": np.ones((m, 4), bool)}  # fmt: skip

    first, second, gap, third = sights([row(0, [0, 100]), row(2, [101, 1]), None, row(4, [2, 300])])
    assert first.identities == (0, 1) and second.identities == (1, 0) and gap is None
    assert third.identities == (0, 2), "who was not there before is somebody new"


@pytest.mark.unit
def test_prediction_with_onnx_recipes_imports_neither_mmpose_nor_a_text_framework() -> None:
    code = (
        "import sys\nimport pipeline.predict.predict, pipeline.predict.examples, pipeline.predict.overlay\n"
        "import pipeline.hpe.onnx_adapter\n"
        "slow = ('mmpose', 'mmengine', 'mmcv', 'sentence_transformers', 'transformers')\n"
        "print([name for name in slow if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.slow
def test_minilm_without_its_framework_is_the_same() -> None:
    from pipeline.text.encoder import SentenceEncoder

    texts = ["bow", "Two people walk up to each other, clasp their right hands and shake them.", "é" * 400]
    assert np.allclose(MiniLM().encode(texts), SentenceEncoder().encode(texts), atol=1e-5)


@pytest.mark.e2e
def test_shares_are_those_that_the_run_was_calibrated_by_and_say_so(project: Path) -> None:
    words, path = ("videos/1-0.mp4", *RUN), Path("cache/models/toy/all_seen/fast/seed-0/selection.json")
    plain, whole = ask(*words), path.read_text()
    assert plain["calibration"] is None and "not calibrated" in plain["confidences"]
    assert plain["predictions"][0]["none"] is None
    learnt = {"temperature": 0.2, "none": 1.0, "clips": 40, "classes": 4, "told": 0.75, "lost": 0.1}
    try:
        path.write_text(json.dumps(seal(read_sealed(path, "") | {"confidence": {"labels": learnt}})))
        found, told = ask(*words), CliRunner().invoke(main, ["predict", *words])
        other = ask(words[0], "--run", "fast", "--labels", "bow, sit down")
    finally:
        path.write_text(whole)
    (answer,) = found["predictions"]
    assert found["calibration"] == learnt and found["temperature"] == 0.2 and answer["answer"] == "none of these"
    assert sum(each["confidence"] for each in answer["ranking"]) + answer["none"] == pytest.approx(1, abs=1e-3)
    assert "calibrated on 40 clips of 4 actions; there 75%" in told.stderr and told.stdout.startswith("none of these ")
    assert other["texts"] == "classes" and other["calibration"] is None, "learnt of bare labels, not of classes"
    scores = [[ranked["score"] for ranked in one["predictions"][0]["ranking"]] for one in (found, plain)]
    assert scores[0] == scores[1]
