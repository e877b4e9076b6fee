"""How long it takes to list a data set of NTU-120's size by its names.

Writes empty files and their list to a temporary folder only. Command: posebridge bench ingest
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PosebridgeError
from pipeline.ingest.ingest import ingest
from pipeline.ingest.simulated import ntu120_names
from pipeline.manifest.clips import write_classes


@dataclass(frozen=True)
class IngestBench:
    """`seconds` from the first look at the folder to the written clips.csv."""

    videos: int
    missing: int
    seconds: float


def bench_ingest(folder: Path, videos: int = 0) -> IngestBench:
    """Ingest empty files with the first `videos` names of NTU-120 (0: all 114 480), in an empty `folder`."""
    names = ntu120_names()[: videos or None]
    for parent in {(folder / "ntu" / name).parent for name in names}:
        parent.mkdir(parents=True)
    try:
        for name in names:
            (folder / "ntu" / name).touch()
    except OSError as error:
        raise PosebridgeError(f"{folder} takes no {len(names)} files ({error.strerror}); make room there.") from None
    write_classes(folder / "ntu120" / "classes.csv", [f"action {number}" for number in range(1, 121)])
    begun = time.perf_counter()
    result = ingest("ntu120", folder / "ntu", manifests=folder)
    return IngestBench(result.clips, len(result.missing), time.perf_counter() - begun)
