"""Training on one data set and testing on another: which classes of the two are one and the same.

Reads manifests/same_names.csv (`name,same_as`), the names that differ although the action is one. Names are compared
without case, blanks and signs, and where that finds nothing by their words without order, articles and endings: `shake
head` is `shaking head`. A class of the test data set that is a class of the training one counts as seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from snowballstemmer.english_stemmer import EnglishStemmer  # PyStemmer, where it is there, may be of other rules

from pipeline.errors import PosebridgeError
from pipeline.files.names import composed, is_file
from pipeline.files.tables import open_table

SAME_NAMES = "same_names.csv"
ARTICLES = ("a", "an", "the")
DIRECTIONS = {"to", "from", "into", "onto"}  # what stands before them is not what stands behind


@dataclass(frozen=True)
class Merged:
    """The classes of two data sets as one list: all of the test data set as it has them, then those of the training one
    that it lacks. `of_training[i]` is the place of the training data set's class i, which it calls `training_names[i]`.
    """

    class_names: tuple[str, ...]
    of_training: tuple[int, ...]
    tested: int  # how many are the test data set's
    training_names: tuple[str, ...]

    @property
    def shared(self) -> tuple[int, ...]:
        """The test data set's classes that are trained on."""
        return tuple(sorted(place for place in self.of_training if place < self.tested))

    def trained(self, place: int) -> int:
        """The training data set's index of a class that is trained on."""
        return self.of_training.index(place)


def plain(name: str) -> str:
    """A name without case, blanks and signs: `Pickup`, `pick-up` and `pick up` are one."""
    return "".join(filter(str.isalnum, composed(name).casefold())) or composed(name)


def in_words(name: str) -> str:
    """A name by its words alone, without their English endings: `Coin tossing` and `toss a coin` are one, and so are
    `box`, `boxes` and `boxing`; not `sit to stand` and `stand to sit`.
    """
    words = re.findall(r"[^\W_]+", composed(name).casefold())
    stems = EnglishStemmer().stemWords([word for word in words if word not in ARTICLES])
    return " ".join(stems if DIRECTIONS.intersection(words) else sorted(stems))


def read_same_names(path: Path) -> dict[str, str]:
    """Plain name -> the plain name that it stands for; no file, no names.

    Raises PosebridgeError, with line and column, for a name that stands for itself or for two, and for a chain.
    """
    found: dict[str, str] = {}
    if not is_file(path):
        return found
    for row in open_table(path, ("name", "same_as"), (), "write it as `name,same_as`"):
        name, same = plain(row.needed("name")), plain(row.needed("same_as"))
        if name == same:
            raise row.wrong("name", "both names are one without case, blanks and signs; take the line away")
        if found.setdefault(name, same) != same:
            raise row.wrong("name", f"{row.text('name')[:60]!r} stands for another name already; keep one")
    for row in open_table(path, ("name", "same_as")):
        if plain(row.text("same_as")) in found:
            raise row.wrong("same_as", f"{row.text('same_as')[:60]!r} stands for another name; write that one")
    return found


def merge_classes(
    dataset: str, names: Sequence[str], training: str, training_names: Sequence[str], same: Mapping[str, str]
) -> Merged:
    """Both lists as one. Raises PosebridgeError where two classes of one data set are one class of the other; where
    they would be by their words alone, neither is.
    """
    keys, training_keys = ([same.get(plain(name), plain(name)) for name in each] for each in (names, training_names))
    for key in set(keys) & set(training_keys):
        for listed, known, where in ((keys, names, dataset), (training_keys, training_names, training)):
            if listed.count(key) > 1:
                twice = " and ".join(repr(name) for name, each in zip(known, listed, strict=True) if each == key)
                raise PosebridgeError(
                    f"{twice} of {where} are one class of the other data set by their names; correct {SAME_NAMES}."
                )
    own, theirs = _by_words(names, keys, training_keys), _by_words(training_names, training_keys, keys)
    alike = {theirs[words]: own[words] for words in own.keys() & theirs.keys()}
    training_keys = [alike.get(key, key) for key in training_keys]
    place = {key: index for index, key in enumerate(keys)}
    merged, of_training = list(names), []
    for name, key in zip(training_names, training_keys, strict=True):
        of_training.append(place.get(key, len(merged)))
        if key not in place:
            merged.append(name)
    return Merged(tuple(merged), tuple(of_training), len(names), tuple(training_names))


def _by_words(names: Sequence[str], keys: Sequence[str], others: Sequence[str]) -> dict[str, str]:
    """Words -> key of the names that the `others` lack, as far as only one name has these words."""
    found: dict[str, list[str]] = {}
    there = set(others)
    for name, key in zip(names, keys, strict=True):
        if key not in there:
            found.setdefault(in_words(name), []).append(key)
    return {words: own[0] for words, own in found.items() if words and len(own) == 1}
