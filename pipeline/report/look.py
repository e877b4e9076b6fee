"""A look into one protocol: what a person would rather look at than read. Draws its pictures into a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from pipeline.errors import PosebridgeError
from pipeline.report import figures
from pipeline.report.attention import Attended, attended
from pipeline.report.classes import by_class
from pipeline.report.clip_frames import FramesOf
from pipeline.report.clip_map import draw_map, find_map, read_map
from pipeline.report.cost import draw_cost
from pipeline.report.epochs import draw_epochs
from pipeline.report.gzsl_curves import draw_gzsl
from pipeline.report.runs import Run


@dataclass(frozen=True)
class Look:
    """What was found; nothing of what no run tells."""

    attended_run: str = ""
    attended: tuple[Attended, ...] = ()
    map_run: str = ""
    map: Path | None = None
    classes: pd.DataFrame = field(default_factory=pd.DataFrame)
    classes_in_all: int = 0
    gzsl: Path | None = None
    epochs: Path | None = None
    cost: Path | None = None


def look_into(
    runs: Sequence[Run], counts: Mapping[str, pd.DataFrame], names: Sequence[str], unseen: Sequence[int], folder: Path,
    frames_of: FramesOf, extraction: Mapping[str, float] = MappingProxyType({}),
) -> tuple[Look, list[str]]:  # fmt: skip
    """Of the methods of one protocol. `counts`: run -> its confusion, `extraction`: recipe -> seconds a clip. And
    one sentence for each file left out.
    """
    complaints = []
    attention: tuple[str, tuple[Attended, ...]] = ("", ())
    map_run, map_picture, gzsl = "", None, None
    try:
        attention = attended(runs, names, folder, frames_of)
    except PosebridgeError as error:
        complaints.append(str(error))
    try:
        if (found := find_map(runs)) and len(points := read_map(found[1])):
            shown = unseen or sorted(set(found[0].results[0].answers.label))
            map_run, map_picture = found[0].first.run, figures.save(draw_map(points, shown, names), folder / "map.png")
    except PosebridgeError as error:
        complaints.append(str(error))
    try:
        gzsl = draw_gzsl(runs)
    except PosebridgeError as error:
        complaints.append(str(error))
    classes, in_all = by_class(counts)
    epochs, cost = draw_epochs(runs), draw_cost(runs, extraction)
    look = Look(
        *attention,
        map_run,
        map_picture,
        classes,
        in_all,
        figures.save(gzsl, folder / "gzsl.png") if gzsl else None,
        figures.save(epochs, folder / "epochs.png") if epochs else None,
        figures.save(cost, folder / "cost.png") if cost else None,
    )
    return look, complaints
