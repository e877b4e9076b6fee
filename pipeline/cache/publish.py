"""Sharing an extraction through DVC: the store and its index are added, and pushed to the project's remote.

Reads cache/<dataset>/<recipe>/index.json; writes a `.dvc` file beside the store, and for the index one too or, where
a stage of dvc.yaml makes it, dvc.lock. These are small and belong into git; a clone without any video then runs
`dvc pull` and trains.
    posebridge cache publish --dataset skelgap-mini --recipe refined
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline.cache.index import index_path, read_index
from pipeline.cache.verify import verify_index
from pipeline.errors import PosebridgeError


@dataclass(frozen=True)
class Published:
    """What was shared, and where that went. `pointers` are the `.dvc` files that git should keep beside dvc.lock."""

    pointers: tuple[Path, ...]
    store: Path
    remote: str
    bytes: int


def publish(
    dataset: str, recipe_name: str, *, cache: Path = Path("cache"), project: Path = Path(), remote: str = ""
) -> Published:
    """`dvc add` of the store of one extraction, and `dvc push` of it and of its index.

    Args:
        cache: `<project>/cache`.
        remote: a name of `dvc remote list`; empty takes the default one.

    Raises:
        PosebridgeError: the extraction is missing or damaged, or DVC, its project or its remote is.
    """
    path = project / index_path(cache, dataset, recipe_name)
    if not path.is_file():
        raise PosebridgeError(
            f"{path} is missing; make it with `posebridge extract --dataset {dataset} --recipe {recipe_name}`."
        )
    remote = _remote(project, remote)
    root = project / cache / "store"
    if problems := verify_index(path, root):
        raise PosebridgeError(problems[0].reason)
    index = read_index(path, "run `posebridge extract` again")
    store = root / dataset / index["store"]
    if not store.is_dir():
        raise PosebridgeError(f"{store} is missing: only a store of this project can be added to DVC.")
    pushed = [_track(project, store), _track(project, path)]
    _dvc(project, "push", "--quiet", "--remote", remote, *pushed)
    files = tuple(project / name for name in pushed if name.endswith(".dvc"))
    return Published(files, store, remote, sum(entry["bytes"] for entry in index["shards"]))


def _track(project: Path, path: Path) -> str:
    """Let DVC keep a path; returns what to push: its new `.dvc` file, or the stage of dvc.yaml that makes it."""
    from dvc.exceptions import DvcException, OutputNotFoundError
    from dvc.repo import Repo

    name = path.relative_to(project).as_posix()
    try:
        with Repo(str(project)) as repo:
            stages = [out.stage for out in repo.find_outs_by_path(str(path.absolute()))]
    except OutputNotFoundError:
        stages = []
    except DvcException as error:
        raise PosebridgeError(f"DVC cannot read this project's stages ({str(error)[:200]}); put them right.") from None
    if stages and stages[0].cmd:
        _dvc(project, "commit", "--quiet", "--force", stages[0].addressing)
        return stages[0].addressing
    _dvc(project, "add", "--quiet", name)
    return f"{name}.dvc"


def _remote(project: Path, wanted: str) -> str:
    """The remote to push to."""
    if importlib.util.find_spec("dvc") is None:
        raise PosebridgeError("DVC is not installed; install it with `pip install dvc`.")
    if not (project / ".dvc").is_dir():
        raise PosebridgeError("This folder is no DVC project; run the command from the project's folder.")
    from dvc.exceptions import DvcException  # here, since it takes a second to load
    from dvc.repo import Repo

    try:
        with Repo(str(project)) as repo:
            remotes, default = list(repo.config["remote"]), repo.config["core"].get("remote", "")
    except (DvcException, OSError) as error:
        raise PosebridgeError(f"DVC cannot open {project.absolute()} ({str(error)[:200]}); put .dvc right.") from None
    if wanted and wanted not in remotes:
        raise PosebridgeError(f"DVC has no remote named {wanted!r}; it has {', '.join(remotes) or 'none'}.")
    if not (wanted or default):
        raise PosebridgeError(
            "DVC has no default remote; name a folder that the lab can read with `dvc remote add --default lab PATH`."
        )
    return wanted or default


def _dvc(project: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise PosebridgeError(f"`dvc {' '.join(arguments)}` failed: {(lines or ['no message'])[0][:300]}")
