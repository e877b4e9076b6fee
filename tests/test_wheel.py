"""A wheel is built, installed and tried in an empty folder, with nothing of the checkout in reach."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from documents import ROOT
from fakes import write_video
from onnx import helper
from test_onnx import constant_maps, graph

from pipeline.manifest.clips import read_classes

pytestmark = pytest.mark.e2e
TOP = ("pipeline", "stages", "pyproject.toml", "README.md", "LICENSE")  # beside what ships
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
OFFLINE = ("--no-index", "--no-deps")


def shipped() -> list[Path]:
    """What ships of this checkout, relative to its top."""
    return importlib.import_module("stages.notebook.wheel").shipped()


def call(*words: object, **settings: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, **settings)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, as from an unpacked archive: no git, no leftovers of earlier builds, no data of a person."""
    source = tmp_path_factory.mktemp("source")
    for name in (*TOP, *shipped()):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("wheel")
    call(*PIP, "wheel", *OFFLINE, "--no-build-isolation", "--wheel-dir", out, source)
    return next(out.glob("posebridge-*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel, whose site-packages nobody may write to; what the wheel requires is
    lent by the one that runs the tests, but not what it has installed of posebridge.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    packages = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    call(sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--quiet", "install", *OFFLINE,
         "--force-reinstall", wheel)  # fmt: skip
    for path in [packages, *packages.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    return python


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


IN_ONE_PROCESS = """
import json, sys
from click.testing import CliRunner
from stages.cli import main
done = [CliRunner().invoke(main, words) for words in json.loads(sys.argv[1])]
print(json.dumps([(each.exit_code, each.stderr) for each in done]))
"""


class Installed:
    """The installed command, in a folder, without a HOME."""

    def __init__(self, python: Path, folder: Path):
        self.python, self.folder = python, folder
        kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "HOME")}
        lent = Path(sys.executable).parent  # dvc lies there
        self.env = kept | {"PATH": os.pathsep.join([str(python.parent), str(lent), kept["PATH"]])}

    def run(self, *words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [str(self.python.parent / "posebridge"), *map(str, words)]
        done = subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True)
        assert done.returncode == code and "Traceback" not in done.stderr, done.stdout[-500:] + done.stderr[-2000:]
        return done

    def json(self, *words: object) -> dict:
        return json.loads(self.run(*words, "--json").stdout)


def test_a_wheel_has_what_ships_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"pipeline", "stages", "posebridge"}
    there = {name.removeprefix("pipeline/shipped/") for name in names if name.startswith("pipeline/shipped/")}
    assert there >= {"params.yaml", "dvc.yaml", "requirements-mm.txt", "constraints.txt", "manifests/published.csv",
                     "manifests/ntu60/protocols/synse_55_5.txt", "manifests/kinetics400/texts.csv"}  # fmt: skip
    assert there == set(map(str, shipped()))
    assert {"pipeline/project/table.yaml", "pipeline/weights/skelgap-sem.safetensors"} <= set(names)
    assert not [name for name in names if "notebook" in name or "tests/" in name]
    assert wheel.stat().st_size < 20e6


