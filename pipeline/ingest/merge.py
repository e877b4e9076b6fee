"""A list made anew over the list that is there: what people wrote into clips.csv stays, clip by clip.

A clip is known again by its clip_id, or else by its video and segment. Reads clips.csv and clips.gone.csv, the rows of
clips that the last ingest did not find: they come back with the videos.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.files.names import composed, plain_path
from pipeline.manifest.clips import Clip, read_with_others, write_clips

PEOPLES = ("label", "subject", "camera", "part")
LOST = {"label": "classes.csv was made anew, so its indices are others", "sha256": "--hash notes it again"}
Segment = tuple[str, str, str]


def segment_of(path: str, start: float | None, end: float | None) -> Segment:
    """What a clip is cut from, as clips.csv writes it."""
    first, last = ("" if second is None else f"{second:.10g}" for second in (start, end))
    return plain_path(path), first, last


@dataclass
class FormerList:
    """The rows that were there. `others` are the columns of people's own: clip_id -> column -> cell."""

    clips: dict[str, Clip] = field(default_factory=dict)  # by clip_id, composed
    others: dict[str, dict[str, str]] = field(default_factory=dict)
    by_segment: dict[Segment, Clip] = field(default_factory=dict)

    def add(self, clips: Iterable[Clip], others: dict[str, dict[str, str]]) -> None:
        """More rows; those that are there already stay."""
        for clip in clips:
            if composed(clip.clip_id) not in self.clips:
                self.clips[composed(clip.clip_id)] = clip
                self.by_segment.setdefault(segment_of(clip.path, clip.start, clip.end), clip)
                if clip.clip_id in others:
                    self.others[clip.clip_id] = others[clip.clip_id]

    def id_of(self, path: str, start: float | None, end: float | None) -> str:
        """The clip_id that this segment had; empty where it is new."""
        found = self.by_segment.get(segment_of(path, start, end))
        return found.clip_id if found else ""

    def find(self, clip: Clip) -> Clip | None:
        """The row of a clip that is listed anew."""
        named = self.clips.get(composed(clip.clip_id))
        return named or self.by_segment.get(segment_of(clip.path, clip.start, clip.end))


def read_former(clips_csv: Path) -> FormerList:
    """What was listed; empty where nothing was. Raises PosebridgeError for a list with an error, which stays as it is.
    """
    former = FormerList()
    for path in (clips_csv, gone_csv(clips_csv)):
        if path.exists():
            former.add(*read_with_others(path))
    return former


def _same_path(one: str, other: str) -> bool:
    """Whether two ways to write a path mean the same; a folder of images is told by the slash at its end."""
    return plain_path(one) == plain_path(other) and one.endswith("/") == other.endswith("/")


def gone_csv(clips_csv: Path) -> Path:
    """clips.gone.csv beside clips.csv."""
    return clips_csv.with_name("clips.gone.csv")


def write_merged(clips_csv: Path, clips: Sequence[Clip], former: FormerList, same_classes: bool = True) -> list[str]:
    """Write clips.csv with what the former list knew more of its clips; returns remarks on what did not stay.

    `subject`, `camera`, `part` and `label` stay where the new list says nothing, other columns always. Where the new
    list says another, that one counts. A clip that is not there any more is kept in clips.gone.csv if people wrote
    something of it: in a column of their own, or in one of the four of which the new list says nothing.

    Args:
        same_classes: whether the former labels are indices into the same classes; else they say nothing any more.
    """
    people = [name for name in PEOPLES if all(getattr(clip, name) in (None, "") for clip in clips)]
    merged, others, kept = [], {}, set()
    changed: defaultdict[str, list[str]] = defaultdict(list)  # column -> clip_ids
    lost: defaultdict[str, list[str]] = defaultdict(list)
    for clip in clips:
        was = former.find(clip)
        if was is None:
            merged.append(clip)
            continue
        kept.add(was.clip_id)
        if was.clip_id in former.others:
            others[clip.clip_id] = former.others[was.clip_id]
        now = replace(
            clip,
            path=was.path if _same_path(was.path, clip.path) else clip.path,
            subject=clip.subject or was.subject,
            camera=clip.camera or was.camera,
            part=clip.part or was.part,
            label=was.label if clip.label is None and same_classes else clip.label,
        )
        for name in (*PEOPLES, "sha256"):
            before, after = getattr(was, name), getattr(now, name)
            if before not in (None, "") and after in (None, ""):
                lost[name].append(clip.clip_id)
            elif name in PEOPLES and before not in (None, "", after) and (name != "label" or same_classes):
                changed[name].append(clip.clip_id)
        merged.append(now)
    gone = [
        clip if same_classes else replace(clip, label=None)
        for clip in former.clips.values()
        if clip.clip_id not in kept
        and (
            any(former.others.get(clip.clip_id, {}).values())
            or any(getattr(clip, name) not in (None, "") for name in people)
        )
    ]
    if gone:
        write_clips(gone_csv(clips_csv), gone, former.others)
    write_clips(clips_csv, merged, others)
    if not gone:
        gone_csv(clips_csv).unlink(missing_ok=True)
    remarks = [
        f"{len(ids)} clips had another {name} in the former list, first {ids[0]!r}; the new one counts."
        for name, ids in changed.items()
    ]
    for name, ids in lost.items():
        remarks.append(f"{len(ids)} clips had a {name}, first {ids[0]!r}, and have none now; {LOST[name]}.")
    if gone:
        remarks.append(
            f"{len(gone)} clips of the former list are not found now, first {gone[0].clip_id!r}; what was written of "
            f"them is kept in {gone_csv(clips_csv)} until they come back."
        )
    return remarks
