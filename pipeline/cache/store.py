"""The write-once store of one recipe over one data set.

`<root>/<dataset>/<slug>-<fingerprint12>/` holds recipe.json, layout.json, the sealed shards and one receipt a shard.
The receipt is the commit point: a shard that no receipt names does not exist. Nothing is ever opened again for writing.
"""

from __future__ import annotations

import hashlib
import json
import math
import socket
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pipeline.cache.provenance import git_commit, versions
from pipeline.cache.schema import SCHEMA, Column, columns
from pipeline.cache.sealed import canonical_json, read_sealed, remove_abandoned, seal
from pipeline.durable import write_durably
from pipeline.errors import PosebridgeError
from pipeline.manifest import Clip
from pipeline.recipe import Recipe
from pipeline.video.identity import VideoRecord


@dataclass(frozen=True)
class Layout:
    """Fixed when the store is made: the number of shards, and the widths that the recipe leaves to the pose model."""

    shards: int
    joints: int  # V
    cue_width: int  # D; 0 without cues
    schema: int = SCHEMA


@dataclass(frozen=True)
class Failure:
    """A clip that could not be extracted. `stage` is open, sample or decode."""

    clip_id: str
    stage: str
    reason: str


@dataclass(frozen=True)
class Receipt:
    """What a shard consists of.

    `clips` maps each clip in the file, and `failed` each failed one, to a hash of its manifest row; `videos` maps
    paths to records. A shard without clips has no file: `file` and `sha256` are then empty.
    """

    shard: int
    fingerprint: str
    rows_sha256: str
    clips: dict[str, str]
    failed: dict[str, str]
    failures: tuple[Failure, ...]
    videos: dict[str, VideoRecord]
    file: str = ""
    sha256: str = ""
    bytes: int = 0
    versions: dict[str, str] = field(default_factory=versions)
    commit: str = field(default_factory=git_commit)
    host: str = field(default_factory=socket.gethostname)
    time: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))


def row_hash(clip: Clip, context: str = "") -> str:
    """Hash of what the result for a clip depends on beside its video and the recipe.

    A new label or split does not touch the cache. `context` is a hash of what else goes in: its ground truth, say.
    """
    return hashlib.sha256(canonical_json([clip.clip_id, clip.path, clip.start, clip.end, context])).hexdigest()[:16]


def rows_hash(hashes: Iterable[str]) -> str:
    """Hash of the rows of one shard, whatever their order."""
    return hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()


def slug(recipe: Recipe) -> str:
    """The readable half of the folder's name."""
    if recipe.backend == "ground_truth":
        return "ground-truth"
    if recipe.backend == "import":
        return f"import-{recipe.layout}-{recipe.dimensions}d"
    return f"{Path(recipe.config).stem.split('_')[0] or recipe.backend}-{recipe.cues}"


