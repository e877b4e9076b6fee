"""`posebridge init`: a folder of videos becomes a data set, and everything odd about it one sentence."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from click.testing import CliRunner
from dvc.repo import Repo
from fakes import write_video
from onnx import helper
from test_onnx import graph, heatmap_graph

import stages.init
from pipeline.errors import PosebridgeError
from pipeline.files.durable import write_for_people
from pipeline.files.tables import read_text
from pipeline.files.yaml_entry import with_entry
from pipeline.manifest.check_texts import SLOTS, check_texts
from pipeline.manifest.clips import Clip, read_classes, read_clips, read_with_others, write_clips
from pipeline.manifest.drafts import draft_texts, read_drafts
from pipeline.manifest.texts import read_texts
from pipeline.params import load_params
from pipeline.project.asked import Asked
from pipeline.project.init import init
from pipeline.project.labels import check_labels
from pipeline.project.look import look
from pipeline.project.parts import deal_parts, usual_way
from pipeline.protocol.splits import read_split
from stages.cli import main

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parent.parent
PARAMS = """\
# ours
datasets:
  other: # somebody's
    root: x

recipes:
  shipped: {weights: skelgap-sem, boxes: full_frame}
  tinypose:
    backend: onnx
    weights: pose.onnx
    boxes: full_frame
    cues: levels
    taps: [middle]
    layout: three

