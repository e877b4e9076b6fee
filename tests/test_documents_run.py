"""The commands and the Python of README and the pages in docs/ run, in order, in a small project of their names.

Its pose model is a made-up one, its videos are grey and its trainings two epochs long, so that all of it takes seconds:
that a page's commands fit together is seen, and no figure. What does not run stands in `PARSED` of test_documents.py.
"""

from __future__ import annotations

import doctest
import json
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from documents import PAGES, ROOT, Block, blocks_of, name_of, spans
from dvc_project import shorten
from fakes import FakeEstimator, write_video
from PIL import Image
from test_documents import is_parsed, plain
from test_feature_imports import features
from test_interchange import dump, records, split_of
from test_onnx import constant_maps, heatmap_graph

from pipeline.files.tensors import save_tensors
from pipeline.manifest.clips import Clip, read_classes, read_clips, write_clips
from pipeline.manifest.drafts import draft_texts, write_with_drafts
from pipeline.methods import METHODS, Known
from pipeline.project.parts import deal_parts
from pipeline.protocol.splits import read_split
from stages.cli import main

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore")]
DEMO, PROTOCOL = "skelgap-mini", "compositional_18_6"
ACTIONS = ("bow", "clap", "crawl", "dance", "jump", "kick", "sit", "throw", "turn", "wave")
FAKE = "{weights: fake.safetensors, boxes: full_frame, frames: 8, cue_frames: 4, cues: levels}"
SMALL = "flags: {width: 16, heads: 2, layers: 1}"
PARAMS = f"""\
datasets:
  {DEMO}: {{root: cache/videos/{DEMO}}}
  mine: {{root: my-videos}}
recipes:
  refined: {FAKE}
  public: {FAKE}
  tinypose:
    backend: onnx
    weights: cache/weights/pp-tinypose_256x192.onnx
    boxes: detector
    detector: cache/weights/rtmdet-nano.onnx
    cues: levels
    taps: [middle]
  ntu25_3d: {{backend: import, layout: ntu25, dimensions: 3, persons: 2, frames: 8, cues: none}}

# what is trained
runs:
  skeleton: {{method: skeleton, recipe: refined, {SMALL}}}
  skeleton_gt: {{method: skeleton, recipe: refined, {SMALL}}}
  posebridge: {{method: posebridge, recipe: refined, {SMALL}}}
  mine: {{method: posebridge, recipe: public, {SMALL}}}
  pooled: {{method: pooled}}
encode: {{epochs: 1, batch_size: 16, width: 8, blocks: [1, 1, 1], seeds: [0]}}
train: {{epochs: 1, batch_size: 16, views: 1}}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Iterator[Path]:
    """The project as the current folder: the demo is trained, the pages on own videos and on a method have been typed,
    and what the others speak of lies where they say.
    """
    root = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("HOME", str(root / "home"))
        patch.syspath_prepend(str(ROOT / "stages/notebook"))  # where `posebridge` is before it is installed
        patch.setattr("stages.extract.build_estimator", lambda recipe: FakeEstimator())
        (root / "params.yaml").write_text(PARAMS)
        save_tensors({"w": torch.zeros(1)}, root / "fake.safetensors")
        bring_files(root)
        make_demo(root)
        type_page(OWN)
        shutil.copytree("manifests/videos", "manifests-of-own-videos")  # other pages say `init` with other numbers
        for dataset, recipe in (("mine", "tinypose"), ("videos", "videos")):  # as the stages do that `init` has written
            run("extract", "--dataset", dataset, "--recipe", recipe)
        add_method(patch)
        type_page(METHOD)
        yield root


def bring_files(root: Path) -> None:
    """Videos, weights and files of others."""
    for number, action in enumerate(ACTIONS):
        for i in range(2):
            path = write_video(root / "my-videos" / action / f"{i}.mp4", frames=8, offset=20 * number + i)
            other = root / "home/videos" / action / path.name
            other.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, other)
            if number < 3 and i < 2:
                example = root / "folder-with-a-subfolder-per-action" / action / path.name
                example.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, example)
    (root / "home/project").mkdir()
    shutil.copy(root / "params.yaml", root / "home/project")
    for name in ("my-video.mp4", "clip.mp4"):
        shutil.copy(root / "my-videos/kick/0.mp4", root / name)
    (root / "cache/weights").mkdir(parents=True)
    for folder in (root, root / "cache/weights"):
        heatmap_graph(folder / "pp-tinypose_256x192.onnx", joints=17)
        constant_maps(folder / "rtmdet-nano.onnx")
    heatmap_graph(root / "cache/weights/rtmpose-s.onnx", joints=17)
    made = records()
    dump(root / "ntu60_3danno.pkl", {"annotations": made, "split": split_of(made)})
    for name in (DEMO, "ntu60"):
        folder = root / "manifests" / name
        shutil.copytree(ROOT / "manifests" / name, folder, ignore=shutil.ignore_patterns("clips*"))
        shorten(folder / "texts.csv")
    (root / "params").mkdir()
    text = (ROOT / "params/imported-features.yaml").read_text()
    short = "\nencode: {seeds: [0]}\ntrain: {epochs: 1}\n"
    (root / "params/imported-features.yaml").write_text(text + short)
    classes = read_classes(root / "manifests/ntu60/classes.csv")
    unseen = read_split(root / "manifests/ntu60/protocols", "synse_55_5", classes).unseen
    seen = [label for label in range(60) if label not in unseen]
    folder = root / "shift_ntu60_5_r"
    folder.mkdir()
    for name, labels, label_file in (
        ("train", seen * 2, "train_label"), ("ztest", unseen, "z_label"), ("gtest", range(60), "g_label")
    ):  # fmt: skip
        np.save(folder / f"{name}.npy", features([label % 12 for label in labels]))
        np.save(folder / f"{label_file}.npy", np.array(labels))


def make_demo(root: Path) -> None:
    """Clips under skelgap-mini's names, twins among them, through every stage."""
    folder = root / "manifests" / DEMO
    classes = read_classes(folder / "classes.csv")
    unseen = read_split(folder / "protocols", PROTOCOL, classes).unseen
    clips = []
    for label in range(len(classes)):
        for part, count in (("train", 0 if label in unseen else 2), ("test", 2)):
            for i in range(count):
                clip_id = f"{part}-{label:02d}-{i}"
                path = write_video(root / "cache/videos" / DEMO / f"{clip_id}.mp4", frames=8, offset=10 * label + i)
                clips.append(Clip(clip_id, path.name, label=label, part=part))
    write_clips(folder / "clips.csv", clips)
    twins = [f"{clip.clip_id},{clip.label // 3}-{clip.clip_id[-1]}" for clip in clips if clip.part == "test"]
    (root / "cache/videos" / DEMO / "twins.csv").write_text("\n".join(["clip_id,tuple", *twins]) + "\n")
    run("extract", "--dataset", DEMO, "--recipe", "refined")
    run("text", "--dataset", DEMO)
    where = ("--dataset", DEMO, "--protocol", PROTOCOL)
    run("encode", *where, "--skeletons", "refined")
    for command in ("train", "evaluate"):
        run(command, *where, "--run", "skeleton", "--run", "skeleton_gt", "--run", "posebridge")