class Store:
    """The folder of one (data set, recipe). Making the object reads nothing and writes nothing."""

    def __init__(self, root: Path, dataset: str, recipe: Recipe):
        self.recipe = recipe
        self.folder = root / dataset / f"{slug(recipe)}-{recipe.fingerprint[:12]}"
        self.remedy = f"delete it and run `posebridge extract --dataset {dataset.replace('@', ' --variant ')}` again"

    def layout(self) -> Layout | None:
        """The layout, or None while the store does not exist. Raises PosebridgeError for one of another schema."""
        path = self.folder / "layout.json"
        if not path.is_file():
            return None
        values = json.loads(path.read_bytes())
        if values.get("schema") != SCHEMA or set(values) != {f.name for f in fields(Layout)}:
            raise PosebridgeError(f"{path} is of another schema than {SCHEMA}; delete {self.folder} and extract again.")
        return Layout(**values)

    def create(self, clips: int, clips_per_shard: int, joints: int, cue_width: int) -> Layout:
        """The store's layout, made now where there is none yet."""
        if (layout := self.layout()) is None:
            layout = plan_layout(clips, clips_per_shard, joints, cue_width)
            self.folder.mkdir(parents=True, exist_ok=True)
            write_durably(self.folder / "recipe.json", self.recipe.canonical_json().encode())
            write_durably(self.folder / "layout.json", canonical_json(asdict(layout)))
        elif (layout.joints, layout.cue_width) != (joints, cue_width):
            raise PosebridgeError(
                f"{self.folder} holds {layout.joints} joints and cues of width {layout.cue_width}, but the pose model "
                f"yields {joints} and {cue_width}; raise the recipe's `algorithm`."
            )
        remove_abandoned(self.folder)
        return layout

    def columns(self, layout: Layout, text_widths: dict[str, int] | None = None) -> tuple[Column, ...]:
        """The datasets of this store's shards."""
        return columns(self.recipe, layout.joints, layout.cue_width, text_widths)

    def stem(self, shard: int) -> Path:
        """`shard-00017` in this folder."""
        return self.folder / f"shard-{shard:05d}"

    def commit(self, receipt: Receipt) -> None:
        """Write a receipt; from then on its shard exists."""
        write_durably(self.stem(receipt.shard).with_suffix(".json"), canonical_json(seal(asdict(receipt))))

    def receipt(self, shard: int) -> Receipt | None:
        """The receipt of a shard; None where it is missing, damaged or of another recipe: the shard is then made."""
        path = self.stem(shard).with_suffix(".json")
        try:
            return self.read_receipt(path) if path.is_file() else None
        except PosebridgeError:
            return None

    def read_receipt(self, path: Path) -> Receipt:
        """Read and check a receipt. Raises PosebridgeError for a damaged or foreign one."""
        values = read_sealed(path, self.remedy)
        del values["self_sha256"]
        if set(values) != {f.name for f in fields(Receipt)}:
            raise PosebridgeError(f"{path} is not a receipt of schema {SCHEMA}; {self.remedy}.")
        if values["fingerprint"] != self.recipe.fingerprint or path != self.stem(values["shard"]).with_suffix(".json"):
            raise PosebridgeError(f"{path} is the receipt of another shard or recipe; {self.remedy}.")
        values["failures"] = tuple(Failure(**failure) for failure in values["failures"])
        values["videos"] = {video: VideoRecord(**record) for video, record in values["videos"].items()}
        return Receipt(**values)

    def has_file(self, receipt: Receipt) -> bool:
        """Whether the receipt's shard is there in its full size."""
        if not receipt.file:
            return not receipt.clips
        path = self.folder / receipt.file
        return path.is_file() and path.stat().st_size == receipt.bytes


def recipe_of(values: dict[str, Any]) -> Recipe:
    """A recipe from its canonical JSON; `weights` is empty, since only their hash is kept."""
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return Recipe(**plain | {"weights": ""})


def open_store(folder: Path) -> Store:
    """The store in an existing folder. Raises PosebridgeError where its recipe does not fit its name."""
    path, remedy = folder / "recipe.json", f"delete {folder} and extract again"
    try:
        recipe = recipe_of(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PosebridgeError(f"{path} cannot be read ({type(error).__name__}); {remedy}.") from None
    store = Store(folder.parent.parent, folder.parent.name, recipe)
    if store.folder != folder:
        raise PosebridgeError(f"{path} is not the recipe that its folder is named after; {remedy}.")
    return store


def plan_layout(clips: int, clips_per_shard: int, joints: int, cue_width: int) -> Layout:
    """The layout of a new store: about `clips_per_shard` clips a shard."""
    return Layout(max(1, math.ceil(clips / clips_per_shard)), joints, cue_width)


def shard_of(video_path: str, shards: int) -> int:
    """The shard of a video, by its path in the manifest: all segments of one video are together."""
    return int.from_bytes(hashlib.sha256(video_path.encode()).digest()[:8]) % shards
