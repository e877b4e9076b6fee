"""From an annotation file of others to a data set: clips.csv and a cache of skeletons without cues.

Reads a PYSKL / MMAction2 pickle or a `.npz` and manifests/<dataset>/classes.csv; writes manifests/<dataset>/clips.csv,
cache/store/<dataset>/... and cache/<dataset>/<recipe>/index.json. The labels of the file are indices into classes.csv.
    posebridge cache import ntu60_3danno.pkl --dataset ntu60 --recipe ntu25_3d --split xsub
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cache.imported import require_no_import
from pipeline.cache.index import index_path, write_index
from pipeline.cache.shard import make_shards
from pipeline.cache.store import Store, row_hash
from pipeline.errors import PosebridgeError
from pipeline.files.names import check_name
from pipeline.ingest.merge import read_former, write_merged
from pipeline.interchange.annotations import PARTS, Annotation, read_annotations
from pipeline.manifest.clips import Clip, read_classes, read_clips
from pipeline.recipe import Recipe
from pipeline.skeleton.graph import GRAPHS, graph_of
from pipeline.skeleton.unseen import repeat_last_valid
from pipeline.video.sampling import sample_positions


@dataclass(frozen=True)
class Imported:
    """What an import did. `val` test clips are in a list that the file calls val; `missing` clips are in its lists but
    have no annotation.
    """

    index: Path
    store: Path
    clips_csv: Path
    clips: int
    written: int
    parts: dict[str, int]
    val: int
    missing: tuple[str, ...]


def import_skeletons(
    dataset: str,
    recipe_name: str,
    recipe: Recipe,
    file: Path,
    *,
    split: str = "",
    clips_per_shard: int = 256,
    manifests: Path = Path("manifests"),
    cache: Path = Path("cache"),
    cache_root: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Imported:
    """Bring the skeletons of `file` into the cache; what is there already and unchanged stays.

    Args:
        recipe: with `backend: import`; its `layout`, `dimensions`, `persons` and `frames` say what is kept.
        split: which of the file's pairs of lists gives the parts, e.g. `xsub` for xsub_train and xsub_val; not needed
            where there is one pair only.
        progress: told (clips done, clips to do) after every clip.

    Raises:
        PosebridgeError: the file, its layout, a label or a part is not as it should be; nothing has been written then.
    """
    check_import(recipe)
    index = index_path(cache, dataset, recipe_name)
    require_no_import(index)
    annotations, splits = read_annotations(file)
    names = read_classes(manifests / check_name(dataset, "data set") / "classes.csv")
    for annotation in annotations:
        _check(annotation, recipe, len(names), file)
    _check_unit(annotations, recipe, file)
    parts, val, missing = _parts(splits, split, {a.clip_id for a in annotations}, file)
    clips_csv = manifests / dataset / "clips.csv"
    clips = _clips(clips_csv, annotations, parts, file)

    by_id = {annotation.clip_id: annotation for annotation in annotations}

    def content_hash(clip: Clip) -> str:
        """A changed annotation changes its row's hash, an added one no other."""
        annotation = by_id[clip.clip_id]
        facts = f"{row_hash(clip)} {annotation.keypoints.shape} {annotation.height} {annotation.width}"
        content = annotation.keypoints.tobytes() + annotation.scores.tobytes()
        return hashlib.sha256(facts.encode() + content).hexdigest()[:16]

    store = Store(cache_root or cache / "store", dataset, recipe)
    layout = store.create(len(clips), clips_per_shard, len(graph_of(recipe.layout).joints), 0)
    written = make_shards(
        store, layout, clips, content_hash, lambda clip, _: skeleton_row(clip, by_id[clip.clip_id], recipe), progress
    )
    write_index(index, dataset, store, layout, store.receipts(layout))
    counts = {part: sum(clip.part == part for clip in clips) for part in ("train", "test", "")}
    tested_val = sum(clip.part == "test" and clip.clip_id in val for clip in clips)
    return Imported(index, store.folder, clips_csv, len(clips), written, counts, tested_val, missing)


def check_import(recipe: Recipe) -> None:
    """Raise PosebridgeError for a recipe that no import can follow."""
    graph_of(recipe.layout)
    if recipe.backend != "import" or recipe.cues != "none":
        raise PosebridgeError(
            "The recipe of an import should say `backend: import`, `cues: none`, a `layout` and `dimensions` 2 or 3; "
            "add one to params.yaml."
        )


def _check(annotation: Annotation, recipe: Recipe, classes: int, file: Path) -> None:
    joints, dimensions = annotation.keypoints.shape[2:]
    wanted = len(graph_of(recipe.layout).joints)
    if (joints, dimensions) != (wanted, recipe.dimensions):
        fits = [name for name, graph in GRAPHS.items() if len(graph.joints) == joints]
        hint = f"set `layout: {fits[0]}` and `dimensions: {dimensions}`" if fits else "no layout has so many joints"
        raise PosebridgeError(
            f"{file}: {annotation.clip_id!r} has {joints} joints in {dimensions} dimensions, but the recipe says "
            f"{recipe.layout} in {recipe.dimensions}; {hint}."
        )
    if not -1 <= annotation.label < classes:
        raise PosebridgeError(
            f"{file}: {annotation.clip_id!r} has the label {annotation.label}; classes.csv has 0 to {classes - 1}."
        )


