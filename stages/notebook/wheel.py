"""How a wheel is built: what ships of the repository's top goes to pipeline/shipped/. pyproject.toml names this."""

import subprocess
from pathlib import Path

from setuptools.command.build_py import build_py

TOP = Path(__file__).parents[2]
SHIPS = ("manifests", "params", "params.yaml", "dvc.yaml", "requirements-mm.txt", "constraints.txt")


def shipped() -> list[Path]:
    """The files, relative to the top: those that git knows, since whoever works in a checkout has data sets of their
    own in manifests/; all where there is no git, as in an unpacked archive.
    """
    try:
        listed = subprocess.run(["git", "ls-files", "-z", *SHIPS], cwd=TOP, capture_output=True, text=True).stdout
    except OSError:
        listed = ""
    if listed:
        return [Path(name) for name in listed.split("\0") if name]
    found = [path for name in SHIPS for path in ([TOP / name] if (TOP / name).is_file() else (TOP / name).rglob("*"))]
    return sorted(path.relative_to(TOP) for path in found if path.is_file())


class BuildWithData(build_py):
    """As setuptools builds, and then the data. An editable installation reads it where it is."""

    def run(self) -> None:
        super().run()
        for path in () if self.editable_mode else shipped():
            target = Path(self.build_lib, "pipeline", "shipped", path)
            self.mkpath(str(target.parent))
            self.copy_file(str(TOP / path), str(target))

    def get_source_files(self) -> list[str]:
        """For an archive of the source, which has to hold what a wheel is built of."""
        return [*super().get_source_files(), "stages/notebook/wheel.py", *map(str, shipped())]
