"""From features of others to a cache that stage two reads: what their skeleton encoder gives, in the place of ours.

Reads a folder or file as feature_files.py says, manifests/<dataset>/classes.csv and a protocol; writes
cache/store/<dataset>/features-..., and cache/<dataset>/<recipe>/{index.json,clips.csv,imported.json}.
    posebridge cache import-features shift_ntu60_5_r --dataset ntu60 --protocol synse_55_5 --recipe shift-synse_55_5
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cache.imported import clips_path, note_import, require_no_extraction
from pipeline.cache.index import index_path, write_index
from pipeline.cache.shard import ShardState, make_shards
from pipeline.cache.store import Store, row_hash
from pipeline.errors import LIST, PosebridgeError, some_names
from pipeline.files.hashing import fingerprint
from pipeline.files.names import is_file
from pipeline.files.shipped import dataset_folder
from pipeline.interchange.feature_files import FeatureSet, read_features
from pipeline.manifest.clips import Clip, read_classes, read_clips
from pipeline.protocol.exposure import exposed
from pipeline.protocol.splits import Split, read_split
from pipeline.recipe import CUES_ALONE, EXPOSURES, POOLED, Recipe
from pipeline.skeleton.graph import GRAPHS
from pipeline.video.identity import VideoRecord

NAMED = 8  # of a list in a message


@dataclass(frozen=True)
class ImportedFeatures:
    """What an import did. `val` test clips are of the file's part val. `layout` is `pooled`, that of the maps'
    joints, or `none` of cues alone; `cue_width` 0 where there are none.
    """

    index: Path
    store: Path
    clips_csv: Path
    clips: int
    written: int
    parts: dict[str, int]
    val: int
    layout: str
    cue_width: int
    remarks: tuple[str, ...]  # what somebody should know of it, each a sentence


def import_features(
    dataset: str,
    protocol: str,
    recipe_name: str,
    path: Path,
    *,
    hpe_text: str = "",
    clips_per_shard: int = 256,
    manifests: Path = Path("manifests"),
    cache: Path = Path("cache"),
    cache_root: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ImportedFeatures:
    """Bring the features of `path` into the cache under the name `recipe_name`; what is there and unchanged stays.

    Args:
        protocol: for which the features' encoder was trained, on its seen classes alone. Train clips of its unseen
            classes are refused as a leak.
        hpe_text: what words the pose model of the cues has seen (`EXPOSURES`); needed where there are cues.
            `seen-classes` are those that the protocol trains on in its selection phase, and other protocols refuse
            what has seen their unseen classes.
        progress: told (clips done, clips to do) after every clip.

    Raises:
        PosebridgeError: the file is odd, or disagrees with the protocol or with clips.csv, or the name is that of an
            extraction; nothing has been written.
    """
    folder = dataset_folder(manifests, dataset)
    if "+" in recipe_name:
        raise PosebridgeError(
            f"The recipe of an import cannot be called {recipe_name!r}, since + names two recipes; choose another name "
            "with --recipe."
        )
    index = index_path(cache, dataset, recipe_name)
    require_no_extraction(index)
    names = read_classes(folder / "classes.csv")
    split = read_split(folder / "protocols", protocol, names)
    if split.trains_on:
        raise PosebridgeError(
            f"The protocol {protocol} of {dataset} trains on {split.trains_on}, and features come from one data set; "
            "choose another protocol."
        )
    found = read_features(path, names, split.unseen, cache)
    require_protocol(found, split, folder, path)
    recipe = recipe_of(found, hpe_text, exposed(dataset, split), path)
    rows = zip(found.clip_ids, found.labels, found.parts, strict=True)
    clips = [Clip(clip_id, clip_id, label=label, part=part) for clip_id, label, part in rows]
    row_of = {clip_id: place for place, clip_id in enumerate(found.clip_ids)}

    def look(clip_path: str, former: VideoRecord | None) -> VideoRecord:
        """Equal features (of cues alone, equal cues) have one identity, by which test clips that repeat a train clip
        are found.
        """
        content = found.content(row_of[clip_path])
        return VideoRecord(f"features-{hashlib.sha256(content).hexdigest()[:32]}", len(content), 0)

    def row(clip: Clip, state: ShardState) -> dict[str, Any]:
        return feature_row(clip, found, row_of[clip.clip_id], state.videos[clip.path].identity)

    store = Store(cache_root or cache / "store", dataset, recipe)
    layout = store.create(len(clips), clips_per_shard, found.joints, found.cue_width)
    written = make_shards(store, layout, clips, row_hash, row, progress, look)
    note_import(index, clips, recipe.fingerprint, protocol, split.seen if found.features else (), found.sources)
    write_index(index, dataset, store, layout, store.receipts(layout))
    parts = Counter(found.parts)
    return ImportedFeatures(
        index, store.folder, clips_path(index), len(clips), written, dict(parts), found.val, recipe.layout,
        found.cue_width, found.remarks,
    )  # fmt: skip


def recipe_of(found: FeatureSet, hpe_text: str, seen_classes: str, path: Path) -> Recipe:
    """The recipe of an import: files of other content are another recipe, whatever they are called. `seen_classes` are
    its `hpe_classes` where `hpe_text` is `seen-classes`. Raises PosebridgeError where cues have no `hpe_text`.
    """
    if found.cues is not None and hpe_text not in EXPOSURES:
        raise PosebridgeError(
            f"{path} holds cues; say what words their pose model has seen: --hpe-text {', '.join(EXPOSURES)}."
        )
    joints = {len(graph.joints): name for name, graph in GRAPHS.items()}
    of_features = POOLED if found.pooled else joints[found.joints]
    return Recipe(
        backend="features",
        config="",
        weights="",
        weights_sha256=fingerprint(list(found.sources.values())),
        hpe_text=hpe_text if found.cues is not None else "none",
        hpe_classes=seen_classes if found.cues is not None and hpe_text == "seen-classes" else "",
        frames=found.frames,
        cue_frames=found.cues.shape[1] if found.cues is not None else 1,
        cues="none" if found.cues is None else "refined",
        anchors=("body",),
        layout=of_features if found.features else CUES_ALONE,
    )


def require_protocol(found: FeatureSet, split: Split, folder: Path, path: Path) -> None:
    """Raise PosebridgeError where the features are no features of this protocol, with all that disagrees."""
    trained = Counter(label for label, part in zip(found.labels, found.parts, strict=True) if part == "train")
    tested = Counter(label for label, part in zip(found.labels, found.parts, strict=True) if part == "test")

    def named(classes: Iterable[int]) -> str:
        return some_names([split.class_names[c] for c in classes], NAMED)

    others = [other for other in _protocols(folder, split) if set(other.seen) == set(trained)]
    own = f"they are the seen classes of {others[0].protocol}: import it with that" if others else ""
    if leaked := [c for c in split.unseen if c in trained]:
        clips = sum(trained[c] for c in leaked)
        remedy = own or "take these clips out and train the encoder without them, or name its own protocol"
        raise PosebridgeError(
            f"{path} is refused as a leak: {clips} of its train clips are of classes that are unseen in "
            f"{split.protocol} ({named(leaked)}), and its encoder may have learnt them; {remedy}."
        )
    lines = list(found.doubts)
    if lacking := [c for c in split.seen if c not in trained]:
        remedy = own or "name its own protocol"
        lines.append(f"it has no train clip of {named(lacking)}, which {split.protocol} trains on; {remedy}")
    if lacking := [c for c in split.unseen if c not in tested]:
        lines.append(f"it has no test clip of {named(lacking)}, unseen in {split.protocol}; add some of each")
    lacking = [c for c in split.seen if c not in tested]
    if 0 < len(lacking) < len(split.seen):
        lines.append(
            f"it has no test clip of {named(lacking)}, seen in {split.protocol}, but has some of other seen classes; "
            "bring some of every seen class, or of none"
        )
    if lines := lines + _unlike_the_list(found, folder / "clips.csv", len(split.class_names)):
        raise PosebridgeError(LIST.join([f"{path} disagrees with {split.protocol}, so nothing was imported:", *lines]))


def _protocols(folder: Path, split: Split) -> Iterable[Split]:
    """The data set's other protocols, as far as they are readable."""
    for path in sorted((folder / "protocols").glob("*.txt")):
        if not path.stem.endswith(".val"):
            try:
                yield read_split(path.parent, path.stem, split.class_names)
            except PosebridgeError:
                continue


