"""What a probe asks of clips: the value that each has of an attribute, and the group of clips that it belongs to.

Reads manifests/<dataset>/attributes.csv (columns by class) and clips.csv (columns by clip, ours and people's own).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.files.tables import open_table
from pipeline.gap.linear import FOLDS, grouped_folds
from pipeline.learn.dataset import Dataset
from pipeline.manifest.clips import MOST_CLASSES, read_with_others

CLASS, VIDEO = "class", "path"  # the attribute where none is named; the group where clips have no subject
BY_CLIP = ("subject", "camera", "part", "path")  # columns of clips.csv that tell clips apart by what is in them


@dataclass(frozen=True)
class Question:
    """`answers` [N] are places in `values`, `folds` [N] those in which whole `groups` are held out.

    `left_out` says of what clips nothing is asked, a sentence a reason.
    """

    attribute: str
    grouped_by: str
    clip_ids: tuple[str, ...]
    values: tuple[str, ...]
    answers: np.ndarray
    groups: tuple[str, ...]
    folds: np.ndarray
    left_out: tuple[str, ...]

    def count(self) -> dict[str, int]:
        """Clips of every value."""
        counts = np.bincount(self.answers, minlength=len(self.values))
        return dict(zip(self.values, counts.tolist(), strict=True))


def ask(
    dataset: Dataset, shard_of: Mapping[str, int], attribute: str = CLASS, grouped_by: str = "",
    values: Collection[str] = (), most: int = 1000, seed: int = 0,
) -> Question:  # fmt: skip
    """Ask for the attribute of clips that were extracted.

    Args:
        shard_of: the clips of the cache, with their shards.
        attribute: a column of attributes.csv or clips.csv, or `class`.
        grouped_by: another such column; empty takes the subject where every clip has one, else the source video.
        values: only these of the attribute; empty takes all.
        most: of more clips so many are asked about, drawn by `seed` in whole shards: a shard holds what the hash of the
            video's path puts into it, which is chance.

    Raises PosebridgeError, in one sentence, for a column that is not there, and where nothing can be learnt and asked:
    an attribute that is constant or has no value in two folds, fewer groups than folds, a clip without a group.
    """
    clips = [clip for clip in dataset.clips if clip.clip_id in shard_of]
    if not clips:
        raise PosebridgeError(
            f"No clip of {dataset.folder / 'clips.csv'} is in the cache; run `posebridge extract` for this recipe."
        )
    value_of = _column(dataset, attribute)
    if not any(value_of.values()):
        raise PosebridgeError(f"The attribute {attribute!r} of {dataset.name} is empty; fill the column.")
    if unknown := sorted(set(values) - set(value_of.values())):
        have = ", ".join(sorted(set(value_of.values()) - {""})[:20])
        raise PosebridgeError(f"No clip has {unknown[0]!r} for {attribute}; there are {have}.")
    wanted = [c.clip_id for c in clips if value_of[c.clip_id] and (not values or value_of[c.clip_id] in values)]
    blank = sum(not value_of[clip.clip_id] for clip in clips)
    left_out = [f"{blank} clips without a value of {attribute}"] if blank else []
    if len({value_of[clip_id] for clip_id in wanted}) < 2:
        raise PosebridgeError(
            f"All {len(wanted)} clips have the same value of {attribute}, {value_of[wanted[0]]!r}, so there is nothing "
            "to tell apart; name another --attribute."
        )
    drawn = _draw(wanted, shard_of, most, seed)
    if len(drawn) < len(wanted):
        left_out.append(f"{len(wanted) - len(drawn)} of {len(wanted)} clips, which the draw of seed {seed} did not hit")
    grouped_by = grouped_by or ("subject" if all(clip.subject for clip in clips) else VIDEO)
    group_of = _column(dataset, grouped_by)
    if lost := next((clip_id for clip_id in drawn if not group_of[clip_id]), None):
        raise PosebridgeError(
            f"The clip {lost!r} has no {grouped_by}, so nobody knows what is to be held out with it; fill the column, "
            "or name another with --groups."
        )
    groups = [group_of[clip_id] for clip_id in drawn]
    if len(set(groups)) < FOLDS:
        raise PosebridgeError(
            f"The {len(drawn)} clips are of {len(set(groups))} groups by {grouped_by}, and {FOLDS} folds hold out at "
            "least one each; name another column with --groups."
        )
    return _question(attribute, grouped_by, drawn, [value_of[clip_id] for clip_id in drawn], groups, left_out)


def _question(
    attribute: str, grouped_by: str, clip_ids: Sequence[str], values: Sequence[str], groups: Sequence[str],
    left_out: list[str],
) -> Question:  # fmt: skip
    """Without the values that lie in one fold: nobody could have learnt them."""
    folds = grouped_folds(groups)
    where = defaultdict(set)
    for value, fold in zip(values, folds.tolist(), strict=True):
        where[value].add(fold)
    kept = sorted(value for value in where if len(where[value]) > 1)
    if len(kept) < 2:
        raise PosebridgeError(
            f"Of {len(where)} values of {attribute} {len(kept) or 'none'} is in two folds of whole groups by "
            f"{grouped_by}, so none can be learnt from some clips and asked of others; name another --attribute, or "
            "other --groups."
        )
    place = {value: number for number, value in enumerate(kept)}
    rows = [row for row, value in enumerate(values) if value in place]
    if alone := sorted(where.keys() - place):
        left_out.append(
            f"{len(values) - len(rows)} clips of {len(alone)} values that are in one fold only, first {alone[0]!r}"
        )
    return Question(
        attribute,
        grouped_by,
        tuple(clip_ids[row] for row in rows),
        tuple(kept),
        np.array([place[values[row]] for row in rows]),
        tuple(groups[row] for row in rows),
        folds[rows],
        tuple(left_out),
    )


def fold_by(question: Question, dataset: Dataset, protocols: Sequence[str]) -> Question:
    """The same with a fold a protocol: the clips of its unseen classes. Clips of a class that none has as unseen, or
    two have, are left out.

    Raises PosebridgeError where a value is then in one fold only.
    """
    unseen = [set(dataset.split(name).unseen) for name in protocols]
    label = {clip.clip_id: clip.label for clip in dataset.clips}
    homes = [[fold for fold, own in enumerate(unseen) if label[clip_id] in own] for clip_id in question.clip_ids]
    rows = [row for row, home in enumerate(homes) if len(home) == 1]
    folds = np.array([homes[row][0] for row in rows], int)
    answers = question.answers[rows]
    for place, value in enumerate(question.values):
        if len(set(folds[answers == place].tolist())) < 2:
            raise PosebridgeError(
                f"The clips of {question.attribute} {value!r} are unseen in fewer than two of {', '.join(protocols)}; "
                "leave the value out with --values, or name more protocols."
            )
    lost = len(homes) - len(rows)
    told = (f"{lost} clips of classes that are not unseen in just one of the protocols",) if lost else ()
    return replace(
        question,
        clip_ids=tuple(question.clip_ids[row] for row in rows),
        answers=answers,
        groups=tuple(question.groups[row] for row in rows),
        folds=folds,
        left_out=question.left_out + told,
    )


def _column(dataset: Dataset, name: str) -> dict[str, str]:
    """clip_id -> cell, empty where unknown. Raises PosebridgeError for a column that neither file has."""
    known = {clip.clip_id: clip.label for clip in dataset.clips if clip.label is not None}
    blank = dict.fromkeys((clip.clip_id for clip in dataset.clips), "")
    if name == CLASS:
        return blank | {clip_id: dataset.class_names[label] for clip_id, label in known.items()}
    if name in BY_CLIP:
        return {clip.clip_id: str(getattr(clip, name)) for clip in dataset.clips}
    by_class: dict[int, str] = {}
    there = [CLASS, *BY_CLIP]
    if (path := dataset.folder / "attributes.csv").is_file():
        table = open_table(path, ("index",), (name,))
        there += [column for column in table.columns if column not in ("", "index")]
        if name in table.places:
            for row in table:
                index = row.whole("index", 0, MOST_CLASSES, "the index of a class")
                if index is None or index in by_class:
                    raise row.wrong("index", "every class has an index of its own; correct it")
                by_class[index] = row.text(name)
            return blank | {clip_id: by_class.get(label, "") for clip_id, label in known.items()}
    own = read_with_others(dataset.folder / "clips.csv")[1]
    if own:
        columns = next(iter(own.values()))
        there += columns
        if name in columns:
            return blank | {clip_id: cells[name].strip() for clip_id, cells in own.items()}
    raise PosebridgeError(
        f"{dataset.name} has no column {name!r} in clips.csv or {path.name}; there are "
        f"{', '.join(dict.fromkeys(there))}."
    )


def _draw(wanted: Sequence[str], shard_of: Mapping[str, int], most: int, seed: int) -> list[str]:
    """At most so many of the clips, in their order, from as few shards as may be."""
    if len(wanted) <= most:
        return list(wanted)
    sizes = Counter(shard_of[clip_id] for clip_id in wanted)
    rng = np.random.default_rng(seed)
    chosen, total = set(), 0
    for shard in rng.permutation(sorted(sizes)).tolist():
        if total >= most:
            break
        chosen.add(shard)
        total += sizes[shard]
    reached = [clip_id for clip_id in wanted if shard_of[clip_id] in chosen]
    return [reached[row] for row in sorted(rng.permutation(total)[:most].tolist())]
