"""What a shard was made with: versions of software and the commit. For people who ask later; nothing depends on it."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGES = ("posebridge", "av", "h5py", "numpy", "torch", "mmpose", "mmengine", "mmcv-lite", "opencv-python-headless")
_COMMIT = Path(__file__).parents[1] / "commit.txt"  # of a wheel alone: stages/notebook/wheel.py writes it


@cache
def versions() -> dict[str, str]:
    """Installed versions of what can change a result; packages that are not installed are left out."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def git_commit() -> str:
    """The commit of this checkout, or that which a wheel was built of, with `-dirty` if files were other than there;
    empty where nothing tells. An installed package may lie in a checkout of others, which does not count.
    """
    if _COMMIT.is_file():
        return _COMMIT.read_text(encoding="ascii").strip()
    return _git("rev-parse", "HEAD")


def told_version() -> str:
    """The version, for `posebridge --version`: "0.1.0, commit 0123456789ab, with changes" as far as it is known."""
    number = versions().get("posebridge", "of a checkout that is not installed")
    commit, _, changed = git_commit().partition("-")
    changed = changed or _git("status", "--porcelain", "--untracked-files=no")
    return ", ".join([number, *([f"commit {commit[:12]}"] if commit else []), *(["with changes"] if changed else [])])


def _git(*words: str) -> str:
    """What git says of our checkout; empty outside of one, and without git."""
    if not (Path(__file__).parents[2] / ".git").exists():
        return ""
    try:
        answer = subprocess.run(
            ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()
