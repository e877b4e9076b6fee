"""Variants of a data set's test clips: rendered again with one thing changed, under the same clip ids and paths.

The videos of variant `occlusion-2` lie in `<root>@occlusion-2`, its extraction in
cache/<dataset>/<recipe>@occlusion-2/index.json, the results of a run in cache/results/.../<run>@occlusion-2. A number
at the end is a strength. Nothing is trained and nothing is chosen on a variant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pipeline.errors import PosebridgeError
from pipeline.files.names import check_name, is_file
from pipeline.manifest.clips import Clip


def of_variant(name: str, variant: str) -> str:
    """The name that something bears in a variant: `refined@occlusion-2`; the name itself where there is no variant."""
    return f"{name}@{check_name(variant, 'variant')}" if variant else name


def strength(variant: str) -> tuple[str, int]:
    """(`occlusion`, 2) of `occlusion-2`; (`background`, 0) of a variant without strengths."""
    numbered = re.fullmatch(r"(.+)-(\d\d?)", variant, re.ASCII)
    return (numbered[1], int(numbered[2])) if numbered else (variant, 0)


def variant_root(root: Path, variant: str) -> Path:
    """Where the videos of a variant lie, beside those of the data set itself."""
    return root.with_name(of_variant(root.name, variant))


def variant_clips(clips: Iterable[Clip], dataset: str, root: Path, variant: str) -> list[Clip]:
    """The test clips that the variant has, without what clips.csv says of the original videos.

    Raises PosebridgeError where it has none.
    """
    place = variant_root(root, variant)
    kept = [
        replace(clip, sha256="", fps=None, frames=None, height=None, width=None)
        for clip in clips
        if clip.part == "test" and is_file(clip.file(place))
    ]
    if not kept:
        raise PosebridgeError(
            f"{place} has no video of a test clip; render it with `posebridge synth --dataset {dataset} "
            f"--variant {variant}`."
        )
    return kept
