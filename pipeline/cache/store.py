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
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter

from pipeline.cache.checksums import Checksums
from pipeline.cache.provenance import git_commit, versions
from pipeline.cache.schema import SCHEMA, Column, columns
from pipeline.cache.sealed import SEALED_STAY, canonical_json, read_sealed, remove_abandoned, seal, typed
from pipeline.errors import PosebridgeError
from pipeline.files.durable import make_folder, write_durably, write_once, writing
from pipeline.files.names import is_file
from pipeline.manifest.clips import Clip
from pipeline.manifest.failure import Failure
from pipeline.recipe import POSE, Recipe
from pipeline.video.identity import VideoRecord

MAX_SHARDS = 100_000  # numbers of five digits
CLOSED = ConfigDict(extra="forbid")
LATER = {"computed", "seconds", "estimated"}  # what receipts of earlier versions lack
Sha256 = Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]


@dataclass(frozen=True)
class Layout:
    """Fixed when the store is made: the number of shards, and the widths that the recipe leaves to the pose model."""

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED

    shards: Annotated[int, Field(ge=1, le=MAX_SHARDS)]
    joints: Annotated[int, Field(ge=1, le=10_000)]  # V
    cue_width: Annotated[int, Field(ge=0, le=1 << 20)]  # D; 0 without cues
    schema: int = SCHEMA


@dataclass(frozen=True)
class Receipt:
    """What a shard consists of.

    `clips` maps each clip in the file, and `failed` each failed one, to a hash of its manifest row; `videos` maps
    paths to records. A shard without clips has no file: `file` and `sha256` are then empty, and it has no checksums.
    `computed` says on what device and in what precision its clips were estimated the last time that some were; it is
    empty where no pose model was asked, and in receipts of earlier versions. `seconds` are those that its clips and
    those of the predecessors that it copies took, `estimated` how many clips that were: see extract/stopwatch.py; they
    stand here and not in the shard, whose bytes are the same on every machine.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED

    shard: int
    fingerprint: Sha256
    rows_sha256: Sha256
    clips: dict[str, str]
    failed: dict[str, str]
    failures: tuple[Failure, ...]
    videos: dict[str, VideoRecord]
    file: str = ""
    sha256: Sha256 = ""
    bytes: Annotated[int, Field(ge=0)] = 0
    checksums: Checksums | None = None
    computed: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, Annotated[float, Field(ge=0)]] = field(default_factory=dict)
    estimated: Annotated[int, Field(ge=0)] = 0
    versions: dict[str, str] = field(default_factory=versions)
    commit: str = field(default_factory=git_commit)
    host: str = field(default_factory=socket.gethostname)
    time: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))


def row_hash(clip: Clip, context: str = "") -> str:
    """Hash of what the result for a clip depends on beside its video and the recipe.

    A new label or split does not touch the cache. `context` is a hash of what else goes in: its ground truth, say.
    """
    parts = [clip.clip_id, clip.path, clip.start, clip.end, context]
    if clip.image_fps:
        parts.append(clip.image_fps)
    return hashlib.sha256(canonical_json(parts)).hexdigest()[:16]


def rows_hash(hashes: Iterable[str]) -> str:
    """Hash of the rows of one shard, whatever their order."""
    return hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()


def slug(recipe: Recipe) -> str:
    """The readable half of the folder's name."""
    if recipe.backend == "ground_truth":
        return "ground-truth"
    if recipe.backend == "import":
        return f"import-{recipe.layout}-{recipe.dimensions}d"
    if recipe.backend == "features":
        return f"features-{recipe.layout}"
    whose = "" if recipe.cues_from == POSE else f"{recipe.cues_from}-"
    return f"{Path(recipe.config).stem.split('_')[0] or recipe.backend}-{whose}{recipe.cues}"