# what is trained
runs: {}
"""
ACTIONS = ("bow", "clap", "jump", "kick", "sit", "wave")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("film") / "a.mp4", frames=3)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def videos(tmp_path: Path, film: Path) -> Path:
    return filled(tmp_path / "my videos", film, [f"{action}/{i}.mp4" for action in ACTIONS for i in range(4)])


def filled(root: Path, film: Path, paths: list[str]) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(film, root / path)
    return root


def run(*words: object) -> dict:
    done = CliRunner().invoke(main, ["init", *map(str, words), "--recipe", "shipped", "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def refused(*words: object) -> str:
    """The sentence that it ends in; nothing is written."""
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    done = CliRunner().invoke(main, ["init", *map(str, words)])
    assert done.exit_code == 1 and not done.stdout, done.output
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    assert not list(Path("manifests").glob(".init-*")), "no draft is left"
    return " ".join(done.stderr.split("Error: ")[-1].split())


def test_everything_that_people_would_write_is_written(project: Path, videos: Path) -> None:
    told = run(videos, "--name", "mine", "--unseen", "kick, wave")
    folder = project / "manifests/mine"
    classes = read_classes(folder / "classes.csv")
    assert classes == list(ACTIONS) == told["classes"]
    clips = read_clips(folder / "clips.csv", 6)
    assert {(c.label, c.part) for c in clips} == {(label, part) for label in range(6) for part in ("train", "test")}
    split = read_split(folder / "protocols", told["protocol"], classes)
    assert [classes[i] for i in split.unseen] == ["kick", "wave"] and len(split.validation) == 2
    _, texts = read_texts(folder / "texts.csv", classes)
    drafts = read_drafts(folder / "texts.csv")
    assert len(texts) == 6 * len(SLOTS) == len(drafts) and told["drafts"] == 6
    assert check_texts(texts, classes, drafts) == [] and told["findings"] == []
    params = load_params(project / "params.yaml")
    assert params.datasets["mine"].root == str(videos.resolve())
    assert {name: (each.method, each.recipe) for name, each in params.runs.items()} == {
        "mine": ("posebridge", "shipped"), "mine_skeleton": ("skeleton", "shipped")
    }  # fmt: skip
    kept = [line for line in PARAMS.splitlines() if "#" in line]
    assert [line for line in (project / "params.yaml").read_text().splitlines() if "#" in line] == kept


def test_its_stages_are_one_graph_that_dvc_can_run(project: Path, videos: Path) -> None:
    told = run(videos, "--name", "mine", "--unseen", "2")
    with Repo(str(project)) as repo:
        stages = {stage.addressing: stage for stage in repo.index.stages}
        assert {name.rpartition(":")[2].partition("@")[0] for name in stages} == {
            "text", "extract", "encode", "train", "evaluate", "report"
        }  # fmt: skip
        made = {out.def_path for stage in stages.values() for out in stage.outs}
        for stage in stages.values():
            for dep in stage.deps:
                if not hasattr(dep, "params"):
                    there = dep.def_path in made or any(out.startswith(dep.def_path) for out in made)
                    assert there or (project / dep.def_path).exists(), f"{stage.addressing} depends on {dep.def_path}"
    assert told["command"].endswith("dvc repro manifests/mine/dvc.yaml")


def test_its_stages_depend_on_the_code_that_those_of_the_demo_depend_on() -> None:
    def code(path: Path) -> dict[str, set[str]]:
        stages = yaml.safe_load(path.read_text())["stages"]
        ours = ("cache/sums", "stages/", "pipeline/recipe.py")
        plain = {name: stage["deps"] for name, stage in stages.items() if "deps" in stage}
        return {name: {dep for dep in deps if dep.startswith(ours)} for name, deps in plain.items()}

    mine, demo = code(ROOT / "pipeline/project/table.yaml"), code(ROOT / "dvc.yaml")
    assert mine == {name: demo[name] for name in mine}


def test_nothing_is_written_over(project: Path, videos: Path, tmp_path: Path, film: Path) -> None:
    run(videos, "--name", "mine")
    again = (videos, "--name", "mine", "--recipe", "shipped")
    other = filled(tmp_path / "others", film, [f"{action}/0.mp4" for action in ACTIONS])
    assert "manifests/mine is there already and stays as it is" in refused(other, *again[1:])
    shutil.rmtree("manifests/mine")
    assert "params.yaml has 'mine' under datasets already" in refused(*again)


def test_the_same_command_again_takes_up_what_has_come_and_keeps_what_people_wrote(
    project: Path, videos: Path, film: Path
) -> None:
    first = run(videos, "--name", "mine")
    texts = project / "manifests/mine/texts.csv"
    texts.write_text(texts.read_text().replace("\n", "\n\n", 1))
    files = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    assert (run(videos, "--name", "mine")["new"], first["command"]) == ({}, run(videos, "--name", "mine")["command"])
    assert files == {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    listed = project / "manifests/mine/clips.csv"
    before = {clip.clip_id: clip for clip in read_clips(listed, 6)}
    write_clips(listed, before.values(), {"bow/0": {"note": "mine"}})
    filled(videos, film, [f"{action}/{i}.mp4" for action in ("bow", "wave") for i in (4, 5)])
    (videos / "clap/0.mp4").unlink()
    told = run(videos, "--name", "mine", "--unseen", "2")
    assert told["new"] == {"train": 2, "test": 2} and told["gone"] == 1 and told["clips"] == 27
    clips, others = read_with_others(listed)
    del before["clap/0"]
    assert {clip.clip_id: clip for clip in clips if clip.clip_id in before} == before
    assert others["bow/0"]["note"] == "mine"
    assert {path: path.read_bytes() for path in files if path != listed} == {
        path: content for path, content in files.items() if path != listed
    }
    done = CliRunner().invoke(main, ["init", str(videos), "--name", "mine", "--unseen", "2"])
    assert "--unseen counts for a new data set only" in done.stderr and "No new clip, 0 gone" in done.stdout
    write_clips(listed, [replace(clip, part="") if clip.clip_id == "bow/5" else clip for clip in clips], others)
    assert run(videos, "--name", "mine")["new"].keys() < {"train", "test"}, "listed, and killed before it was dealt"
    assert read_clips(listed, 6) == clips
    filled(videos, film, ["yawn/0.mp4"])
    assert "has the new class 'yawn'" in refused(videos, "--name", "mine")


def test_init_again_lists_as_before_unless_it_is_told_otherwise(
    project: Path, tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = filled(tmp_path / "mixed", film, [f"{action}_{who}.mp4" for action in ACTIONS for who in "pqrs"])
    run(root, "--name", "mine", "--pattern", "^(?P<label>[a-z]+)_(?P<subject>[a-z])", "--split-by", "video")
    filled(root, film, [f"{action}_{who}.mp4" for action in ACTIONS for who in "tu"])
    monkeypatch.setattr(stages.init, "at_a_terminal", lambda: True)
    done = CliRunner().invoke(main, ["init", str(root)])
    assert done.exit_code == 0 and "Name of the data set" not in done.stderr, done.output
    assert "As manifests/mine/init.csv has it from before: --pattern '^(?P<label>[a-z]+)_" in done.stderr
    assert "--split-by video" in done.stderr and "manifests/mine is there already: 12 new clips" in done.stdout
    monkeypatch.setattr(stages.init, "at_a_terminal", lambda: False)
    filled(root, film, [f"{action}_{who}.mp4" for action in ACTIONS for who in "vwxyz"])
    told = run(root, "--split-by", "subject")
    assert told["dataset"] == "mine" and list(told["kept"]) == ["--pattern"] and sum(told["new"].values()) == 30
    clips = read_clips(project / "manifests/mine/clips.csv", 6)
    sides = {(clip.subject, clip.part) for clip in clips if clip.subject in "vwxyz"}
    assert len(sides) == 5, "no subject of the new clips is on both sides"
    assert run(root)["kept"]["--split-by"] == "subject", "what was said last"
    rows = [f"{path.name},{path.name.split('_')[0].replace('jump', 'leap')}\n" for path in root.iterdir()]
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(rows))
    assert "has the new class 'leap'" in refused(root, "--labels", tmp_path / "labels.csv"), "and not by the pattern"
    run(root, "--name", "two", "--labels", tmp_path / "labels.csv")
    assert "is of the data sets 'mine', 'two'; name one with --name" in " ".join(
        CliRunner().invoke(main, ["init", str(root)]).stderr.split()
    )
    assert run(root, "--name", "two")["kept"] == {"--labels": str((tmp_path / "labels.csv").resolve())}


def test_what_is_written_into_the_parameters_meanwhile_stays(project: Path, videos: Path) -> None:
    def edit(done: int, total: int) -> None:
        (project / "params.yaml").write_text(PARAMS.replace("# ours", "# ours, meanwhile"))

    init(look(videos), "mine", Asked(recipe="shipped"), edit)
    path = project / "params.yaml"
    assert path.read_text().startswith("# ours, meanwhile") and "mine" in load_params(path).datasets


def test_an_init_that_is_interrupted_leaves_nothing(
    project: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: Path, content: bytes) -> None:
        if path.name == "params.yaml":
            raise KeyboardInterrupt
        write_for_people(path, content)

    monkeypatch.setattr("pipeline.project.init.write_for_people", interrupted)
    with pytest.raises(KeyboardInterrupt):
        init(look(videos), "mine", Asked(recipe="shipped"))
    assert not list((project / "manifests").iterdir()) and (project / "params.yaml").read_text() == PARAMS


def test_words_of_ones_own_are_no_drafts(project: Path, videos: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.csv"
    words.write_text("label,slot,text\nkick,one_line,A leg swings out and meets something.\nbow,head,Down.\n")
    told = run(videos, "--name", "mine", "--texts", words)
    folder = project / "manifests/mine"
    _, texts = read_texts(folder / "texts.csv", list(ACTIONS))
    assert texts[3, "one_line"] == "A leg swings out and meets something."
    assert (3, "one_line") not in read_drafts(folder / "texts.csv")
    assert told["findings"] == ["'bow', head: 1 words, not 5 to 25."]
    words.write_text("label,slot,text\nkik,one_line,A leg swings.\n")
    assert "line 2, column label: 'kik' is no class" in refused(
        videos, "--name", "two", "--texts", words, "--recipe", "shipped"
    )


def test_a_person_at_a_terminal_is_asked_and_nobody_else(
    project: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages.init, "at_a_terminal", lambda: True)
    done = CliRunner().invoke(main, ["init", str(videos), "--recipe", "shipped"], input="asked\nsit, bow\n")
    assert done.exit_code == 0 and "[my_videos]" in done.stderr and "24 clips of 6 classes: 'bow'," in done.stderr
    assert "unseen 'bow', 'sit'" in done.stdout
    monkeypatch.setattr(stages.init, "at_a_terminal", lambda: False)
    assert run(videos)["dataset"] == "asked", "the only one of this folder"
    assert run(videos, "--name", "my_videos")["dataset"] == "my_videos"
    assert run(videos)["dataset"] == "my_videos", "of two, the one of its name"


def test_folders_of_images_are_clips(project: Path, tmp_path: Path) -> None:
    from PIL import Image

    for action in ACTIONS:
        for clip in "ab":
            (tmp_path / "frames" / action / clip).mkdir(parents=True)
            for i in (1, 2):
                Image.new("L", (16, 16), i).save(tmp_path / "frames" / action / clip / f"{i}.png")
    told = run(tmp_path / "frames", "--image-fps", "2")
    assert told["clips"] == 12 and told["parts"] == {"train": 6, "test": 6}
    assert load_params(project / "params.yaml").datasets["frames"].image_fps == 2


# Odd folders


@pytest.mark.parametrize(
    ("paths", "sentence"),
    [
        (["readme.txt"], "No video found for your own data set in"),
        (["a.mp4", "b.mp4"], "None of the 2 videos in"),
        (["kick/a.mp4", "kick/b.mp4"], "With 2 unseen, 6 classes are needed"),
        (["all/kick/a.mp4", "all/bow/b.mp4"], "lie in one sub-folder, 'all'; name that one instead"),
        (["train/kick/a.mp4", "test/kick/b.mp4"], "which are parts and no actions"),
        (["Kick/a.mp4", "kick/b.mp4"], "'Kick' and 'kick' differ by case, blanks or dashes only"),
        (["hand_shake/a.mp4", "hand shake/b.mp4"], "differ by case, blanks or dashes only"),
        (["kick /a.mp4", "bow/b.mp4"], "'kick ' begins or ends with a blank"),
        (["__/a.mp4", "bow/b.mp4"], "'__' has no word in it"),
        (["kick/a.mp4", "kick/project/dvc.yaml"], "holds another project (kick/project/dvc.yaml)"),
    ],
)
def test_a_folder_that_will_not_do(project: Path, tmp_path: Path, film: Path, paths: list[str], sentence: str) -> None:
    assert sentence in refused(filled(tmp_path / "odd", film, paths), "--recipe", "shipped")


def test_a_folder_that_holds_the_project_is_refused(project: Path, tmp_path: Path) -> None:
    assert "holds this project itself" in refused(tmp_path, "--recipe", "shipped")
    assert "holds this project itself" in refused(".", "--recipe", "shipped")
    assert "is no folder" in refused(tmp_path / "nowhere", "--recipe", "shipped")


def test_a_project_inside_another_has_files_of_its_own(project: Path, videos: Path) -> None:
    (project.parent / ".dvc").mkdir()
    (project.parent / "params.yaml").write_text("datasets: {}\n")
    run(videos, "--name", "mine")
    assert (project / ".dvc/config").is_file() and not list((project.parent / ".dvc").iterdir())
    assert (project.parent / "params.yaml").read_text() == "datasets: {}\n"


def test_thousands_of_files_that_are_no_videos_are_one_sentence(project: Path, tmp_path: Path) -> None:
    for action in ACTIONS:
        (tmp_path / "odd" / action).mkdir(parents=True)
        for i in range(400):
            (tmp_path / "odd" / action / f"{i}.mp4").write_bytes(b"x")
    assert "None of the 2400 videos can be read; first bow/0.mp4: " in refused(tmp_path / "odd", "--recipe", "shipped")


def test_a_class_without_a_readable_video_is_named_and_single_ones_are_let_pass(
    project: Path, videos: Path, tmp_path: Path
) -> None:
    (videos / "bow/0.mp4").write_bytes(b"x")
    told = run(videos, "--name", "mine")
    assert [each["path"] for each in told["unreadable"]] == ["bow/0.mp4"]
    assert "max_failures: 3" in (project / "manifests/mine/dvc.yaml").read_text(), "it, and a tenth of the 24"
    for i in range(4):
        (videos / f"bow/{i}.mp4").write_bytes(b"x")
    assert "None of the videos of the class 'bow' can be read; first bow/0.mp4: " in refused(
        videos, "--name", "two", "--recipe", "shipped"
    )


def test_labels_of_any_letters(project: Path, tmp_path: Path, film: Path) -> None:
    labels = ["sit/stand", 'say "hi"', "it's me", "🤸🏽‍♀️", "w" * 300, "a, b", "# 3", "übung " + "sehr " * 40 + "lang"]
    root = filled(tmp_path / "odd", film, [f"{i}.mp4" for i in range(2 * len(labels))])
    rows = [f'{i}.mp4,"{label.replace(chr(34), 2 * chr(34))}"\n' for i, label in enumerate(2 * labels)]
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(rows))
    told = run(root, "--labels", tmp_path / "labels.csv", "--unseen", '"a, b", sit/stand')
    classes = read_classes(project / "manifests/odd/classes.csv")
    assert classes == sorted(labels) and told["unseen"] == ["a, b", "sit/stand"]
    assert any(remark.startswith("No text encoder understands '🤸🏽") for remark in told["remarks"])
    assert read_texts(project / "manifests/odd/texts.csv", classes) and told["findings"] == []


def test_a_list_of_labels_among_the_videos_counts_over_their_folders(project: Path, tmp_path: Path, film: Path) -> None:
    root = filled(tmp_path / "odd", film, [f"all/takes/{i}.mp4" for i in range(12)])
    rows = [f"all/takes/{i}.mp4,{ACTIONS[i % 6]}\n" for i in range(12)]
    (root / "labels.csv").write_text("path,label\n" + "".join(rows))
    assert run(root)["classes"] == list(ACTIONS)


def test_a_name_that_is_none(project: Path, videos: Path, tmp_path: Path, film: Path) -> None:
    for name in ("a.b", "-x", "a b", "../x", "x" * 101):
        assert "cannot be the name of a data set" in refused(videos, f"--name={name}", "--recipe", "shipped")
    root = filled(tmp_path / "!!!", film, ["kick/a.mp4"])
    assert CliRunner().invoke(main, ["init", str(root)]).exit_code == 2


# Pose models


def test_weights_that_are_absent_are_named(project: Path, videos: Path) -> None:
    sentence = refused(videos)
    assert "weights: pose.onnx is missing; fetch public ones with `posebridge weights get rtmpose-s rtmdet" in sentence
    named = refused(videos, "--recipe", "tinypose")
    assert "weights: pose.onnx is missing; bring the file (`posebridge weights ls` lists public ones)" in named
    assert sentence.rstrip().endswith("or name another one with --weights.")
    assert "is for generated or imported skeletons" in refused(videos, "--recipe", "gt", *gt(project))


def gt(project: Path) -> tuple[str, ...]:
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("recipes:\n", "recipes:\n  gt: {backend: ground_truth}\n"))
    return ()


def test_weights_of_ones_own_become_a_recipe(project: Path, videos: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.onnx"
    heatmap_graph(own, joints=17)
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("    layout: three\n", ""))
    done = CliRunner().invoke(main, ["init", str(videos), "--name", "mine", "--weights", str(own)])
    assert done.exit_code == 0, done.output
    params = load_params(project / "params.yaml")
    assert params.recipes["mine"].weights == str(own) and params.recipes["mine"].taps == ("middle",)
    assert params.runs["mine"].flags == {"level_widths": [3]} and params.runs["mine_skeleton"].flags == {}
    (project / "pose.onnx").unlink(missing_ok=True)
    (project / "cache/weights").mkdir(parents=True)
    shutil.copy(own, project / "cache/weights/rtmpose-s.onnx")  # as `weights get` leaves it
    done = CliRunner().invoke(main, ["init", str(videos), "--name", "fetched"])
    assert done.exit_code == 0 and "The pose model is cache/weights/rtmpose-s.onnx" in done.stderr, done.output
    assert load_params(project / "params.yaml").recipes["fetched"].weights == "cache/weights/rtmpose-s.onnx"
    model = onnx.load(own)
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "centre"
    onnx.save(model, own)
    assert "own.onnx has no inner map of 4 or 8 or" in refused(videos, "--name", "two", "--weights", own)
    odd = own.with_name(os.fsdecode(b"\xff.onnx"))
    assert "is no UTF-8, so params.yaml cannot hold it" in refused(videos, "--name", "two", "--weights", odd)
    own.write_bytes(b"no model")
    assert "is damaged or no ONNX file" in refused(videos, "--name", "two", "--weights", own)


def test_published_weights_that_yield_keypoints_only_are_tapped_once_a_stride(
    project: Path, videos: Path, tmp_path: Path
) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["four"], strides=[4, 4]),
        helper.make_node("Relu", ["four"], ["end"]),
        helper.make_node("ReduceMax", ["end"], ["simcc_x"], axes=[2], keepdims=0),
        helper.make_node("ReduceMax", ["end"], ["simcc_y"], axes=[3], keepdims=0),
    ]
    outputs: dict = {"simcc_x": ("N", 17, 12), "simcc_y": ("N", 17, 16)}
    own = graph(tmp_path / "own.onnx", outputs, nodes, {"w": np.ones((17, 3, 4, 4), np.float32)}, ("N", 3, 64, 48))
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("    layout: three\n", ""))
    done = CliRunner().invoke(main, ["init", str(videos), "--name", "mine", "--weights", str(own)])
    assert done.exit_code == 0, done.output
    params = load_params(project / "params.yaml")
    assert params.recipes["mine"].taps == ("end",) and params.runs["mine"].flags == {"level_widths": [17]}


# Parts


def test_no_subject_is_on_both_sides_and_every_class_is() -> None:
    clips = [Clip(f"{s}-{c}", f"{s}/{c}.mp4", label=c, subject=f"s{s}") for s in range(9) for c in range(5)]
    clips += [Clip("rare", "r.mp4", label=5, subject="s0"), Clip("none", "n.mp4", subject="s1")]
    assert usual_way(clips) == "subject"
    dealt = deal_parts(clips, "subject")
    sides = {part: {c.subject for c in dealt if c.part == part} for part in ("train", "test")}
    assert not sides["train"] & sides["test"] and {len(side) for side in sides.values()} == {4, 5}
    assert [(c.clip_id, c.part) for c in dealt if c.part not in sides] == [("rare", "both"), ("none", "")]
    assert deal_parts(clips[::-1], "subject") == dealt[::-1], "the order of the list does not matter"


def test_segments_of_one_video_stay_together_and_parts_that_are_told_stay() -> None:
    clips = [Clip(f"{v}-{i}", f"{v}.mp4", start=i, label=v % 2) for v in range(8) for i in range(3)]
    assert usual_way(clips) == "video"
    dealt = deal_parts(clips, "video")
    assert len({(c.path, c.part) for c in dealt}) == 8 and {c.part for c in dealt} == {"train", "test"}
    told = [Clip("a", "a.mp4", label=0, part="train"), Clip("b", "b.mp4", label=0, part="train")]
    assert deal_parts(told, "video") == told


def test_new_clips_are_dealt_beside_those_that_have_parts() -> None:
    def clip(name: str, label: int, subject: str, part: str = "") -> Clip:
        return Clip(name, f"{name}.mp4", label=label, subject=subject, part=part)

    before = [clip("a", 0, "s1", "train"), clip("b", 0, "s2", "test"), clip("c", 1, "s3", "both")]
    fresh = [clip("d", 0, "s1"), clip("e", 0, "s2"), clip("f", 0, "s4"), clip("g", 1, "s3"), clip("h", 0, "s5")]
    found = {each.clip_id: each.part for each in deal_parts(fresh, "subject", before)}
    assert (found["d"], found["e"], found["g"]) == ("train", "test", "both"), "no subject changes sides"
    assert {found["f"], found["h"]} == {"train", "test"}, "as many as before on either side"
    before = [clip("a", 1, "s1", "both"), clip("b", 0, "s1", "test"), clip("c", 0, "s2", "train"),
              clip("d", 2, "s3", "both")]  # fmt: skip
    fresh = [clip("e", 0, "s1"), clip("f", 0, "s3")]
    found = {each.clip_id: each.part for each in deal_parts(fresh, "subject", before)}
    assert found["e"] == "test" and found["f"] != "both", "a class of one source leads no clip of another to both sides"


# The files


def test_drafts_of_many_classes_are_not_compared_with_one_another() -> None:
    names = [f"action {i}" for i in range(2000)]
    drafts = draft_texts(names)
    assert check_texts(drafts, names, drafts.keys()) == []
    assert check_texts(draft_texts(["a", "a"]), ["a", "b"], drafts.keys()) == ["'a' and 'b' have the same label."]


ENTRY = {"root": "/a b/ü: 'x' #y", "taps": ["a", "1e3"]}


@pytest.mark.parametrize(
    "text",
    [
        "", "datasets:\n", "datasets: # c\nruns:\n  a: {}\n", "datasets: {}\n", "datasets: {a: {root: x}} # c\nr: 1\n",
        "datasets:\n  a:\n    root: x # tail\n\n# about runs\nruns: {}\n",
        "datasets:\n    a:\n        root: |\n          x\n",
        "datasets:\n  a:\n    - 1\n    - b: 2  # x\n\nq:", "a: 1", "datasets:\r\n  a: {root: x}\r\nb: 1\r\n",
        "--- \ndatasets:\n  a: {root: \"x\n    y\"}\n...\n", "{datasets: {a: {root: 1}}}\n",
    ],
)  # fmt: skip
def test_an_entry_changes_no_other_byte(text: str) -> None:
    made = with_entry(text, Path("p.yaml"), "datasets", "mine", ENTRY)
    assert yaml.safe_load(made)["datasets"]["mine"]["root"] == ENTRY["root"]
    left = iter(made)
    assert all(character in left for character in text), "what was there is there, in its order"
    with pytest.raises(PosebridgeError, match="has 'mine' under datasets already"):
        with_entry(made, Path("p.yaml"), "datasets", "mine", ENTRY)


@pytest.mark.parametrize("text", ["datasets: &x\n  a: {}\nruns: *x\n", "{}", "a: 1\n...\n", "datasets: [1]", "- 1"])
def test_a_file_that_no_entry_can_be_added_to_says_so(text: str) -> None:
    with pytest.raises(PosebridgeError, match=r"p\.yaml.*(add it by hand, under datasets|should be a mapping)"):
        with_entry(text, Path("p.yaml"), "datasets", "mine", ENTRY)


def test_the_projects_own_file_takes_entries() -> None:
    text, _ = read_text(ROOT / "params.yaml", "")
    made = with_entry(text, Path("params.yaml"), "recipes", "mine", {"backend": "onnx"})
    added = [line for line in made.splitlines() if line not in text.splitlines()]
    assert added == ["  mine:"] and "    cues: none\n  mine:\n    backend: onnx\n\nruns:" in made


def test_a_label_of_two_lines_is_refused() -> None:
    with pytest.raises(PosebridgeError, match="has a line break or control character in it"):
        check_labels(["bow", "kick\nhigh"])


@pytest.mark.parametrize("name", ["class", "Class"])
def test_a_label_that_heads_a_column_of_results_is_refused(name: str) -> None:
    with pytest.raises(PosebridgeError, match=f"'?{name}'? cannot be a class: results have a column `class`"):
        check_labels(["bow", name])


def test_a_class_with_clips_of_both_parts_is_in_both_and_the_others_keep_what_they_are_dealt() -> None:
    clips = [Clip("a", "a.mp4", label=0, part="both"), Clip("b", "b.mp4", label=0), Clip("c", "c.mp4", label=1)]
    assert [clip.part for clip in deal_parts(clips, "video")] == ["both", "train", "both"]