def test_a_persons_own_data_sets_do_not_ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever builds a wheel in a checkout in use has clips.csv and whole data sets in manifests/ that git has not."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    building = importlib.import_module("stages.notebook.wheel")
    monkeypatch.setattr(building, "TOP", tmp_path)
    for name in ("manifests/ntu60/classes.csv", "manifests/mine/classes.csv", "params.yaml", "params/gone.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "manifests/ntu60/clips.csv").write_text("x")
    (tmp_path / "manifests/published.csv").write_text("x")
    archive = {"manifests/ntu60/classes.csv", "manifests/published.csv", "params.yaml", "params/gone.yaml"}
    assert set(map(str, building.shipped())) == archive, "as unpacked, where nobody's own data sets are known by git"
    call("git", "init", "--quiet", tmp_path)
    call("git", "-C", tmp_path, "add", "manifests/ntu60/classes.csv", "params.yaml", "params")
    (tmp_path / "params/gone.yaml").unlink()
    assert set(map(str, building.shipped())) == {"manifests/ntu60/classes.csv", "params.yaml"}


def test_an_archive_ships_what_a_checkout_does() -> None:
    building = importlib.import_module("stages.notebook.wheel")
    assert all(map(building.is_ours, shipped()))


def test_every_command_works_in_an_empty_folder_or_says_why_not(python: Path, empty: Path) -> None:
    there = Installed(python, empty)
    assert "Usage: posebridge" in there.run("--help").stdout and there.run("--version").stdout.startswith("posebridge")
    place = call(python, "-c", "import pipeline, posebridge; print(pipeline.__file__)", cwd=empty, env=there.env).stdout
    assert Path(place.strip()).is_relative_to(python.parents[1])
    checks = {check["name"]: check for check in there.json("doctor", "--dataset", "ntu60")["checks"]}
    assert checks["refined: weights"]["state"] == "ok" and "posebridge's own" in checks["params.yaml"]["found"]
    mm = checks["mmpose"]["remedy"].split()
    assert not mm or Path(mm[-1]).is_file()  # the list of what mmpose needs ships, too
    assert any(each["name"] == "rtmdet-nano" for each in there.json("weights", "ls")["weights"])
    assert there.json("synth", "--dataset", "skelgap-mini", "--ceiling", "compositional_18_6")["skeleton"] < 0.5
    asked = {
        "posebridge ingest": ("train", "--dataset", "ntu60", "--protocol", "synse_55_5", "--run", "posebridge"),
        "v.mp4": ("predict", "v.mp4", "--examples", "folder"),
        "posebridge evaluate": ("report",),
        "--like with a video": ("search", "a person bows"),
        "no data set named 'not_there'": ("extract", "--dataset", "not_there"),
    }
    done = call(python, "-c", IN_ONE_PROCESS, json.dumps(list(asked.values())), cwd=empty, env=there.env)
    for sentence, (code, error) in zip(asked, json.loads(done.stdout), strict=True):
        assert code == 1 and error.splitlines()[-1].startswith("Error: ") and sentence in error, error
    assert {path.name for path in empty.iterdir()} <= {"cache"} and not list(empty.glob("cache/*/*"))


def project_in(empty: Path, python: Path, videos: Path) -> tuple[Installed, str]:
    """The empty folder after `init`, and the command that it printed last."""
    film = write_video(videos / "bow" / "0.mp4", frames=3)
    for action in ("bow", "clap", "jump", "kick", "sit", "wave"):
        for number in range(4):
            place = videos / action / f"{number}.mp4"
            place.parent.mkdir(exist_ok=True)
            if place != film:
                shutil.copy(film, place)
    (empty / "pipeline").mkdir()  # somebody's own, which makes it no checkout
    nodes = [
        helper.make_node("AveragePool", ["x"], ["map"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Gather", ["map", "colours"], ["signed"], axis=1),
        helper.make_node("Abs", ["signed"], ["heatmap"]),
    ]
    maps: dict = {"heatmap": ("N", 17, 16, 12), "map": ("N", 3, 16, 12)}
    graph(videos.parent / "pose.onnx", maps, nodes, {"colours": np.arange(17) % 3}, ("N", 3, 64, 48))
    constant_maps(videos.parent / "detector.onnx")
    there, files = Installed(python, empty), ("--weights", "../pose.onnx", "--detector", "../detector.onnx")
    assert "ships with posebridge" in there.run("init", "../videos", "--name", "ntu60", *files, code=1).stderr
    assert {path.name for path in empty.iterdir()} == {"pipeline"}  # as before
    told = there.run("init", "../videos", "--name", "of_a_test", "--unseen", "2", *files)
    assert f"{empty} is a project now" in told.stderr
    return there, told.stdout.splitlines()[-1].strip()


def test_init_makes_an_empty_folder_a_project_that_dvc_runs(python: Path, empty: Path, tmp_path: Path) -> None:
    there, last = project_in(empty, python, tmp_path / "videos")
    own = (empty / "params.yaml").read_text()
    kept = [line for line in (ROOT / "params.yaml").read_text().splitlines() if "#" in line]
    assert [line for line in own.splitlines() if "#" in line] == kept and "  of_a_test:\n" in own
    assert read_classes(empty / "manifests/of_a_test/classes.csv")[0] == "bow"
    assert last == "dvc repro manifests/of_a_test/dvc.yaml"
    call("dvc", "repro", "manifests/of_a_test/dvc.yaml:extract", cwd=empty, env=there.env)
    assert (empty / "cache/of_a_test/of_a_test/index.json").is_file()
    assert there.json("cache", "stats", "--dataset", "of_a_test", "--recipe", "of_a_test")["clips"] == 24
    elsewhere = Installed(python, tmp_path)  # and from anywhere
    assert elsewhere.json("--project", "empty", "cache", "ls")["stores"]
    inner = Installed(python, empty / "manifests")
    assert f"lies in the project {empty}" in inner.run("text", "--dataset", "of_a_test", code=1).stderr


@pytest.mark.slow
def test_all_of_it_runs_up_to_the_report(python: Path, empty: Path, tmp_path: Path) -> None:
    there, last = project_in(empty, python, tmp_path / "videos")
    text = (empty / "params.yaml").read_text().replace("epochs: 20", "epochs: 2").replace("epochs: 30", "epochs: 2")
    (empty / "params.yaml").write_text(text)
    call(*last.split(), cwd=empty, env=there.env)
    assert (empty / "cache/tables/of_a_test/index.html").is_file()
    assert "up to date" in call(*last.split(), cwd=empty, env=there.env).stdout
    assert there.json("predict", tmp_path / "videos/bow/0.mp4", "--labels", "bow, clap")["predictions"]
    code = "import posebridge; print(len(posebridge.results()), len(posebridge.open_cache('of_a_test').clips))"
    assert call(python, "-c", code, cwd=empty, env=there.env).stdout == "6 24\n"
