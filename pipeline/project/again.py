"""The folder of a data set that `init` has made, looked at again: new videos are taken up, all else stays.

Reads and writes manifests/<name>/clips.csv (and clips.gone.csv) and init.csv. Command: posebridge init DIR, once more
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PosebridgeError, some_names
from pipeline.files.names import composed
from pipeline.files.shipped import shipped_file
from pipeline.ingest.ingest import Ingestion, ingest
from pipeline.manifest.clips import read_classes, read_clips, read_with_others, write_clips
from pipeline.params import IMAGE_FPS, load_params
from pipeline.project.asked import Asked, write_asked
from pipeline.project.init import MANIFESTS, PARAMS
from pipeline.project.look import Found
from pipeline.project.parts import deal_parts, usual_way


@dataclass(frozen=True)
class TakenUp:
    """What is new: clips by part, and how many are `gone`. `idle` tells what was asked for that only a new data set can
    have.
    """

    dataset: str
    folder: Path
    new: dict[str, int]
    gone: int
    listed: Ingestion
    idle: tuple[str, ...]


def made_of(root: Path) -> list[str]:
    """The data sets that `init` has made of this folder."""
    return [
        name
        for name, known in load_params(shipped_file(PARAMS)).datasets.items()
        if Path(known.root).resolve() == root.resolve()
        and all((MANIFESTS / name / file).is_file() for file in ("clips.csv", "classes.csv"))
    ]


def take_up(
    found: Found, name: str, asked: Asked, progress: Callable[[int, int], None] = lambda done, total: None
) -> TakenUp:
    """List the folder again, as `asked` (see `as_before`). What stands in clips.csv stays, and new clips are dealt to
    parts beside it.

    Raises PosebridgeError for a new class, since protocols and texts are of those that there are; nothing is written
    then.
    """
    folder, image_fps = MANIFESTS / name, load_params(shipped_file(PARAMS)).datasets[name].image_fps
    classes = read_classes(folder / "classes.csv")
    if new := sorted(set(found.classes) - set(map(composed, classes))):
        raise PosebridgeError(
            f"{found.root} has the new class{'es' if len(new) > 1 else ''} {some_names(new)}, and the protocols of "
            f"{folder} are of the classes that there were; make another data set of it with --name."
        )
    before = {clip.clip_id: clip for clip in read_clips(folder / "clips.csv", len(classes))}
    listed = ingest(
        name, found.root, labels=asked.labels, pattern=asked.pattern, image_fps=image_fps or IMAGE_FPS,
        manifests=MANIFESTS, progress=progress,
    )  # fmt: skip
    clips, others = read_with_others(folder / "clips.csv")
    # without a part: one that had no label, or that a killed process had listed and not dealt yet
    fresh = [c for c in clips if c.clip_id not in before or (c.label is not None and not c.part)]
    known = [clip for clip in clips if clip.clip_id in before]
    dealt = {clip.clip_id: clip for clip in deal_parts(fresh, asked.split_by or usual_way(clips), known)}
    if dealt:
        write_clips(folder / "clips.csv", [dealt.get(clip.clip_id, clip) for clip in clips], others)
    write_asked(folder, asked)
    wants = {"--unseen": asked.unseen, "--texts": asked.texts, "--recipe": asked.recipe, "--weights": asked.weights,
             "--detector": asked.detector, "--image-fps": asked.image_fps}  # fmt: skip
    return TakenUp(
        name,
        folder,
        dict(Counter(clip.part or "no part" for clip in dealt.values())),
        len(before) - len(known),
        listed,
        tuple(option for option, value in wants.items() if value),
    )
