"""What a shard was made with: versions of software and the commit. For people who ask later; nothing depends on it."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

PACKAGES = ("posebridge", "av", "h5py", "numpy", "torch", "mmpose", "mmengine", "mmcv-lite", "opencv-python-headless")


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
    """The commit of this checkout, empty outside of one: an installed package may lie in a checkout of others."""
    if not (Path(__file__).parents[2] / ".git").exists():
        return ""
    try:
        command = ["git", "rev-parse", "HEAD"]
        answer = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()