def run(*words: str) -> None:
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, f"posebridge {shlex.join(words)}\n{done.output}"


def type_page(page: Path) -> int:
    """Type the commands of a page, and by hand what it tells to write by hand. How many ran."""
    count = 0
    for block in blocks_of(page):
        for words in block.commands() if block.language == "bash" else []:
            if is_parsed(words):
                continue
            _, *words = plain(words)
            if words == ["report"] and Path("cache/report/index.html").exists():
                continue  # once is enough: it is the slowest of all
            if words == ["text", "--dataset", "mine"]:
                write_by_hand(Path("manifests/mine"))
            if words[0] == "init":  # pages show it several times, with one folder and other weights
                shutil.rmtree("manifests/videos", ignore_errors=True)
                Path("params.yaml").write_text(PARAMS)
            run(*(str(Path(word).expanduser()) if word.startswith("~") else word for word in words))
            count += 1
    return count


def write_by_hand(folder: Path) -> None:
    """Step 4 of docs/own-videos.md: descriptions, parts, a protocol."""
    classes = read_classes(folder / "classes.csv")
    drafts = draft_texts(classes)
    write_with_drafts(folder / "texts.csv", drafts, drafts)
    clips = read_clips(folder / "clips.csv", len(classes))
    write_clips(folder / "clips.csv", deal_parts(clips, "video"))
    run("protocol", "--dataset", "mine", "--unseen", "2", "--name", "first")


