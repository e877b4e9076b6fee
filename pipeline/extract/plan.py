"""What an extraction goes by: a recipe that can be followed, and where the rows of a data set come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.cache.store import row_hash
from pipeline.errors import PosebridgeError
from pipeline.extract.ground_truth import GroundTruth
from pipeline.files.names import place_of
from pipeline.hpe.factory import check_backend
from pipeline.manifest.clips import Clip
from pipeline.recipe import Recipe
from pipeline.skeleton.graph import graph_of
from pipeline.video.identity import VideoRecord, identify


@dataclass(frozen=True)
class Source:
    """Where rows come from: the data set's root, the recipe, and the ground truth where the recipe uses it."""

    root: Path
    recipe: Recipe
    truth: GroundTruth | None

    def row_hash(self, clip: Clip) -> str:
        """See `store.row_hash`; ground truth counts where it is used."""
        return row_hash(clip, self.truth.content_hash(clip.clip_id) if self.truth else "")

    def failure_hash(self, clip: Clip) -> str:
        """As `row_hash`, with what ingest saw of the video: a failure is tried again when that has changed."""
        return row_hash(clip, str([self.row_hash(clip), clip.sha256, clip.fps, clip.frames, clip.height, clip.width]))

    def look(self, path: str, former: VideoRecord | None) -> VideoRecord:
        """A video as it is now. What the cache has of it outlives it: one that is gone, or cannot be read at the
        moment, keeps its record.
        """
        record = identify(place_of(self.root, path), former)
        return former if former and former.identity and not record.identity else record

    def glance(self, path: str, former: VideoRecord | None) -> VideoRecord:
        """As `look`, but of a video that the cache does not know nothing is read: for a plan it is enough that it is
        there.
        """
        if former is not None:
            return self.look(path, former)
        try:
            status = place_of(self.root, path).stat()
        except (OSError, ValueError):
            return self.look(path, None)
        return VideoRecord("", status.st_size, status.st_mtime_ns)


def check_recipe(recipe: Recipe) -> None:
    """Raise PosebridgeError for a recipe that no extraction can follow."""
    if recipe.backend == "import":
        raise PosebridgeError(
            "A recipe with `backend: import` has no videos to extract; fill it with `posebridge cache import FILE`."
        )
    if recipe.backend == "features":
        raise PosebridgeError(
            "`posebridge cache import-features` writes recipes with `backend: features` itself; take this one out of "
            "params.yaml."
        )
    if recipe.needs_videos:
        check_backend(recipe)
    graph_of(recipe.layout)
    if recipe.cues != "none" and recipe.layout != "coco17":
        raise PosebridgeError(
            f"The anchors of cues are made of the joints of coco17, and the recipe's layout is {recipe.layout!r}; set "
            "`cues: none`."
        )
    if recipe.backend == "ground_truth" and recipe.cues != "none":
        raise PosebridgeError("A recipe with `backend: ground_truth` has no cues; set `cues: none` in params.yaml.")


def open_ground_truth(root: Path, recipe: Recipe) -> GroundTruth | None:
    """The ground truth of a data set where the recipe takes boxes or skeletons from it, else None."""
    wanted = recipe.backend == "ground_truth" or recipe.boxes == "manifest"
    return GroundTruth(root / "ground_truth.h5") if wanted else None
