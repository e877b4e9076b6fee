"""How a wheel is built: what ships of the repository's top goes to pipeline/shipped/. pyproject.toml names this."""

import shutil
import subprocess
from pathlib import Path

from setuptools.command.build_py import build_py

TOP = Path(__file__).parents[2]
SHIPS = ("manifests", "params", "params.yaml", "dvc.yaml", ".dvcignore", "requirements-mm.txt", "constraints.txt")
# What git would tell of an archive, where it is not: others are a person's own, and so are lists of anybody's videos.
DATA_SETS = (
    "gym", "kinetics200", "kinetics400", "ntu120", "ntu60", "nw_ucla", "pku_mmd", "skelgap", "skelgap-mini",
    "ut_interaction", "utd_mhad", "uwa3dii",
)  # fmt: skip
OF_VIDEOS = ("clips.csv", "clips.gone.csv", "missing.csv", "dvc.yaml", "dvc.lock")


def shipped() -> list[Path]:
    """The files, relative to the top: those that git knows, since whoever works in a checkout has data sets of their
    own in manifests/; where there is no git, as in an unpacked archive, those of DATA_SETS.
    """
    try:
        listed = subprocess.run(["git", "ls-files", "-z", *SHIPS], cwd=TOP, capture_output=True, text=True).stdout
    except OSError:
        listed = ""
    if listed:
        return [Path(name) for name in listed.split("\0") if name and (TOP / name).is_file()]
    found = [path for name in SHIPS for path in ([TOP / name] if (TOP / name).is_file() else (TOP / name).rglob("*"))]
    return sorted(filter(is_ours, (path.relative_to(TOP) for path in found if path.is_file())))


def is_ours(path: Path) -> bool:
    """Whether a file of an archive ships."""
    if path.parts[0] != "manifests":
        return path.parts[0] != "params" or path.name not in ("dvc.yaml", "dvc.lock")
    return len(path.parts) == 2 or (path.parts[1] in DATA_SETS and path.name not in OF_VIDEOS)


def commit() -> str:
    """The commit of this checkout, with `-dirty` where a file is other than there; empty where there is no git, or
    only that of a folder above.
    """
    words = ["git", "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty"]
    try:
        found = subprocess.run(words, cwd=TOP, capture_output=True, text=True) if (TOP / ".git").exists() else None
    except OSError:
        return ""
    return found.stdout.strip() if found else ""


class BuildWithData(build_py):
    """As setuptools builds, and then the data and the commit. An editable installation reads both where they are."""

    def run(self) -> None:
        if self.editable_mode:
            super().run()
            return
        shutil.rmtree(self.build_lib, ignore_errors=True)  # else what is gone since an earlier build would ship
        super().run()
        for path in shipped():
            target = Path(self.build_lib, "pipeline", "shipped", path)
            self.mkpath(str(target.parent))
            self.copy_file(str(TOP / path), str(target))
        recorded = Path(self.build_lib, "pipeline", "commit.txt")  # pipeline/cache/provenance.py reads it
        recorded.unlink(missing_ok=True)
        if found := commit():
            recorded.write_text(f"{found}\n")

    def get_source_files(self) -> list[str]:
        """For an archive of the source, which has to hold what a wheel is built of."""
        return [*super().get_source_files(), "stages/notebook/wheel.py", *map(str, shipped())]
