"""The data sets whose layout is known, by the names that they have under manifests/."""

from __future__ import annotations

from pipeline.errors import PosebridgeError
from pipeline.ingest.base import Layout
from pipeline.ingest.gym import GYM
from pipeline.ingest.kinetics import KINETICS200, KINETICS400
from pipeline.ingest.ntu import NTU60, NTU120
from pipeline.ingest.pku_mmd import PKU_MMD
from pipeline.ingest.ut_interaction import UT_INTERACTION

LAYOUTS = {
    "ntu60": NTU60,
    "ntu120": NTU120,
    "pku_mmd": PKU_MMD,
    "kinetics200": KINETICS200,
    "kinetics400": KINETICS400,
    "ut_interaction": UT_INTERACTION,
    "gym": GYM,
}


def choose_split(dataset: str, layout: Layout, split: str) -> str:
    """`split`, or the layout's default where it is empty. Raises PosebridgeError for one that it does not have."""
    if split and split not in layout.splits:
        raise PosebridgeError(f"{dataset} has no split {split!r}; it has {', '.join(layout.splits)}.")
    return split or layout.splits[0]
