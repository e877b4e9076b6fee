"""What ships goes after what the project has; nothing gets into a project unsaid; --project names it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from pipeline.errors import PosebridgeError
from pipeline.files import shipped
from pipeline.files.shipped import bring, dataset_file, dataset_folder, in_checkout, shipped_file
from pipeline.learn.dataset import open_dataset
from pipeline.manifest.clips import read_classes
from pipeline.params import load_params
from stages.cli import main

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in."""
    place = tmp_path / "empty"
    place.mkdir()
    monkeypatch.chdir(place)
    yield place


def told(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, words)
    assert result.exit_code == code, (result.stderr, result.exception)
    return result


def test_a_projects_own_data_set_goes_before_the_one_that_ships_whole(folder: Path) -> None:
    manifests = Path("manifests")
    assert dataset_folder(manifests, "ntu60") == ROOT / "manifests" / "ntu60"
    assert dataset_folder(manifests, "mine") == manifests / "mine"
    assert dataset_file(manifests, "ntu60", "clips.csv") == manifests / "ntu60" / "clips.csv"  # none ships
    own = manifests / "ntu60" / "classes.csv"
    own.parent.mkdir(parents=True)
    own.write_text("index,name\n0,mine\n1,yours\n")
    assert dataset_folder(manifests, "ntu60") == own.parent and not bring(manifests, "ntu60")
    assert not (dataset_folder(manifests, "ntu60") / "texts.csv").exists()  # nothing is mixed
    with pytest.raises(PosebridgeError, match="cannot be the name of a data set"):
        dataset_folder(manifests, "../../etc")


def test_stage_two_opens_what_ships_and_writes_nothing(folder: Path) -> None:
    opened = open_dataset("ntu60", strict=False)
    assert len(opened.class_names) == 60 and len(opened.split("synse_55_5").seen) == 55
    with pytest.raises(PosebridgeError, match=r"^manifests/ntu60/clips\.csv is missing"):
        open_dataset("ntu60")
    assert not list(folder.iterdir())


def test_who_writes_into_a_shipped_data_set_gets_a_copy_and_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = told("protocol", "--dataset", "ntu60", "--unseen", "5")
    assert "Copied the data set ntu60, which ships with posebridge, to manifests/ntu60" in said.stderr
    assert read_classes(folder / "manifests/ntu60/classes.csv") == read_classes(ROOT / "manifests/ntu60/classes.csv")
    assert "Copied" not in told("protocol", "--dataset", "ntu60", "--unseen", "6").stderr
    assert not list((folder / "manifests").glob(".*"))
    (folder / "manifests" / "pku_mmd").mkdir()  # as if another process had just been faster
    with monkeypatch.context() as patch:
        patch.setattr(shipped, "dataset_folder", lambda manifests, name: ROOT / "manifests" / name)
        patch.setattr(Path, "exists", lambda self: False)
        (folder / "manifests" / "pku_mmd" / "classes.csv").write_text("theirs")
        assert not bring(Path("manifests"), "pku_mmd")
    assert (folder / "manifests/pku_mmd/classes.csv").read_text() == "theirs"
    only_read = tmp_path / "shipped"  # as in a site-packages that nobody may write to
    (only_read / "manifests" / "x").mkdir(parents=True)
    (only_read / "manifests" / "x" / "classes.csv").write_text("index,name\n0,a\n")
    (only_read / "manifests" / "x" / "classes.csv").chmod(0o444)
    monkeypatch.setattr(shipped, "SHIPPED", only_read)
    assert bring(Path("manifests"), "x")
    assert (folder / "manifests/x/classes.csv").stat().st_mode & 0o200


def test_parameters_are_those_typed_else_the_projects_else_what_ships(folder: Path) -> None:
    assert shipped_file(Path("params.yaml")) == ROOT / "params.yaml"
    assert "There is no params.yaml here; posebridge's own is used." in told("doctor").stderr
    said = told("cache", "estimate", "--params", "params/nowhere.yaml", code=1)
    assert said.stderr.startswith("Error: params/nowhere.yaml is missing")
    Path("params.yaml").write_text("datasets: {mine: {root: x}}\n")
    assert shipped_file(Path("params.yaml")) == Path("params.yaml")
    assert told("extract", "--dataset", "ntu60", code=1).stderr.endswith("there are mine.\n")


def test_a_params_file_of_another_program_is_told(folder: Path) -> None:
    Path("params.yaml").write_text("train: {n_est: 50}\nfeaturize: {max_features: 200}\n")
    with pytest.raises(PosebridgeError, match=r"params\.yaml is not posebridge's but of another program \(it has 'fe"):
        load_params(Path("params.yaml"))
    before = Path("params.yaml").read_bytes()
    (folder / "videos").mkdir()
    for command in (["extract", "--dataset", "x"], ["init", "videos"]):
        assert told(*command, code=1).stderr.count("\n") == 1
    assert Path("params.yaml").read_bytes() == before


