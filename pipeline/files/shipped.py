"""What ships with posebridge, and what goes before it: a project's own files do. This is the one place of the lookup.

* A data set is one folder: `manifests/<name>` of the project where there is one, else the one of that name that ships.
  Files of both are never mixed.
* `params.yaml`, or a table such as `params/paper-pku.yaml`, is the project's where there is one, else what ships there.
* What ships is only read, and nothing gets into a project unsaid: `bring` copies a data set there for a command that is
  about to write into it, and the command tells so.

In a checkout all of it lies at the top, in a wheel beside this package (stages/notebook/wheel.py puts it there).
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from pipeline.files.durable import make_folder, writing
from pipeline.files.names import check_name

_WHEEL = Path(__file__).parents[1] / "shipped"
SHIPPED = _WHEEL if _WHEEL.is_dir() else Path(__file__).parents[2]
MM_REQUIREMENTS = SHIPPED / "requirements-mm.txt"  # mmpose and its like, installed without their own requirements


def in_checkout(project: Path = Path()) -> bool:
    """Whether our code lies in the project's folder, so that what depends on it can be told when it changes."""
    return project.resolve() == SHIPPED.resolve()


def is_shipped(path: Path) -> bool:
    """Whether a file, as `shipped_file` has found it, is none of the project's."""
    return path.is_absolute() and path.is_relative_to(SHIPPED) and not in_checkout()


def ships(dataset: str) -> bool:
    """Whether a data set of this name ships."""
    return (SHIPPED / "manifests" / check_name(dataset, "data set")).is_dir()


def dataset_folder(manifests: Path, dataset: str) -> Path:
    """The data set's folder to read: the project's, else the one that ships, else the project's that is missing.

    Raises PosebridgeError for what cannot be a name.
    """
    own = manifests / check_name(dataset, "data set")
    return SHIPPED / "manifests" / dataset if not own.exists() and ships(dataset) else own


def dataset_file(manifests: Path, dataset: str, file: str) -> Path:
    """A file of that folder; one that is missing is missing in the project. Raises as `dataset_folder` does."""
    found = dataset_folder(manifests, dataset) / file
    return found if found.exists() else manifests / dataset / file


def shipped_file(path: Path) -> Path:
    """A path relative to the project where there is something, else what ships there, else the path itself."""
    shipped = SHIPPED / path
    return path if path.is_absolute() or path.exists() or not shipped.is_file() else shipped


def bring(manifests: Path, dataset: str) -> bool:
    """Copy a data set that ships into the project, where there is none of its name; whether that was done.

    Raises PosebridgeError for what cannot be a name, and for a disk that takes no more.
    """
    source = dataset_folder(manifests, dataset)
    target = manifests / dataset
    if source == target or target.exists() or not source.is_dir():
        return False
    make_folder(manifests)
    with writing(target), tempfile.TemporaryDirectory(dir=manifests, prefix=".init-") as draft:  # whole or not at all
        made = Path(draft) / dataset
        made.mkdir()
        for path in sorted(source.rglob("*")):  # without the rights of an installation that nobody may write to
            place = made / path.relative_to(source)
            if path.is_dir():
                place.mkdir()
            else:
                shutil.copyfile(path, place)
        try:
            made.rename(target)
        except OSError:
            if not target.is_dir():
                raise
            return False  # another process was faster
    return True


def enclosing_project(folder: Path) -> Path | None:
    """The project that a folder without a params.yaml lies in, if any: the nearest one above with params.yaml and
    manifests/.
    """
    for above in folder.resolve().parents:
        if (above / "params.yaml").is_file() and (above / "manifests").is_dir():
            return above
    return None
