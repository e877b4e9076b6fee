"""The papers' tables: their parameters are sound, their stages name what exists, and the chain of one runs to its end.

The chain is run on a miniature tree with NTU's names, out of a few skelgap clips, with a pose model of the papers' own
config and random weights: nothing is measured, everything is exercised.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from dvc.repo import Repo

from pipeline.cache.reader import CacheReader
from pipeline.manifest.clips import read_classes
from pipeline.methods import find_method, takes_cues
from pipeline.methods.base import Shapes
from pipeline.params import Params, load_params
from pipeline.protocol.splits import read_split
from pipeline.report.published import read_published
from stages.cli import main

ROOT = Path(__file__).parent.parent
TABLES = ("paper-ntu-synse", "paper-kinetics", "paper-pku")
CUE_WIDTH = {"refined": 512, "levels": 960}


@pytest.fixture(scope="module")
def tables() -> dict[str, Params]:
    return {name: load_params(ROOT / "params" / f"{name}.yaml") for name in TABLES}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what DVC reads, without git and without a generated file."""
    copy = tmp_path_factory.mktemp("paper") / "posebridge"
    generated = shutil.ignore_patterns("__pycache__", "clips.csv", "dvc.yaml", "dvc.lock")
    for name in ("pipeline", "stages", "manifests", "params"):
        shutil.copytree(ROOT / name, copy / name, ignore=generated)
    (copy / "params" / "dvc.yaml").symlink_to("tables.yaml")
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".dvc/config"):
        (copy / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def commands(project: Path) -> dict[str, list[dict[str, str]]]:
    """Table -> its commands in the order of params/tables.yaml, each as option -> value, `""` -> the stage."""
    found: dict[str, list[dict[str, str]]] = {name: [] for name in TABLES}
    with Repo(str(project)) as repo:
        for stage in repo.index.stages:
            words = str(stage.cmd).split()
            if not any(f"params/{table}.yaml" in words for table in TABLES):
                continue
            values = {"": words[1], **dict(zip(words[2::2], words[3::2], strict=True))}
            found[Path(values["--params"]).stem].append(values)
    return found


def pairs(commands: list[dict[str, str]], stage: str, *options: str) -> set[tuple[str, ...]]:
    return {tuple(values[option] for option in options) for values in commands if values[""] == stage}


@pytest.mark.unit
def test_the_tables_share_all_settings_but_data_sets_failures_and_a_rate(tables: dict[str, Params]) -> None:
    assert {path.stem for path in (ROOT / "params").glob("paper-*.yaml")} == set(TABLES)
    first = tables[TABLES[0]]
    shared = {name: run for name, run in first.runs.items() if name != "pgfa_120"}
    for name, params in tables.items():
        assert params.recipes == first.recipes and params.runs == (first.runs if name == TABLES[0] else shared)
        assert (params.text, params.encode, params.train) == (first.text, first.encode, first.train)
        assert all(place.root.startswith("/path/to/") for place in params.datasets.values()), "a placeholder"


@pytest.mark.unit
def test_the_settings_are_those_that_the_paper_states(tables: dict[str, Params]) -> None:
    params = tables["paper-ntu-synse"]
    for name, recipe in params.recipes.items():
        assert recipe.config == "rtmpose-s_8xb256-420e_coco-256x192" and recipe.cues == name
        assert (recipe.cue_frames, recipe.frames, recipe.persons) == (16, 64, 2)
    assert params.recipes["levels"].weights == "auto", "needs no tuning"
    encode = params.encode
    assert (encode.encoder, encode.width, encode.blocks, encode.lr) == ("shift_gcn", 64, (4, 3, 3), 3e-3)
    assert len(params.encode.seeds) >= 3


@pytest.mark.unit
def test_pgfa_is_trained_at_the_published_rate_of_each_data_set(
    tables: dict[str, Params], commands: dict[str, list[dict[str, str]]]
) -> None:
    rates: dict[str, set[float]] = {}
    for name, params in tables.items():
        for dataset, run in pairs(commands[name], "train", "--dataset", "--run"):
            if params.runs[run].method == "pgfa":
                flags = params.runs[run].flags
                rates.setdefault(dataset, set()).add(flags.get("lr", 0.05))
                assert flags.items() >= params.runs["pgfa"].flags.items() and params.runs[run].adapt == "pgfa"
    assert rates.pop("ntu120") == {0.005} and set().union(*rates.values()) == {0.05} and len(rates) == 4


@pytest.mark.unit
def test_every_run_has_flags_that_its_method_takes_and_the_papers_has_one_prompt(tables: dict[str, Params]) -> None:
    for name, run in tables["paper-ntu-synse"].runs.items():
        kind, recipe = find_method(run.method), tables["paper-ntu-synse"].recipes[run.recipe]
        cues = takes_cues(run.method, run.flags)
        shapes = Shapes(384, recipe.persons, 16, recipe.anchors, CUE_WIDTH[run.recipe]) if cues else Shapes(384, 2)
        slots = kind(shapes, 55, run.flags).text_slots
        assert slots == ("one_line",) or not name.startswith(("posebridge", "skeleton_")) and name != "skeleton"


@pytest.mark.unit
def test_stages_name_protocols_recipes_and_runs_that_exist(
    tables: dict[str, Params], commands: dict[str, list[dict[str, str]]]
) -> None:
    for name, params in tables.items():
        stages = [values[""] for values in commands[name]]
        assert set(stages) == {"ingest", "text", "extract", "encode", "train", "evaluate", "report"}
        assert pairs(commands[name], "ingest", "--dataset") == {(dataset,) for dataset in params.datasets}
        for dataset, protocol, recipe in pairs(commands[name], "encode", "--dataset", "--protocol", "--skeletons"):
            folder = ROOT / "manifests" / dataset
            assert read_split(folder / "protocols", protocol, read_classes(folder / "classes.csv")).unseen
            assert recipe in params.recipes
        trained = pairs(commands[name], "train", "--dataset", "--protocol", "--run")
        assert trained == pairs(commands[name], "evaluate", "--dataset", "--protocol", "--run")
        assert {run for _, _, run in trained} == set(params.runs)
        for dataset, protocol, run in trained:
            encoded = pairs(commands[name], "encode", "--dataset", "--protocol", "--skeletons")
            assert (dataset, protocol, params.runs[run].recipe) in encoded, f"{run} has no encoder"


@pytest.mark.unit
def test_the_tables_hold_every_protocol_that_is_published(commands: dict[str, list[dict[str, str]]]) -> None:
    held = {pair for table in commands.values() for pair in pairs(table, "evaluate", "--dataset", "--protocol")}
    published = read_published(ROOT / "manifests/published.csv", ROOT / "manifests/published_defects.csv")
    of_the_paper = {(f.dataset, p) for f in published for p in f.protocols if f.method == "PoseBridge"}
    assert len(of_the_paper) == 12 and of_the_paper <= held
    splits = {path.stem for path in (ROOT / "manifests/pku_mmd/protocols").glob("*.txt") if ".val" not in path.name}
    assert {protocol for dataset, protocol in held if dataset == "pku_mmd"} == splits - {"all_seen", "from_ntu60"}


@pytest.mark.unit
def test_the_tables_embed_by_the_encoder_that_their_stages_name() -> None:
    (values,) = yaml.safe_load((ROOT / "params/tables.yaml").read_text())["vars"]
    assert {load_params(ROOT / "params" / f"{table}.yaml").text.encoder for table in TABLES} == {values["encoder"]}


def make_tree(root: Path, seen: list[int], unseen: list[int]) -> None:
    """Videos with NTU's names: a training clip of every seen class, a few of two, and test clips of some."""
    from pipeline.synth.dataset import write_video
    from pipeline.synth.scene import ClipSpec, render_clip

    clips = []
    for seed, held in enumerate(("cup", "ball", "book", "bottle")):
        clips.append(root / f"{held}.mp4")
        root.mkdir(exist_ok=True)
        write_video(clips[-1], render_clip(ClipSpec("wave", held, seed, seed, seed, seed, seed, seed), 8, 96).frames)
    several = [f"S001C{camera:03d}P{{}}R{again:03d}" for camera, again in ((1, 1), (2, 1), (3, 1), (1, 2), (2, 2))]
    names = [f"{several[0].format('001')}A{label + 1:03d}" for label in seen]
    names += [f"{name.format('001')}A{label + 1:03d}" for label in seen[:2] for name in several[1:]]
    names += [f"{name.format('003')}A{label + 1:03d}" for label in (*unseen, *seen[:2]) for name in several[:2]]
    for i, name in enumerate(names):
        test = "P003" in name
        shutil.copy(clips[2 * test + i % 2], root / f"{name}_rgb.avi")
    for clip in clips:
        clip.unlink()


def shrink(path: Path, videos: Path, weights: Path) -> None:
    """The table's own parameters, with sizes that a test can wait for and without a person detector."""
    params = yaml.safe_load(path.read_text())
    params["datasets"]["ntu60"]["root"] = str(videos)
    for recipe in params["recipes"].values():
        recipe |= {"weights": str(weights), "boxes": "full_frame", "frames": 4, "cue_frames": 2, "persons": 1}
        del recipe["detector"]
    params["encode"] |= {"epochs": 1, "width": 4, "blocks": [1, 1, 1], "seeds": [0, 1]}
    params["train"] |= {"epochs": 1}
    params["runs"]["pgfa"]["flags"] = {"hidden": [4], "out": 8, "frames": 4, "epochs": 1}
    params["runs"]["skeletoncontext"] |= {"flags": {"epochs": 1}, "seeds": [0]}
    params["runs"]["purls"] |= {"flags": {"hidden": 16, "width": 8}, "seeds": [0]}
    path.write_text(yaml.safe_dump(params))


@pytest.mark.e2e
def test_a_table_runs_from_videos_to_published_ours_difference(
    project: Path, commands: dict[str, list[dict[str, str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.files.tensors import save_tensors
    from pipeline.hpe.model import PoseBridgeHPE

    protocol, table = "synse_55_5", project / "params" / "paper-ntu-synse.yaml"
    classes = read_classes(ROOT / "manifests/ntu60/classes.csv")
    split = read_split(ROOT / "manifests/ntu60/protocols", protocol, classes)
    seen = [*split.phase_one, *split.validation]
    make_tree(tmp_path / "ntu", seen, list(split.unseen))
    weights = tmp_path / "random.safetensors"
    config = load_params(table).recipes["refined"].config
    save_tensors(PoseBridgeHPE(config).state_dict(), weights)
    shrink(table, tmp_path / "ntu", weights)

    monkeypatch.chdir(project)
    ran = []
    for values in commands["paper-ntu-synse"]:
        if values.get("--dataset", "ntu60") != "ntu60" or values.get("--protocol", protocol) != protocol:
            continue
        words = [word for option, value in values.items() for word in ((option, value) if option else (value,))]
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, f"{words}: {done.output}"
        ran.append(values[""])
    assert ran.count("extract") == ran.count("encode") == 2 and ran.count("train") == ran.count("evaluate") == 7
    assert ran[-1] == "report"

    for run, recipe in (("posebridge", "refined"), ("posebridge_levels", "levels")):
        metrics = json.loads(Path(f"cache/results/ntu60/{protocol}/{run}/seed-0/metrics.json").read_text())
        assert metrics["zsl"]["n"] == 10 and metrics["gzsl"] and metrics["missing"] == 0
        with CacheReader(Path(f"cache/ntu60/{recipe}/index.json")) as reader:
            assert reader.read(reader.clip_ids[:1], ["cues"])["cues"].shape[-1] == CUE_WIDTH[recipe]
    said = done.stdout
    (line,) = (line for line in said.splitlines() if line.endswith("  posebridge") and "ZSL top-1" in line)
    ours = [
        json.loads(path.read_text())["zsl"]["top1"]
        for path in sorted(Path(f"cache/results/ntu60/{protocol}/posebridge").glob("*/metrics.json"))
    ]
    difference = f"{100 * sum(ours) / len(ours) - 88.8:+.1f}".replace("-", "−")
    assert line.split()[:5] == [protocol, "ZSL", "top-1", "PoseBridge", "88.8"] and difference in line.split()
    (alone,) = (line for line in said.splitlines() if "73.2" in line)
    assert alone.split()[-5:] == ["–"] * 5, "48/12 has not been run"
    page = Path("cache/tables/paper-ntu-synse/index.html").read_text()
    assert difference in page and "posebridge_levels" in page and "no verdict" in page
