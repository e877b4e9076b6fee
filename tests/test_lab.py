"""A lab: one clone extracts and publishes, another one without videos pulls and trains; a store that all may only read.

No pose model: both recipes take the skeletons that the generator wrote.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dvc_project import shorten

ROOT = Path(__file__).parent.parent
DATASET, PROTOCOL, RUN = "skelgap-mini", "compositional_18_6", "skeleton_gt"
TRAIN = f"train@{PROTOCOL}-{RUN}"
PROGRAM = """#!{python}
import sys
sys.path.insert(0, {root!r})
from stages.cli import main
main()
"""

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


class Member:
    """Someone of the lab: a clone of the project, and a umask."""

    def __init__(self, folder: Path, umask: int, programs: Path):
        self.folder, self.umask, self.programs = folder, umask, programs

    def run(self, *command: str, expect: int = 0) -> str:
        """Run a program in the clone; returns what it said."""
        environment = os.environ | {
            "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}",
            "DVC_SITE_CACHE_DIR": str(self.folder.parent / f"site-{self.folder.name}"),
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            command, cwd=self.folder, env=environment, umask=self.umask, capture_output=True, text=True, check=False
        )
        assert done.returncode == expect, f"{command}: {done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def dvc(self, *arguments: str) -> str:
        return self.run(sys.executable, "-m", "dvc", *arguments)

    def git(self, *arguments: str) -> str:
        if shutil.which("git") is None:
            pytest.skip("git is not installed")
        return self.run("git", "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Member:
    """The one with the videos, who has extracted, published and committed."""
    lab = tmp_path_factory.mktemp("lab")
    programs = lab / "bin"
    programs.mkdir()
    program = programs / "posebridge"
    program.write_text(PROGRAM.format(python=sys.executable, root=str(ROOT)))
    program.chmod(0o755)

    project = lab / "first"
    project.mkdir()
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore", ".dvc/config", "cache/README.md"):
        (project / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, project / name)
    for name in ("pipeline", "stages", f"manifests/{DATASET}"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__", "clips.csv"))
    shorten(project / "manifests" / DATASET / "texts.csv")
    (project / "manifests" / DATASET / ".gitignore").unlink(missing_ok=True)  # a lab keeps its lists of clips in git
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["recipes"]["refined"] = params["recipes"]["gt"]
    params["synth"] |= {"train_clips": 2, "test_clips": 1, "twins": 1}
    params["encode"] |= {"epochs": 1, "seeds": [0], "width": 4, "blocks": [1, 1, 1]}
    params["train"] |= {"epochs": 1, "views": 1}
    (project / "params.yaml").write_text(yaml.safe_dump(params))

    member = Member(project, 0o022, programs)
    member.git("init", "--quiet")
    (lab / "remote").mkdir()
    member.dvc("repro", "--quiet", "extract@refined", "extract@gt")
    said = member.run("posebridge", "cache", "publish", "--dataset", DATASET, expect=1)
    assert "no default remote" in said and "dvc remote add --default" in said
    member.dvc("remote", "add", "--quiet", "--default", "lab", str(lab / "remote"))
    for recipe in ("refined", "gt"):
        said = member.run("posebridge", "cache", "publish", "--dataset", DATASET, "--recipe", recipe)
    assert "to lab; commit" in said
    member.git("add", "--all")
    member.git("commit", "--quiet", "--message", "Extracted")
    return member


def modes(folder: Path) -> dict[str, int]:
    """The permissions of every file and folder."""
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file."""
    found = {path: path.stat() for path in sorted(folder.rglob("*"))}
    return {str(path.relative_to(folder)): (status.st_size, status.st_mtime_ns) for path, status in found.items()}


def forbid_writing(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222)


def allow_writing(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o200)


def test_git_keeps_the_pointers_and_none_of_the_data(first: Member) -> None:
    kept = first.git("ls-files").splitlines()
    assert "dvc.lock" in kept and f"manifests/{DATASET}/clips.csv" in kept
    under_cache = [name for name in kept if name.startswith("cache/")]
    assert len(under_cache) == 2 and all(name.endswith((".dvc", "README.md")) for name in under_cache), under_cache


def test_a_colleague_reads_all_that_was_written(first: Member) -> None:
    for folder in (first.folder / "cache", first.folder.parent / "remote"):
        assert {name: oct(mode) for name, mode in modes(folder).items() if not mode & 0o004} == {}


def test_a_second_clone_without_videos_pulls_and_trains(first: Member) -> None:
    lab = first.folder.parent
    remote = lab / "remote"
    forbid_writing(remote)
    before = contents(remote)
    second = Member(lab / "second", 0o077, first.programs)
    try:
        first.git("clone", "--quiet", str(first.folder), str(second.folder))
        second.dvc("pull", "--quiet", "--allow-missing")
        store = second.folder / "cache" / "store"
        forbid_writing(store)
        pulled = contents(store)
        assert not (second.folder / "cache" / "videos").exists()
        said = second.dvc("repro", "--allow-missing", TRAIN)
        assert "posebridge encode" in said and "posebridge train" in said
        assert "posebridge synth" not in said and "posebridge extract" not in said
        models = second.folder / "cache" / "models" / DATASET / PROTOCOL / RUN
        assert (models / "seed-0" / "final.safetensors").is_file()
        said = second.run("posebridge", "evaluate", "--dataset", DATASET, "--protocol", PROTOCOL, "--run", RUN)
        assert "unseen classes: " in said and "chance" in said
        assert contents(remote) == before and contents(store) == pulled
    finally:
        allow_writing(lab)


def test_a_shared_folder_that_may_only_be_read_serves_as_store(first: Member) -> None:
    lab = first.folder.parent
    third, shared = Member(lab / "third", 0o077, first.programs), lab / "disk"
    shutil.copytree(first.folder / "cache" / "store", shared)
    forbid_writing(shared)
    before = contents(shared)
    try:
        first.git("clone", "--quiet", str(first.folder), str(third.folder))
        index = Path("cache") / DATASET / "gt" / "index.json"
        (third.folder / index).parent.mkdir(parents=True)
        shutil.copy(first.folder / index, third.folder / index)
        encode = ("posebridge", "encode", "--dataset", DATASET, "--protocol", PROTOCOL, "--skeletons", "gt")
        assert "bring it with `dvc pull`" in third.run(*encode, expect=1)
        third.run(*encode, "--cache-root", str(shared))
        encoder = third.folder / "cache" / "encoders" / DATASET / PROTOCOL / "gt" / "seed-0" / "final.safetensors"
        assert encoder.is_file() and not encoder.stat().st_mode & 0o077, "a private umask keeps files private"
        said = third.run("posebridge", "cache", "verify", "--cache-root", str(shared))
        assert "0 problems" in said and contents(shared) == before
    finally:
        allow_writing(shared)