def add_method(patch: pytest.MonkeyPatch) -> None:
    """The file and the line of docs/adding-a-method.md."""
    file = next(block for block in blocks_of(METHOD) if block.language == "python")
    line = next(span for span in spans(METHOD) if span.startswith('"pooled": Known('))
    patch.setitem(sys.modules, "pipeline.methods.pooled", as_module(file, "pipeline.methods.pooled"))
    patch.setitem(METHODS, "pooled", eval(line.partition(": ")[2], {"Known": Known}))


def has_commands(page: Path) -> bool:
    commands = [words for block in blocks_of(page) if block.language == "bash" for words in block.commands()]
    return not all(map(is_parsed, commands))


OWN, METHOD = ROOT / "docs/own-videos.md", ROOT / "docs/adding-a-method.md"
OTHERS = [page for page in PAGES if page not in (OWN, METHOD) and has_commands(page)]


def test_own_videos_become_a_data_set_trained_runs_and_a_report(world: Path) -> None:
    """What docs/own-videos.md says is written, after all of its commands."""
    made = world / "manifests-of-own-videos"
    assert (made / "dvc.yaml").is_file() and (made / "texts.csv").is_file()
    assert list((made / "protocols").glob("seed1_5_5*.txt"))
    assert (world / "cache/results/mine/first/mine/seed-0/metrics.json").is_file()
    assert (world / "cache/report/index.html").is_file()


@pytest.mark.parametrize("page", OTHERS, ids=name_of)
def test_the_commands_of_a_page_run(world: Path, page: Path) -> None:
    assert type_page(page)


def test_the_picture_of_the_readme_is_drawn(world: Path) -> None:
    (world / "docs").mkdir()
    runpy.run_path(str(ROOT / "docs/twins.py"), run_name="__main__")
    with Image.open(world / "docs/twins.png") as drawn, Image.open(ROOT / "docs/twins.png") as shown:
        assert drawn.size[1] == shown.size[1]
    assert (ROOT / "docs/twins.png").stat().st_size < 100_000


def test_the_method_of_a_page_is_trained_and_tested(world: Path) -> None:
    figures = json.loads((world / "cache/results" / DEMO / PROTOCOL / "pooled/seed-0/metrics.json").read_text())
    assert figures["zsl"]["n"] == 12


PYTHON = [block for page in PAGES if page != METHOD for block in blocks_of(page) if block.language == "python"]


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.place)
def test_python_on_a_page_runs(world: Path, block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    """As a module; or as a session, in whose answers are the words of the page, if other figures and runs."""
    if not block.text.lstrip().startswith(">>>"):
        as_module(block, "page")
        return
    names: dict[str, object] = {}
    for example in doctest.DocTestParser().get_examples(block.text):
        exec(compile(example.source, block.place, "single"), names)
        assert words_of(example.want) <= words_of(capsys.readouterr().out), example.source


def as_module(block: Block, name: str) -> ModuleType:
    module = ModuleType(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, name, module)  # where dataclasses look for it
        exec(compile(block.text, block.place, "exec"), vars(module))
    return module


def words_of(text: str) -> set[str]:
    return {word for word in text.split() if not re.fullmatch(r"[-+.\d%e]+|NaN", word)}
