"""The picture of README: the first twins of the demo, what a skeleton shows of them, and what was answered.

Twins are clips that are equal in everything but the held object. These are the first in the list of answers, not chosen
by what was answered; the answers are those of seed 0. Reads `cache/` and `manifests/`, writes docs/twins.png.
    make demo
    .venv/bin/python docs/twins.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from pipeline.cache.index import index_path
from pipeline.cache.reader import CacheReader
from pipeline.manifest.clips import read_classes, read_clips
from pipeline.report.answers import read_answers
from pipeline.report.clip_frames import frames_at
from pipeline.report.figures import FAINT, INK, SKELETON_CEILING
from pipeline.skeleton.graph import graph_of

DATASET, PROTOCOL, RECIPE = "skelgap-mini", "compositional_18_6", "refined"
ROWS = (("skeleton", "the skeleton alone"), ("posebridge", "skeleton and cues"))  # run, what it is given
RIGHT = "#1d7a4c"
OUT, COLOURS = Path("docs/twins.png"), 256  # so that the file is small
TOP = 0.2  # of a frame, in which nothing happens


def main() -> None:
    """Draw it. Raises PosebridgeError where the demo has not run."""
    names = read_classes(Path("manifests") / DATASET / "classes.csv")
    clips = {clip.clip_id: clip for clip in read_clips(Path("manifests") / DATASET / "clips.csv")}
    results = Path("cache/results") / DATASET / PROTOCOL
    answers = [read_answers(results / run / "seed-0" / "predictions.csv") for run, _ in ROWS]
    twins = answers[0].index[answers[0].tuple == answers[0].tuple.iloc[0]]
    with CacheReader(index_path(Path("cache"), DATASET, RECIPE)) as reader:
        seen, graph = reader.read(twins, ["keypoints", "frame_index"]), graph_of(reader.recipe.layout)
    figure = Figure(figsize=(2.8 * len(twins), 5.6), facecolor="white", layout="constrained")
    axes = figure.subplots(len(ROWS), len(twins))
    middle = seen["frame_index"].shape[1] // 2
    for column, clip_id in enumerate(twins):
        frame = frames_at(
            clips[clip_id].file(Path("cache/videos") / DATASET),
            lambda _, column=column: [int(seen["frame_index"][column, middle])],
        )[0]
        for row, given in enumerate((np.full_like(frame, 246), frame)):
            axes[row, column].imshow(given)
            axes[row, column].set_ylim(len(frame), TOP * len(frame))
            answer = answers[row].loc[clip_id]
            _caption(axes[row, column], names[answer.predicted], answer.predicted == answer.label)
        for one, other in graph.bones:
            joints = seen["keypoints"][column, 0, middle, [one, other]]
            axes[0, column].plot(*joints.T, color=INK, linewidth=2, solid_capstyle="round")
        axes[0, column].set_title(names[answers[0].loc[clip_id].label], fontsize=11, fontweight="bold", color=INK)
    for row, (_, given) in enumerate(ROWS):
        axes[row, 0].set_ylabel(f"answered from\n{given}", fontsize=9.5, color=FAINT)
    figure.savefig(OUT, dpi=100, metadata={"Software": None})
    with Image.open(OUT) as picture:
        picture.convert("RGB").quantize(COLOURS).save(OUT, optimize=True)


def _caption(axes: Axes, answer: str, right: bool) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel(f"{'✓' if right else '✗'} {answer}", fontsize=10, color=RIGHT if right else SKELETON_CEILING)


if __name__ == "__main__":
    main()