def _check_unit(annotations: Sequence[Annotation], recipe: Recipe, file: Path) -> None:
    largest = max(float(np.abs(np.nan_to_num(a.keypoints, posinf=0, neginf=0)).max()) for a in annotations)
    if recipe.dimensions == 2 and largest <= 2:
        raise PosebridgeError(f"{file}: all its places lie within 0 and {largest:.2g}; they should be in pixels.")


def _parts(
    splits: dict[str, list[str]], wanted: str, known: set[str], file: Path
) -> tuple[dict[str, str], set[str], tuple[str, ...]]:
    """The part of every clip that the chosen pair of lists names, the clips of its val, and those that it names but the
    file lacks.
    """
    pairs: dict[str, dict[str, list[str]]] = {}
    for name, clip_ids in splits.items():
        prefix, _, tail = name.rpartition("_")
        if tail in PARTS:
            pairs.setdefault(prefix, {})[name] = clip_ids
    if not wanted and len(pairs) == 1:
        wanted = next(iter(pairs))
    elif splits and wanted not in pairs:
        choice = " or ".join(f"--split {prefix}" for prefix in pairs if prefix) or "lists named train and test"
        raise PosebridgeError(f"{file} has the lists {', '.join(splits)[:300]}; choose by {choice[:300]}.")
    parts: dict[str, str] = {}
    pair = pairs.get(wanted, {})
    for name, clip_ids in pair.items():
        part = PARTS[name.rpartition("_")[2]]
        for clip_id in clip_ids:
            if parts.setdefault(clip_id, part) != part:
                raise PosebridgeError(f"{file}: {clip_id!r} is in a list to train on and in one to test on.")
    val = {clip_id for name, clip_ids in pair.items() if name.rpartition("_")[2] == "val" for clip_id in clip_ids}
    return parts, val, tuple(sorted(set(parts) - known))


def _clips(path: Path, annotations: Sequence[Annotation], parts: dict[str, str], file: Path) -> list[Clip]:
    """The clips of the import. clips.csv is written unless it lists videos: then it must know every one of them."""
    clips = [
        Clip(
            clip_id=a.clip_id,
            path=a.clip_id,
            label=None if a.label < 0 else a.label,
            part=parts.get(a.clip_id, ""),
            frames=a.keypoints.shape[1],
            height=a.height or None,
            width=a.width or None,
        )
        for a in annotations
    ]
    former = read_former(path)
    there = {clip.clip_id: clip for clip in former.clips.values()}
    if all(clip.path == clip.clip_id for clip in there.values()):  # none, or those of an earlier import
        write_merged(path, clips, former)
        return read_clips(path)
    for clip in clips:
        if clip.clip_id not in there or there[clip.clip_id].label != clip.label:
            raise PosebridgeError(
                f"{path} lists videos, and {clip.clip_id!r} of {file.name} is not among them with the label "
                f"{clip.label}; import it as a data set of another name."
            )
    return [there[clip.clip_id] for clip in clips]


def skeleton_row(clip: Clip, annotation: Annotation, recipe: Recipe) -> dict[str, Any]:
    """The cache's row of one annotation: T frames evenly sampled, the M persons with the most score.

    A joint that was not seen takes its last place, or else the centre of the person's box. The file knows no times:
    `timestamp` is not a number and `video_fps` 0.
    """
    frames = annotation.keypoints.shape[1]
    positions = sample_positions(np.arange(frames, dtype=float), float(frames), recipe.frames)  # [T]
    persons = np.argsort(-annotation.scores.sum((1, 2)), kind="stable")[: recipe.persons]
    shape = (recipe.persons, recipe.frames, *annotation.keypoints.shape[2:])
    keypoints, scores = np.zeros(shape, np.float32), np.zeros(shape[:3], np.float32)
    keypoints[: len(persons)] = annotation.keypoints[persons][:, positions]
    scores[: len(persons)] = annotation.scores[persons][:, positions]
    valid: np.ndarray = np.any(scores > 0, axis=2)  # [M, T]
    seen = np.expand_dims(scores > 0, 3)
    low = np.where(seen, keypoints, np.inf).min(2)  # [M, T, C]
    high = np.where(seen, keypoints, -np.inf).max(2)
    boxes = np.where(valid[..., None], np.concatenate([low, high - low], -1), 0).astype(np.float32)
    repeat_last_valid(keypoints, scores, boxes)
    return {
        "clip_id": clip.clip_id,
        "keypoints": keypoints,
        "scores": scores,
        "boxes": boxes if recipe.dimensions == 2 else boxes[..., [0, 1, 3, 4]],
        "person_valid": valid,
        "track_id": np.where(valid.any(1), np.arange(recipe.persons), -1),
        "frame_index": positions,
        "timestamp": np.full(recipe.frames, np.nan),
        "video_path": clip.path,
        "video_identity": "",
        "video_fps": 0.0,
        "video_frames": frames,
        "video_height": annotation.height,
        "video_width": annotation.width,
        "video_record": "",
    }
