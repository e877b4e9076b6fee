"""Bringing the vectors of extractions up to date: shard by shard, those that are not there yet.

Reads cache/<dataset>/<recipe>/index.json, shards and clips.csv; writes cache/search/<run or skeletons>/<dataset>/.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipeline.cache.imported import list_of_clips
from pipeline.cache.index import index_path
from pipeline.cache.reader import CacheReader
from pipeline.errors import PosebridgeError
from pipeline.files.ahead import ahead
from pipeline.files.durable import writing
from pipeline.files.hashing import fingerprint, sha256_file
from pipeline.files.names import check_name, is_file
from pipeline.files.shipped import dataset_folder
from pipeline.learn.features import Samples, load_samples
from pipeline.manifest.clips import read_clips
from pipeline.search.embedders import Embedder
from pipeline.search.nearest import FLAT, write_index
from pipeline.search.vectors import Entry, Vectors

SEAL_SECONDS = 30.0  # from receipt to receipt while shards are embedded
GROWN = 2  # times as many clips as the lists were trained on: they are trained anew
OnClip = Callable[[str, int, int], None]  # data set, clips done, clips in all


def data_sets(cache: Path, embedder: Embedder, names: Sequence[str] = ()) -> list[str]:
    """Those of `names`, or of the whole cache, that the embedder's recipe has extracted. Raises PosebridgeError where
    there is none.
    """
    found = list(dict.fromkeys(check_name(name, "data set") for name in names))
    found = found or sorted(path.parts[-3] for path in cache.glob(f"*/{embedder.recipe}/index.json"))
    for name in found or ["NAME"]:
        if not is_file(index_path(cache, name, embedder.recipe)):
            raise PosebridgeError(
                f"The cache holds {'nothing' if name == 'NAME' else f'no clip of {name}'} by the recipe "
                f"{embedder.recipe!r}; run `posebridge extract --dataset {name} --recipe {embedder.recipe}` first."
            )
    return found


def folder_of(cache: Path, embedder: Embedder, dataset: str) -> Path:
    """Where the vectors of a data set's clips lie."""
    return cache.joinpath("search", *embedder.place, dataset)


def is_current(vectors: Vectors, cache: Path, embedder: Embedder, dataset: str) -> bool:
    """Whether all clips of the extraction as it is now are there, embedded by this very model."""
    receipt = vectors.receipt
    return receipt is not None and (receipt.model, receipt.source) == (
        embedder.model,
        _source(cache, embedder, dataset),
    )


def update(
    dataset: str, embedder: Embedder, manifests: Path = Path("manifests"), cache: Path = Path("cache"),
    store_root: Path | None = None, on_clip: OnClip = lambda dataset, done, total: None,
) -> int:  # fmt: skip
    """Embed the clips of all shards that are not there yet, one shard in memory at a time; returns how many clips.

    Vectors of another model go, and those of shards that are no more. Raises PosebridgeError for an extraction by
    another version of the recipe, and while another process does the same.
    """
    source = _source(cache, embedder, dataset)
    reader = CacheReader(index_path(cache, dataset, embedder.recipe), store_root)
    cues = reader if embedder.cue_recipe else None
    if embedder.cue_recipe not in ("", embedder.recipe):
        cues = CacheReader(index_path(cache, dataset, embedder.cue_recipe), store_root)
    for each in filter(None, (reader, cues)):
        if each.fingerprint not in embedder.fingerprints:
            raise PosebridgeError(
                f"{dataset} was extracted by another version of the recipe than what is searched by; run `posebridge "
                f"extract --dataset {dataset} --recipe {embedder.recipe}`."
            )
    of_shard: dict[int, list[str]] = defaultdict(list)
    there = set(cues.clip_ids) if cues else set()
    for clip_id, number in reader.index["clips"].items():
        if cues is None or clip_id in there:
            of_shard[number].append(clip_id)
    apart = cues.index["store"] + source if cues is not None and cues is not reader else ""
    keys = {fingerprint(entry["sha256"], apart): entry["shard"] for entry in reader.index["shards"]}
    vectors = Vectors(folder_of(cache, embedder, dataset))
    with vectors.alone():
        one = next(iter(of_shard.values()), [])[:1]
        width = embedder.embed(load_samples(one, reader, cues)).shape[1]
        vectors.begin(embedder.model, width, frozenset(keys))
        known = {shard.key for shard in vectors.known.shards}
        missing = [(key, of_shard[number]) for key, number in keys.items() if key not in known and of_shard[number]]
        total, done, told = sum(len(ids) for _, ids in missing), 0, time.monotonic()
        listed = _listed(cache, manifests, dataset, embedder) if missing else {}

        def loaded() -> Iterator[tuple[str, Samples]]:
            return ((key, load_samples(ids, reader, cues)) for key, ids in missing)

        for key, samples in ahead(loaded(), 1):
            entries = [listed.get(clip_id, (clip_id, "", None, None)) for clip_id in samples.clip_ids]
            vectors.add(key, embedder.embed(samples), entries)
            done += len(samples)
            on_clip(dataset, done, total)
            if time.monotonic() - told > SEAL_SECONDS:
                vectors.seal(source="")
                told = time.monotonic()
        vectors.seal(source="")
        index_vectors(vectors)
        vectors.seal(source=source)
    return total


def index_vectors(vectors: Vectors) -> None:
    """IVF-PQ of more vectors than FLAT: what is new is added, until they are twice those that it was trained on. An
    index that another generation of vectors had is not theirs.
    """
    receipt = vectors.known
    old = vectors.folder / receipt.index if receipt.index else None
    if receipt.clips <= FLAT:
        changes = {"index": "", "index_sha256": "", "trained": 0, "indexed": 0}
    elif receipt.index and receipt.indexed == receipt.clips:
        return
    else:
        grown = receipt.clips > GROWN * receipt.trained
        path = vectors.folder / f"ivfpq-{fingerprint(receipt.generation, receipt.clips)[:12]}.faiss"
        write_index(vectors.mapped(), path, None if grown else vectors.index_file())
        trained = receipt.clips if grown else receipt.trained
        changes = {"index": path.name, "index_sha256": sha256_file(path), "trained": trained, "indexed": receipt.clips}
    vectors.seal(**changes)
    if old is not None and old.name != vectors.known.index:
        with writing(old):
            old.unlink(missing_ok=True)


def _source(cache: Path, embedder: Embedder, dataset: str) -> str:
    """A hash of the index files that the vectors come from: reading them takes seconds in a large cache."""
    recipes = dict.fromkeys(filter(None, (embedder.recipe, embedder.cue_recipe)))
    paths = [index_path(cache, dataset, recipe) for recipe in recipes]
    return fingerprint(*(sha256_file(path) if is_file(path) else "" for path in paths))


def _listed(cache: Path, manifests: Path, dataset: str, embedder: Embedder) -> dict[str, Entry]:
    """What clips.csv tells of each clip; nothing where a data set has been extracted elsewhere and has none here."""
    path = list_of_clips(index_path(cache, dataset, embedder.recipe), dataset_folder(manifests, dataset))
    if not is_file(path):
        return {}
    return {clip.clip_id: (clip.clip_id, clip.path, clip.start, clip.end) for clip in read_clips(path)}