def _unlike_the_list(found: FeatureSet, path: Path, classes: int) -> list[str]:
    """How clips of the file and of clips.csv with one name differ in label or part."""
    if not is_file(path):
        return []
    listed = {clip.clip_id: clip for clip in read_clips(path, classes)}
    wrong = []
    for clip_id, label, part in zip(found.clip_ids, found.labels, found.parts, strict=True):
        clip = listed.get(clip_id)
        if clip and ((clip.label not in (None, label)) or clip.part not in ("", "both", part)):
            wrong.append(
                f"{clip_id!r} is of class {label}, {part}; {path} has class {clip.label}, {clip.part or '-'}; "
                "correct one of the two"
            )
    return wrong[:NAMED] + ([f"and {len(wrong) - NAMED} more clips"] if len(wrong) > NAMED else [])


def feature_row(clip: Clip, found: FeatureSet, row: int, identity: str) -> dict[str, Any]:
    """The cache's row of one clip. A cue all of zeros was not seen, where the file does not tell."""
    made: dict[str, Any] = {
        "clip_id": clip.clip_id,
        "video_path": clip.path,
        "video_identity": identity,
        "video_fps": 0.0,
        "video_frames": 0,
        "video_height": 0,
        "video_width": 0,
        "video_record": "",
    }
    if found.features:
        made["features"] = found.feature(row)
    if found.cues is not None:
        cues = found.cues.read(row, row + 1).astype(np.float32)  # [1, S, D]
        scores = np.any(cues, axis=-1) if found.cue_scores is None else found.cue_scores.read(row, row + 1)  # [1, S]
        made |= {
            "cues": cues[:, :, None],
            "cue_scores": scores[:, :, None],
            "cue_frame": np.full(cues.shape[1], -1),
        }
    return made
