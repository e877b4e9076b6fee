"""What the extraction of a data set yielded: how much was seen, how surely, and what failed for which reason.

Reads cache/<dataset>/<recipe>/index.json and a few of the shards that it names; writes nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline.cache.frame import of_shard
from pipeline.cache.index import index_path
from pipeline.cache.reader import CacheReader
from pipeline.cache.seconds import Cost, cost_of
from pipeline.errors import PosebridgeError
from pipeline.report.figures import COLOURS, FAINT, GRID, INK, lettering
from pipeline.report.leaderboard import NONE, share

SHARDS, CLIPS = 12, 4000  # that are looked into, at most
RECEIPTS = 64  # likewise; of 256 clips each has 60 kB
MOST_REASONS, MOST_DRAWN = 20, 4
BINS = 25
LONGEST = 200  # letters of what somebody or something said, in a cell


@dataclass(frozen=True)
class Extraction:
    """One recipe of one data set. `seen` is a row a clip of a sample, see cache/frame.py; `failures` are all."""

    dataset: str
    recipe: str
    clips: int
    seen: pd.DataFrame
    frames: int  # T
    joints: int  # V
    anchors: int  # S * A, 0 without cues
    failures: tuple[Mapping[str, str], ...]
    repeated: int | None  # test clips that repeat train clips; None where nobody has looked
    cost: Cost | None  # of a sample; None where it is not known

    @property
    def sampled(self) -> bool:
        """Whether `seen` is not of all clips."""
        return len(self.seen) < self.clips

    @property
    def cells(self) -> dict[str, str]:
        """A printable row."""
        seen, n = self.seen, len(self.seen)
        videos = seen[seen.video] if n else seen
        parts = " / ".join(f"{each:.2g}" for each in self.cost.parts.values()) if self.cost else ""
        has_joints = n > 0 and self.joints > 0 and seen.joints.sum() > 0
        return {
            "recipe": self.recipe,
            "clips": f"{self.clips:,}",
            "failed": f"{len(self.failures):,}",
            "repeat a train clip": NONE if self.repeated is None else str(self.repeated),
            "seconds a clip": NONE if self.cost is None else f"{self.cost.a_clip:.3g}",
            "decode, boxes, pose": parts or NONE,
            "looked into": f"{n:,}",
            "persons a frame": f"{seen.joints.sum() / n / self.frames / self.joints:.2f}" if has_joints else NONE,
            "frames with the first person, %": share(seen.seen.sum() / n / self.frames) if has_joints else NONE,
            "mean keypoint score": f"{seen.score.sum() / seen.joints.sum():.3f}" if has_joints else NONE,
            "anchors seen, %": share(seen.anchors.sum() / n / self.anchors) if n and self.anchors else NONE,
            "few different frames": str(int(videos.few_frames.sum())) if len(videos) else NONE,
            "lost packets": str(int((videos.lost > 0).sum())) if len(videos) else NONE,
        }


def read_extractions(
    cache: Path, store_root: Path | None, dataset: str, repeated: Mapping[str, int | None]
) -> tuple[list[Extraction], list[str]]:
    """Of the recipes in `repeated` (recipe -> clips that repeat) whose index is in `cache`; and one sentence for each
    that is damaged.
    """
    found, complaints = [], []
    for recipe, pairs in repeated.items():
        try:
            index = index_path(cache, dataset, recipe)
            if index.is_file():
                found.append(_read(index, store_root, dataset, recipe, pairs))
        except PosebridgeError as error:
            complaints.append(f"The statistics of the extraction ({dataset}, {recipe}): {error}")
    return found, complaints


def seconds_a_clip(cache: Path, store_root: Path | None, dataset: str, recipes: Iterable[str]) -> dict[str, float]:
    """What the extraction by each of these recipes cost, where that is known; see `Cost.a_clip`."""
    found = {}
    for recipe in recipes:
        with suppress(PosebridgeError):  # `read_extractions` tells of what is damaged
            index = index_path(cache, dataset, recipe)
            if index.is_file():
                with CacheReader(index, store_root) as reader:
                    if cost := cost_of(reader, RECEIPTS):
                        found[recipe] = cost.a_clip
    return found


def _read(index: Path, store_root: Path | None, dataset: str, recipe: str, repeated: int | None) -> Extraction:
    with CacheReader(index, store_root) as reader:
        one_of_each = list({number: clip_id for clip_id, number in reader.index["clips"].items()}.items())
        one_of_each.sort()
        last = len(one_of_each) - 1
        tables, n = [], 0
        for place in sorted({round(last * i / (SHARDS - 1)) for i in range(SHARDS)}) if one_of_each else ():
            if n < CLIPS:
                tables.append(of_shard(reader, reader.shard(one_of_each[place][1])))
                n += len(tables[-1])
        made_by = reader.recipe
        joints = 0 if made_by.backend == "features" else reader.index["layout"].joints
        anchors = 0 if made_by.cues == "none" else made_by.cue_frames * len(made_by.anchors)
        seen = pd.concat(tables).head(CLIPS) if tables else pd.DataFrame()
        return Extraction(dataset, recipe, len(reader.clip_ids), seen, made_by.frames, joints, anchors,
                          tuple(reader.failures), repeated, cost_of(reader, RECEIPTS))  # fmt: skip


def reason_kind(failure: Mapping[str, str]) -> str:
    """The stage and reason of a failure without its numbers, so that alike ones are counted together."""
    return f"{failure['stage']}: {re.sub(r'[0-9][0-9.,]*', '…', failure['reason'])}"


def in_a_cell(text: str) -> str:
    """The beginning of a text of any length."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def reasons(found: Sequence[Extraction]) -> pd.DataFrame:
    """Failures by reason, printable, the most frequent first."""
    rows = []
    for each in found:
        counts = Counter(map(reason_kind, each.failures)).most_common()
        rows += [(each.recipe, in_a_cell(kind), f"{count:,}") for kind, count in counts[:MOST_REASONS]]
        if rest := counts[MOST_REASONS:]:
            rows.append((each.recipe, f"{len(rest)} more reasons", f"{sum(count for _, count in rest):,}"))
    return pd.DataFrame(rows, columns=["recipe", "why", "clips"])


def draw_extraction(found: Sequence[Extraction]) -> Figure | None:
    """How surely joints were seen, and in how many frames the first person was, clip by clip; None without joints."""
    told = [each for each in found if len(each.seen) and each.joints and each.seen.joints.sum()][:MOST_DRAWN]
    if not told:
        return None
    figure = Figure(figsize=(8.4, 2.7), facecolor="white", layout="constrained")
    panels = figure.subplots(1, 2)
    for i, each in enumerate(told):
        there = each.seen[each.seen.joints > 0]
        values = (there.score / there.joints).clip(0, 1), (each.seen.seen / each.frames).clip(0, 1)
        for axes, value in zip(panels, values, strict=True):
            axes.hist(value, BINS, (0, 1), weights=np.full(len(value), 100 / len(value)), histtype="stepfilled",
                      alpha=0.45, color=COLOURS[i], edgecolor=COLOURS[i], label=lettering(each.recipe))  # fmt: skip
    for axes, title in zip(panels, ("mean keypoint score", "share of frames with the first person"), strict=True):
        axes.set_xlabel(title, fontsize=8.5, color=FAINT)
        axes.set_ylabel("% of clips", fontsize=8.5, color=FAINT)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.tick_params(colors=FAINT, labelsize=8, length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    panels[0].legend(loc="upper left", frameon=False, fontsize=8.5, labelcolor=INK)
    return figure