class Store:
    """The folder of one (data set, recipe). Making the object reads nothing and writes nothing."""

    def __init__(self, root: Path, dataset: str, recipe: Recipe):
        self.recipe = recipe
        self.folder = root / dataset / f"{slug(recipe)}-{recipe.fingerprint[:12]}"
        self.remedy = f"delete it and run `posebridge extract --dataset {dataset.replace('@', ' --variant ')}` again"

    def layout(self) -> Layout | None:
        """The layout, or None while the store does not exist. Raises PosebridgeError for a damaged or lost one.

        It decides which shard a clip belongs to: with another one, nearly all clips would be estimated again.
        """
        path = self.folder / "layout.json"
        remedy = f"bring it back from a copy (`dvc pull`, say), or delete {self.folder} and extract again"
        numbers = [int(found.name[6:11]) for found in self.folder.glob("shard-[0-9][0-9][0-9][0-9][0-9].json")]
        if not path.exists() and not numbers:
            return None
        values = read_sealed(path, remedy)
        if values.get("schema") != SCHEMA:
            raise PosebridgeError(f"{path} is of another schema than {SCHEMA}; delete {self.folder} and extract again.")
        layout = typed(LAYOUT, values, path, remedy)
        if max(numbers, default=0) >= layout.shards:
            raise PosebridgeError(f"{path} tells of {layout.shards} shards, but there are receipts of more; {remedy}.")
        return layout

    def create(self, clips: int, clips_per_shard: int, joints: int, cue_width: int) -> Layout:
        """The store's layout, made now where there is none yet. Raises PosebridgeError as `layout` and the disk do."""
        if (layout := self.layout()) is None:
            layout = replace(plan_layout(clips, clips_per_shard), joints=joints, cue_width=cue_width)
            make_folder(self.folder)
            recipe = json.loads(self.recipe.canonical_json())
            write_durably(self.folder / "recipe.json", canonical_json(seal(recipe)))
            write_once(self.folder / "layout.json", canonical_json(seal(asdict(layout))))
            layout = self.layout() or layout  # another's, where it came first
        if (layout.joints, layout.cue_width) != (joints, cue_width):
            raise PosebridgeError(
                f"{self.folder} holds {layout.joints} joints and cues of width {layout.cue_width}, but the pose model "
                f"yields {joints} and {cue_width}; raise the recipe's `algorithm`."
            )
        with writing(self.folder):
            remove_abandoned(self.folder)
        return layout

    def columns(self, layout: Layout, text_widths: dict[str, int] | None = None) -> tuple[Column, ...]:
        """The datasets of this store's shards."""
        return columns(self.recipe, layout.joints, layout.cue_width, text_widths)

    def stem(self, shard: int) -> Path:
        """`shard-00017` in this folder."""
        return self.folder / f"shard-{shard:05d}"

    def lease(self, shard: int) -> Path:
        """Where the lease of a shard lies; see cache/lease.py."""
        return self.stem(shard).with_suffix(".lease")

    def commit(self, receipt: Receipt) -> None:
        """Write a receipt; from then on its shard exists."""
        content = canonical_json(seal(asdict(receipt)))
        write_durably(self.stem(receipt.shard).with_suffix(".json"), content, SEALED_STAY)

    def receipt(self, shard: int) -> Receipt | None:
        """The receipt of a shard; None where it is missing, damaged or of another recipe: the shard is then made."""
        path = self.stem(shard).with_suffix(".json")
        try:
            return self.read_receipt(path) if path.is_file() else None
        except PosebridgeError:
            return None

    def receipts(self, layout: Layout | None) -> list[Receipt]:
        """Those of all shards that are sealed; none where there is no layout yet."""
        shards = layout.shards if layout else 0
        return [receipt for shard in range(shards) if (receipt := self.receipt(shard))]

    def read_receipt(self, path: Path) -> Receipt:
        """Read and check a receipt. Raises PosebridgeError for a damaged or foreign one."""
        values = read_sealed(path, self.remedy)
        if set(values) | LATER != {field.name for field in fields(Receipt)}:
            raise PosebridgeError(f"{path} is not a receipt of schema {SCHEMA}; {self.remedy}.")
        receipt = typed(RECEIPT, values, path, self.remedy)
        if receipt.fingerprint != self.recipe.fingerprint or path != self.stem(receipt.shard).with_suffix(".json"):
            raise PosebridgeError(f"{path} is the receipt of another shard or recipe; {self.remedy}.")
        if receipt.file != (shard_name(receipt.shard, receipt.sha256) if receipt.clips else ""):
            raise PosebridgeError(f"{path} names a file that is not its shard; {self.remedy}.")
        if bool(receipt.file) != (receipt.checksums is not None) or set(receipt.failed) != {
            failure.clip_id for failure in receipt.failures
        }:
            raise PosebridgeError(f"{path} contradicts itself; {self.remedy}.")
        return receipt

    def has_file(self, receipt: Receipt) -> bool:
        """Whether the receipt's shard is there in its full size."""
        if not receipt.file:
            return not receipt.clips
        path = self.folder / receipt.file
        return is_file(path) and path.stat().st_size == receipt.bytes


LAYOUT, RECEIPT = TypeAdapter(Layout), TypeAdapter(Receipt)
RECIPE = TypeAdapter(Recipe)


def recipe_of(values: Any, path: Path, remedy: str) -> Recipe:
    """A recipe from its canonical JSON; `weights` is empty, since only their hash is kept.

    Raises PosebridgeError, naming `path`, where it is none.
    """
    try:
        typed(RECIPE, values, path, remedy)
        # Not what `typed` makes: 1 and 1.0 have different fingerprints.
        plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return Recipe(**plain | {"weights": ""})
    except PosebridgeError as error:
        if str(path) in str(error):
            raise
        raise PosebridgeError(f"{path} is not as it should be: {error} To mend it, {remedy}.") from None
    except TypeError:
        raise PosebridgeError(f"{path} is the recipe of another version of this program; {remedy}.") from None


def open_store(folder: Path) -> Store:
    """The store in an existing folder. Raises PosebridgeError where its recipe does not fit its name."""
    path, remedy = folder / "recipe.json", f"delete {folder} and extract again"
    store = Store(folder.parent.parent, folder.parent.name, recipe_of(read_sealed(path, remedy), path, remedy))
    if store.folder != folder:
        raise PosebridgeError(f"{path} is not the recipe that its folder is named after; {remedy}.")
    return store


def shard_name(shard: int, sha256: str) -> str:
    """`shard-00017-<sha12>.h5`."""
    return f"shard-{shard:05d}-{sha256[:12]}.h5"


def plan_layout(clips: int, clips_per_shard: int) -> Layout:
    """The layout of a new store, but for its widths: about `clips_per_shard` clips a shard."""
    return Layout(min(MAX_SHARDS, max(1, math.ceil(clips / clips_per_shard))), 1, 0)


def shard_of(video_path: str, shards: int) -> int:
    """The shard of a video, by its path in the manifest: all segments of one video are together."""
    return int.from_bytes(hashlib.sha256(video_path.encode()).digest()[:8]) % shards
