"""A data set to test on beside another one to train on, as one data set: what a protocol with `# Trains on:` asks for.

Of the training data set there are its train clips, under `<data set>:<clip_id>`, with its descriptions; of the test
data set its test clips, and descriptions of its unseen classes. A recipe is one name that both were extracted by, or
`<recipe of the training data set>+<recipe of the test data set>`. Of one recipe everything is read as it is. Of two,
skeletons are read in the common form (skeleton/common.py), and there are no cues. Reads what dataset.py reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch

from pipeline.cache.index import index_path
from pipeline.cache.reader import CacheReader
from pipeline.errors import PosebridgeError
from pipeline.files.hashing import fingerprint
from pipeline.files.names import is_file
from pipeline.learn.dataset import Dataset, open_dataset
from pipeline.manifest.clips import Clip
from pipeline.protocol.across import Merged
from pipeline.protocol.exposure import require_unexposed
from pipeline.protocol.splits import Split, read_split, trains_on
from pipeline.recipe import EXPOSURES, Recipe
from pipeline.skeleton.common import Form, comparable, sources
from pipeline.skeleton.graph import COMMON, graph_of
from pipeline.text.bank import TextBank

SKELETONS = ("keypoints", "scores", "person_valid")
DESCRIPTIONS = ("label", "one_line", "global")  # slots that no two actions share
EQUAL = 1 - 1e-5  # cosine of the vectors of one text, whatever else was embedded beside it


@dataclass(frozen=True)
class Across(Dataset):
    """The test data set, under its own name, with the clips, classes and texts that its protocol trains on."""

    test: Dataset = field(kw_only=True)
    training: Dataset = field(kw_only=True)
    crossed: Split = field(kw_only=True)
    repeats: int = field(kw_only=True)  # test clips of seen classes that are train clips, left out of the test

    def split(self, protocol: str) -> Split:
        return self.crossed if protocol == self.crossed.protocol else self.test.split(protocol)

    def of(self, recipe: str) -> Dataset:
        return self

    @property
    def trains_on(self) -> str:
        return self.training.name

    def trained_by(self, recipe: str) -> str:
        return self._recipes(recipe)[0]

    def reader(self, recipe: str) -> CacheReader:
        """Both extractions as one, with all that stage two asks of a reader. Raises PosebridgeError as its parts do,
        and where they are not comparable.
        """
        trained, tested = self._recipes(recipe)
        told = f"{trained} of {self.training.name} and {tested} of {self.name}"
        both = self.training.reader(trained), self.test.reader(tested)
        return AcrossReader(*both, prefix_of(self.training.name), told)  # type: ignore[return-value]

    def bank(self, encoder: str) -> TextBank:
        """The training data set's texts for all that is seen, and the test data set's for what is unseen.

        Raises PosebridgeError where an unseen class is described as one that is trained on: the same action.
        """
        tested, trained = self.test.bank(encoder), self.training.bank(encoder)
        if tested.encoder_sha256 != trained.encoder_sha256 or tested.embeddings.shape[2] != trained.embeddings.shape[2]:
            raise PosebridgeError(
                f"The text banks of {self.name} and {self.training.name} are of two encoders named {encoder}; run "
                f"`posebridge text --encoder {encoder}` for both again."
            )
        slots = tuple(slot for slot in tested.slots if slot in trained.slots)
        own, other = ([bank.slots.index(slot) for slot in slots] for bank in (tested, trained))
        width, merged = tested.embeddings.shape[2], self._merged
        embeddings = torch.zeros(len(self.class_names), len(slots), width)
        mask = torch.zeros(len(self.class_names), len(slots), dtype=torch.bool)
        unseen, seen = list(self.crossed.unseen), list(merged.of_training)
        embeddings[unseen], mask[unseen] = tested.embeddings[unseen][:, own], tested.mask[unseen][:, own]
        embeddings[seen], mask[seen] = trained.embeddings[:, other], trained.mask[:, other]
        for column in (column for column, slot in enumerate(slots) if slot in DESCRIPTIONS):
            alike = embeddings[unseen, column] @ embeddings[seen, column].T > EQUAL  # [U, S]; an absent text is 0
            if bool(alike.any()):
                row, place = (int(i) for i in alike.nonzero()[0])
                raise PosebridgeError(
                    f"{self.class_names[unseen[row]]!r} of {self.name} should be unseen, but its {slots[column]} is "
                    f"that of {self.training.class_names[place]!r} of {self.training.name}, which "
                    f"{self.crossed.protocol} trains on; count both as one action in manifests/same_names.csv, or "
                    "describe them differently."
                )
        both = fingerprint(tested.texts_sha256, trained.texts_sha256)
        return replace(
            tested, embeddings=embeddings, mask=mask, slots=slots, class_names=self.class_names, texts_sha256=both
        )

    def texts(self, variant: str) -> tuple[tuple[str, ...], dict[tuple[int, str], str]]:
        """As `bank` puts them together."""
        (slots, own), (others, trained) = self.test.texts(variant), self.training.texts(variant)
        unseen, of_training = set(self.crossed.unseen), self._merged.of_training
        found = {(of_training[c], slot): text for (c, slot), text in trained.items()}
        found |= {(c, slot): text for (c, slot), text in own.items() if c in unseen}
        return tuple(slot for slot in slots if slot in others), found

    def require_unexposed(self, said: str, recipe: str, split: Split) -> None:
        """Nor of classes of the training data set that play unseen in the selection phase."""
        self.test.require_unexposed(said, recipe, split)
        own = tuple(self._merged.trained(place) for place in split.validation)
        theirs = Split(split.protocol, self.training.class_names, (), own)
        require_unexposed(said, recipe, self.training.name, theirs, self.training.split)

    @property
    def told(self) -> dict[str, object]:
        names = [self.class_names[place] for place in self._merged.shared]
        return {
            "training_dataset": self.training.name,
            "overlapping_classes": names,
            "overlapping_clips": self.repeats,
        }

    @property
    def _merged(self) -> Merged:
        return merged_of(self.crossed)

    def _recipes(self, recipe: str) -> tuple[str, str]:
        """The names of the training and of the test data set's recipe. A variant is one of test clips alone."""
        tested = recipe
        if not is_file(index_path(self.cache, self.name, recipe)) and "+" in recipe:
            recipe, _, tested = recipe.partition("+")
        if recipe == tested and not is_file(index_path(self.training.cache, self.training.name, recipe)):
            recipe = recipe.rpartition("@")[0] or recipe
        return recipe, tested