def test_a_folder_of_a_project_is_no_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "manifests").mkdir()
    (folder / "params.yaml").write_text("datasets: {}\n")
    inner = folder / "notes" / "today"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    for command in (["extract", "--dataset", "x"], ["init", "videos"]):
        said = told(*command, code=1).stderr
        assert f"lies in the project {folder}" in said and f"--project {folder}" in said and said.count("\n") == 1
    for project, sentence in ((str(folder), "There is no data set named 'x'"), (".", "posebridge's own is used")):
        assert sentence in told("--project", project, "extract", "--dataset", "x", code=1).stderr


def test_project_names_the_folder_and_typed_paths_are_meant_from_here(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = folder / "there"
    there.mkdir()
    (there / "params.yaml").write_text("datasets: {skelgap-mini: {root: x}}\n")
    (folder / "videos" / "waving").mkdir(parents=True)
    (folder / "videos" / "waving" / "a.mp4").write_bytes(b"no video")
    said = told("--project", "there", "protocol", "--dataset", "skelgap-mini", "--unseen", "5", "--json")
    assert json.loads(said.stdout)["files"][0].startswith("manifests/skelgap-mini/protocols/")
    assert (there / "manifests" / "skelgap-mini").is_dir() and not (folder / "manifests").exists()
    assert Path.cwd() == folder  # for who calls it in a process of their own
    told("--project", "there", "ingest", "--dataset", "mine", "videos")
    assert "waving/a.mp4" in (there / "manifests" / "mine" / "clips.csv").read_text()
    assert "nowhere is no folder" in told("--project", "nowhere", "cache", "ls", code=1).stderr
    own = told("--project", "there", "extract", "--dataset", "y", "--params", "params.yaml", code=1)
    assert own.stderr.endswith("there are skelgap-mini.\n")  # not here, so the project's


def test_copies_of_stages_need_no_checkout(folder: Path) -> None:
    """Where our code is an installed package DVC can run the tables and the demo: nothing depends on its files."""
    rows = json.loads(told("shipped", "ls", "--json").stdout)["shipped"]
    assert {"params.yaml", "params", "ntu60", "skelgap-mini"} <= {row["name"] for row in rows if not row["own"]}
    made = told("shipped", "get", "params.yaml", "dvc.yaml", "params", "nw_ucla", "--json")
    written = json.loads(made.stdout)["written"]
    assert {"params/tables.yaml", "manifests/nw_ucla", "manifests/published.csv"} <= set(written)
    assert (folder / "params.yaml").read_text() == (ROOT / "params.yaml").read_text() and (folder / ".dvc").is_dir()
    assert (folder / ".dvcignore").read_bytes() == (ROOT / ".dvcignore").read_bytes()
    for path in (folder / "dvc.yaml", folder / "params/tables.yaml"):
        ours, copied = (yaml.safe_load(each.read_text())["stages"] for each in (ROOT / path.relative_to(folder), path))
        assert list(copied) == list(ours)
        for stage in copied.values():
            deps = stage.get("deps", stage.get("do", {}).get("deps", ["none"]))
            assert deps and not [dep for dep in deps if str(dep).startswith(("pipeline", "stages/"))], stage
    code = yaml.safe_load((folder / "dvc.yaml").read_text())["stages"]["code"]
    assert set(code["foreach"]) == set(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["code"]["foreach"])
    assert "params.yaml is there already and stays" in told("shipped", "get", "params.yaml", code=1).stderr
    assert "Nothing that ships has the name 'x'; there are params.yaml" in told("shipped", "get", "x", code=1).stderr


def test_a_published_data_set_is_listed_with_the_settings_that_ship(folder: Path) -> None:
    """Nobody is sent to a file of the installation to write into it."""
    video = folder / "data" / "S001C001P001R001A001_rgb.avi"
    video.parent.mkdir()
    video.write_bytes(b"x")
    said = told("ingest", "--dataset", "ntu60", "data")
    assert "Copied the data set ntu60" in said.stderr and "1 clips of 1 videos" in said.stdout
    assert "note the folder in params.yaml (`posebridge shipped get params.yaml`)" in " ".join(said.stderr.split())


def test_a_checkout_knows_itself(folder: Path) -> None:
    Path("pipeline").mkdir()  # somebody's own
    assert in_checkout(ROOT) and not in_checkout(folder)
