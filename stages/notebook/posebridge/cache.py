"""`open_cache`: the skeletons and cues of a data set, for a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from pipeline.cache.index import index_path
from pipeline.cache.reader import CacheReader
from pipeline.errors import PosebridgeError
from pipeline.files.shipped import dataset_folder


class OpenCache:
    """The clips of one data set as one recipe extracted them, opened by `open_cache`.

    Attributes:
        dataset, recipe: their names.
        clip_ids: the clips that were extracted, in their order.
        names: the arrays that `read` gives; what they are, cache/README.md tells.
        reader: the `pipeline.cache.reader.CacheReader` beneath, which gives numpy arrays.
    """

    def __init__(self, dataset: str, recipe: str, reader: CacheReader, manifest: Path):
        self.dataset, self.recipe = dataset, recipe
        self.clip_ids, self.names, self.reader = reader.clip_ids, reader.names, reader
        self._manifest = manifest

    def __repr__(self) -> str:
        return f"<{self.dataset}, recipe {self.recipe}: {len(self.clip_ids)} clips; {', '.join(self.names)}>"

    def __len__(self) -> int:
        return len(self.clip_ids)

    def __enter__(self) -> OpenCache:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def clips(self) -> pd.DataFrame:
        """A row for every clip, extracted or failed, by clip_id: `class`, `part`, `subject`, `camera`, why it failed
        (`stage`, `reason`), how much was `seen`, and what its video is like. Columns: pipeline/cache/frame.py.
        """
        return self.reader.frame(self._manifest if (self._manifest / "clips.csv").is_file() else None)

    def read(self, clip_ids: Sequence[str] | None = None, names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Arrays of some clips, of all by default, as tensors by name: `keypoints` [B, M, T, V, 2], `cues`
        [B, M, S, A, D] and so on, of the types on disk. All of a large data set does not fit in memory.

        Raises PosebridgeError for a clip that is not there, a name that the recipe does not have, and a damaged shard.
        """
        wanted = self.clip_ids if clip_ids is None else list(clip_ids)
        found = self.reader.read(wanted, self.names if names is None else list(names))
        return {name: torch.from_numpy(array) for name, array in found.items()}

    def close(self) -> None:
        """Let go of the opened files."""
        self.reader.close()


def open_cache(
    dataset: str, recipe: str | None = None, *, project: str | Path = ".", cache_root: str | Path | None = None
) -> OpenCache:
    """Open what was extracted of a data set.

    Args:
        dataset: its name.
        recipe: the name of the recipe that extracted it; of the only one by default.
        project: the folder of params.yaml and cache/.
        cache_root: where the stores lie, if `extract` had a --cache-root.

    Raises:
        PosebridgeError: nothing or several were extracted, or what was is damaged; the sentence says what to do.
    """
    cache, manifests = Path(project) / "cache", Path(project) / "manifests"
    if recipe is None:
        there = sorted(path.parent.name for path in index_path(cache, dataset, "x").parent.parent.glob("*/index.json"))
        if len(there) != 1:
            which = f"the recipes {', '.join(there)}; name one" if there else "no recipe; run `posebridge extract`"
            raise PosebridgeError(f"The data set {dataset!r} is extracted by {which}.")
        recipe = there[0]
    reader = CacheReader(index_path(cache, dataset, recipe), Path(cache_root) if cache_root else None)
    return OpenCache(dataset, recipe, reader, dataset_folder(manifests, dataset))