def merged_of(split: Split) -> Merged:
    """The classes of a split of two data sets."""
    assert split.merged is not None, "it trains on another data set"
    return split.merged


def prefix_of(training: str) -> str:
    """What the ids of train clips begin with."""
    return f"{training}:"


def under(dataset: Dataset, protocol: str) -> Dataset:
    """The data set as a protocol of it asks for: itself, or `Across` where it trains on another one.

    Raises PosebridgeError for a protocol that cannot be, and for a clip of an unseen class that is a train clip.
    """
    if isinstance(dataset, Across):
        if dataset.crossed.protocol == protocol:
            return dataset
        dataset = dataset.test
    folder = dataset.folder / "protocols"
    name = trains_on(folder, protocol)
    if not name or not dataset.class_names:
        return dataset
    split = read_split(folder, protocol, dataset.class_names)
    training = open_dataset(
        name, dataset.manifests, dataset.cache, dataset.store_root, strict=False, verify=dataset.verify
    )
    return beside(dataset, training, split)


def beside(test: Dataset, training: Dataset, split: Split) -> Across:
    """Both as one. Raises PosebridgeError as `join_clips` does."""
    clips, repeats = join_clips(test.clips, training.clips, split)
    own = {f.name: getattr(test, f.name) for f in fields(Dataset)}
    own |= {"class_names": split.class_names, "clips": clips, "missing": (*test.missing, *training.missing)}
    return Across(**own, test=test, training=training, crossed=split, repeats=repeats)


def join_clips(test: Sequence[Clip], training: Sequence[Clip], split: Split) -> tuple[tuple[Clip, ...], int]:
    """Train clips of one data set and test clips of the other, their labels those of the split, and how many test clips
    were left out: of a seen class, and train clips by their id and class or by their content (NTU-60 is a part of
    NTU-120).

    Raises PosebridgeError for an unseen class's clip that is a train clip by its content, and for one that bears such a
    name.
    """
    merged, prefix = merged_of(split), prefix_of(split.trains_on)
    learnt: list[Clip] = []
    named: dict[str, int] = {}  # id -> class
    shown: dict[str, str] = {}  # content -> id
    for clip in training:
        if clip.trains and clip.label is not None:
            label = named[clip.clip_id] = merged.of_training[clip.label]
            if clip.sha256:
                shown[clip.sha256] = clip.clip_id
            learnt.append(replace(clip, clip_id=prefix + clip.clip_id, label=label, part="train"))
    tested, repeats, unseen = [], 0, set(split.unseen)
    for clip in test:
        if not clip.tests or clip.label is None:
            continue
        if clip.clip_id.startswith(prefix):
            raise PosebridgeError(
                f"The test clip {clip.clip_id} is named like a train clip of {split.trains_on}, which {split.protocol} "
                "trains on; give it another name in clips.csv."
            )
        same = shown.get(clip.sha256)
        if same and clip.label in unseen:
            raise PosebridgeError(
                f"The test clip {clip.clip_id} of the unseen class {split.class_names[clip.label]!r} is the video of "
                f"{same} in {split.trains_on}, which {split.protocol} trains on; take it out of one of the two "
                "clips.csv."
            )
        if same or named.get(clip.clip_id) == clip.label:
            repeats += 1
        else:
            tested.append(clip if clip.part == "test" else replace(clip, part="test"))
    return (*learnt, *tested), repeats


