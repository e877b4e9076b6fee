"""From a folder of videos to a list of clips.

Reads the names in a data set's folder and, where asked for, the videos' headers. How names become clips is known for
the published data sets (pipeline/ingest/); for any other folder labels come from sub-folders, a CSV or file names.
Writes manifests/<dataset>/clips.csv, classes.csv where there is none yet, and for published data sets missing.csv.
What people wrote into clips.csv stays, see pipeline/ingest/merge.py.
    posebridge ingest --dataset ntu60 /data/nturgbd
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import PosebridgeError
from pipeline.files.names import check_name, composed, is_folder
from pipeline.files.tables import write_table
from pipeline.ingest.base import Entry, Folder, Layout, Listing, list_folder
from pipeline.ingest.merge import FormerList, read_former, segment_of, write_merged
from pipeline.ingest.ntu import read_missing_skeletons
from pipeline.ingest.own import read_own
from pipeline.ingest.registry import LAYOUTS, choose_split
from pipeline.manifest.clips import MOST_RATE, MOST_SECONDS, Clip, read_classes, why_no_class, write_classes
from pipeline.params import IMAGE_FPS
from pipeline.video.decode import VideoError
from pipeline.video.identity import sha256_video
from pipeline.video.names import VIDEO_SUFFIXES
from pipeline.video.probe import Header, probe


@dataclass(frozen=True)
class Ingestion:
    """What was written. `unreadable` videos (path, reason) stay in the list, for `extract` to report clip by clip.

    `left_out` is there and cannot be used, `missing` should be there and is not; `remarks` are sentences on what only
    a count can tell. `without_skeleton` clips were left out on request. `missing_csv` and `split` are those of a
    published data set.
    """

    clips_csv: Path
    clips: int
    videos: int
    new_classes: int
    unreadable: tuple[tuple[str, str], ...]
    left_out: tuple[tuple[str, str], ...]
    missing: tuple[tuple[str, str], ...] = ()
    remarks: tuple[str, ...] = ()
    without_skeleton: int = 0
    missing_csv: Path | None = None
    split: str = ""


def ingest(
    dataset: str,
    root: Path,
    *,
    labels: Path | None = None,
    pattern: str = "",
    split: str = "",
    without_missing: bool = False,
    read_headers: bool | None = None,
    hash_files: bool = False,
    image_fps: float = IMAGE_FPS,
    manifests: Path = Path("manifests"),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Ingestion:
    """List the videos under `root` as clips; where no file is a video by its suffix, the folders of images.

    The names of a published data set (`LAYOUTS`) tell everything. Otherwise, or where `labels` or `pattern` is given,
    labels come from `labels`, a CSV of path,label[,start,end,subject,camera,part,clip_id]; or from `pattern`, a regular
    expression with the named groups label, subject, camera, part, searched in the path; or from `root`/labels.csv
    where there is one; or else from the first sub-folder.

    Args:
        split: which clips train, of a published data set; empty for its default.
        without_missing: leave out the samples of manifests/<dataset>/missing_skeletons.txt.
        read_headers: note frame rate and size of every video; None: yes, but not for NTU and Kinetics.
        hash_files: note the sha256 of every file, so that `extract` notices any change.
        image_fps: frames a second of a folder of images.
        progress: told (videos done, videos to do).

    Raises:
        PosebridgeError: no videos, a CSV, a pattern or a split file with an error, a label that an existing classes.csv
            does not have, or that no class can have, or a clips.csv there with an error, which stays as it is.
    """
    check_name(dataset, "data set")
    if not is_folder(root):
        raise PosebridgeError(
            f"{root} is no folder; name the folder of {dataset}, or correct its root in the parameters."
        )
    layout = None if labels or pattern else LAYOUTS.get(dataset)
    if layout is None and (split or without_missing):
        raise PosebridgeError(f"{dataset} is listed by its labels, so it has neither splits nor a list of skeletons.")
    clips_csv, classes_csv = (manifests / dataset / name for name in ("clips.csv", "classes.csv"))
    former = read_former(clips_csv)
    folder = list_folder(root)
    if layout is None:
        listing, without_skeleton = read_own(folder, labels, pattern), 0
    else:
        split = choose_split(dataset, layout, split)
        listing = layout.read(folder, read_classes(classes_csv), split)
        without_skeleton = _leave_out(listing, dataset, layout, manifests) if without_missing else 0
    listing.left_out.extend(folder.odd)
    if folder.image_folders and folder.videos != folder.image_folders:
        listing.remarks.append(
            f"{len(folder.image_folders)} folders of images beside the videos, first {folder.image_folders[0]!r}, are "
            "clips only where --labels names them."
        )
    entries = listing.entries
    if not entries:
        raise nothing_found(dataset, folder, listing)
    if read_headers is None:
        read_headers = layout is None or not layout.large
    if layout is not None and layout.in_frames and not read_headers:
        raise PosebridgeError(f"The segments of {dataset} are told in frames, so headers are needed; omit --no-probe.")
    classes, are_new = _classes(classes_csv, entries)
    index = {composed(name): position for position, name in enumerate(classes)}
    videos, unreadable = _looked_at(folder, entries, read_headers, hash_files, image_fps, progress)
    clips = []
    for entry, name in _named(entries, former):
        clip = _clip(entry, name, index, *videos[entry.path], image_fps)
        if entry.frames and not clip.fps:
            listing.left_out.append((name, f"{entry.path} tells no frame rate, so its seconds are unknown"))
        elif clip.end is not None and clip.end > MOST_SECONDS:
            listing.left_out.append((name, f"{entry.path} has no second {clip.end:.10g}"))
        else:
            clips.append(clip)
    if are_new and classes:
        write_classes(classes_csv, classes)
    listing.remarks.extend(write_merged(clips_csv, clips, former, same_classes=not (are_new and classes)))
    result = Ingestion(
        clips_csv,
        len(clips),
        len(videos),
        len(classes) if are_new else 0,
        tuple(unreadable),
        tuple(listing.left_out),
        tuple(listing.missing),
        tuple(listing.remarks),
        without_skeleton,
        split=split,
    )
    if layout is None:
        return result
    return replace(result, missing_csv=_write_missing(clips_csv.with_name("missing.csv"), result))


def _looked_at(
    folder: Folder,
    entries: Sequence[Entry],
    headers: bool,
    hashes: bool,
    image_fps: float,
    progress: Callable[[int, int], None],
) -> tuple[dict[str, tuple[Header | None, str]], list[tuple[str, str]]]:
    """Path -> header and sha256, where they are asked for and can be read; and what cannot: (path, reason)."""
    videos: dict[str, tuple[Header | None, str]] = dict.fromkeys((entry.path for entry in entries), (None, ""))
    unreadable = []
    for done, path in enumerate(videos, start=1):
        place = folder.place(path)
        try:
            header = probe(place, image_fps) if headers else None
            videos[path] = header, sha256_video(place) if hashes else ""
        except (VideoError, OSError) as error:
            unreadable.append((path, getattr(error, "strerror", None) or str(error)))
        progress(done, len(videos))
    return videos, unreadable


def _leave_out(listing: Listing, dataset: str, layout: Layout, manifests: Path) -> int:
    """Take the samples without skeletons out of the entries; how many there were."""
    if not layout.skeleton_list:
        raise PosebridgeError(f"No list of missing skeletons is published for {dataset}; leave out --without-missing.")
    names = read_missing_skeletons(manifests / dataset / "missing_skeletons.txt")
    kept = [entry for entry in listing.entries if entry.clip_id not in names]
    gone = len(listing.entries) - len(kept)
    listing.entries = kept
    return gone


def nothing_found(dataset: str, folder: Folder, listing: Listing) -> PosebridgeError:
    """The sentence for a folder without a clip: no videos, or none that can be listed."""
    if not folder.videos and folder.odd:
        path, reason = folder.odd[0]
        return PosebridgeError(f"No video can be read in {folder.root}; first {path}: {reason}.")
    if not folder.videos:
        suffixes = " ".join(sorted(VIDEO_SUFFIXES))
        return PosebridgeError(
            f"No video found for {dataset} in {folder.root}, nor a folder of images below it; known suffixes of videos "
            f"are {suffixes}."
        )
    # a path of a table may be as long as a cell
    first = f", first {listing.left_out[0][0][:200]}: {listing.left_out[0][1]}" if listing.left_out else ""
    return PosebridgeError(
        f"None of the {len(folder.videos)} videos in {folder.root} can be listed for {dataset}{first}; name the data "
        "set's own folder, or give --labels."
    )


def _write_missing(path: Path, result: Ingestion) -> Path:
    """Everything that is not as it should be: kind, name, reason."""
    kinds = {"missing": result.missing, "left out": result.left_out, "unreadable": result.unreadable}
    rows = ((kind, name, reason) for kind, found in kinds.items() for name, reason in found)
    return write_table(path, ("kind", "name", "reason"), rows)


def _classes(path: Path, entries: list[Entry]) -> tuple[list[str], bool]:
    """The class names in their order, and whether they are new."""
    wanted = {entry.label for entry in entries if entry.label}
    if not path.exists():
        for label in wanted:
            if why := why_no_class(label):
                raise PosebridgeError(f"The label {label!r} cannot be a class: {why}; rename it.")
        return sorted(wanted), True
    names = read_classes(path)
    if unknown := sorted(wanted - set(map(composed, names)) - set(names)):
        close = difflib.get_close_matches(unknown[0], names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "correct the label, or delete the file to have it made anew."
        raise PosebridgeError(f"The class {unknown[0]!r} is not in {path}; {hint}")
    return names, False


def _named(entries: list[Entry], former: FormerList) -> Iterator[tuple[Entry, str]]:
    """Every entry with its clip_id: given, or as it was listed before, or the path without suffix and the segment.

    Where two videos would have one name, the later has its suffix, too; where times agree to six digits, more of them.
    """
    stems = Counter(stem for stem, _ in {(_stem(entry.path), entry.path) for entry in entries})
    taken: set[str] = set()
    segments = set()
    given = {composed(entry.clip_id) for entry in entries if entry.clip_id}
    for entry in entries:
        segment = segment_of(entry.path, entry.start, entry.end)
        stem, path = _stem(entry.path), composed(entry.path)
        before = former.id_of(entry.path, entry.start, entry.end)
        plain = stem if stem.strip() and stems[stem] == 1 else path
        choices = [before, plain + _times(entry, 6), path + _times(entry, 6), path + _times(entry, 10)]
        free = (name for name in choices if name and composed(name) not in taken and composed(name) not in given)
        name = entry.clip_id or next(free, "")
        if not name or composed(name) in taken or (segment in segments and not entry.clip_id):
            raise PosebridgeError(
                f"The clip_id {name or choices[1]!r} would occur twice; give every segment its own clip_id."
            )
        taken.add(composed(name))
        segments.add(segment)
        yield entry, name


def _stem(path: str) -> str:
    return composed(path)[:-1] if path.endswith("/") else composed(path).rpartition(".")[0]


def _times(entry: Entry, digits: int) -> str:
    if entry.start is None and entry.end is None:
        return ""
    return f"@{entry.start or 0:.{digits}g}-{'' if entry.end is None else f'{entry.end:.{digits}g}'}"


def _clip(
    entry: Entry, clip_id: str, index: dict[str, int], header: Header | None, sha256: str, image_fps: float
) -> Clip:
    start, end = entry.start, entry.end
    fps = header.fps if header and header.fps and header.fps <= MOST_RATE else None
    if entry.path.endswith("/"):  # whether or not its first image was looked at
        fps = image_fps
    if entry.frames and fps:
        start, end = (frame / fps for frame in entry.frames)
    return Clip(
        clip_id=clip_id,
        path=entry.path,
        start=start,
        end=end,
        label=index[composed(entry.label)] if entry.label else None,
        subject=entry.subject,
        camera=entry.camera,
        part=entry.part,
        sha256=sha256,
        fps=fps,
        frames=header.frames if header else None,
        height=header.height if header else None,
        width=header.width if header else None,
    )