class AcrossReader:
    """Two extractions as one, with what stage two asks of a CacheReader. `told` names both.

    Raises PosebridgeError where the skeletons of two recipes cannot be brought into one form.
    """

    def __init__(self, trained: CacheReader, tested: CacheReader, prefix: str, told: str) -> None:
        self._sides, self._prefix = (trained, tested), prefix
        self.one = trained.fingerprint == tested.fingerprint
        recipes = trained.recipe, tested.recipe
        if "features" in (recipe.backend for recipe in recipes):
            raise PosebridgeError(
                f"Of {told} one is imported features, which come from an encoder of one data set; name recipes of "
                "skeletons."
            )
        self.recipe, self.names = tested.recipe, tested.names
        self.fingerprint, self.cue_width = tested.fingerprint, tested.cue_width
        if not self.one:
            self.recipe, self.names, self.cue_width = _common(*recipes), SKELETONS, 0
            self.fingerprint = fingerprint(trained.fingerprint, tested.fingerprint, COMMON)
        self.clip_ids = [*(prefix + clip_id for clip_id in trained.clip_ids), *tested.clip_ids]
        self.failures = tested.failures

    def read(
        self, clip_ids: Sequence[str], names: Sequence[str], persons: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """As CacheReader's; of two recipes, in the common form."""
        if not self.one and (lacking := [name for name in names if name not in SKELETONS]):
            raise PosebridgeError(f"There is no {lacking[0]!r} of two recipes, only {', '.join(SKELETONS)}.")
        of_training = np.array([clip_id.startswith(self._prefix) for clip_id in clip_ids], bool)
        parts = []
        for side, mine in enumerate((of_training, ~of_training)):
            if mine.any():
                own = [
                    clip_ids[row].removeprefix("" if side else self._prefix) for row in np.flatnonzero(mine).tolist()
                ]
                parts.append((mine, self._read(side, own, names, None if persons is None else persons[mine])))
        if len(parts) == 1:
            return parts[0][1]
        found = {}
        for name in names:
            first = parts[0][1][name]
            found[name] = np.empty((len(clip_ids), *first.shape[1:]), first.dtype)
            for mine, arrays in parts:
                found[name][mine] = arrays[name]
        return found

    def _read(
        self, side: int, clip_ids: Sequence[str], names: Sequence[str], persons: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        reader, other = self._sides[side], self._sides[1 - side]
        if self.one:
            return reader.read(clip_ids, names, persons)
        arrays = reader.read(clip_ids, SKELETONS)
        layout, joints = reader.recipe.layout, arrays["keypoints"].shape[3]
        if joints != (wanted := len(graph_of(layout).joints)):
            raise PosebridgeError(
                f"The cached skeletons have {joints} joints, but their recipe's layout {layout} has {wanted}; extract "
                "them with a pose model of these joints."
            )
        keypoints, scores, valid = (arrays[name] for name in SKELETONS)
        form = Form(self.recipe.dimensions, self.recipe.persons, self.recipe.frames)
        values = comparable(keypoints, scores, valid, layout, other.recipe.layout, form)
        return dict(zip(SKELETONS, values, strict=True))


def _common(trained: Recipe, tested: Recipe) -> Recipe:
    """The recipe of the common form of two: persons and frames are those of what is trained on."""
    for recipe in (trained, tested):
        sources(recipe.layout)
    return replace(
        tested, layout=COMMON, dimensions=min(trained.dimensions, tested.dimensions), persons=trained.persons,
        frames=trained.frames, cues="none", hpe_text=max(trained.hpe_text, tested.hpe_text, key=EXPOSURES.index),
    )  # fmt: skip
