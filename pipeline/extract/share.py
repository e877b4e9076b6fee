"""Shares of a store's shards that are dealt out beforehand, for clusters whose tasks know nothing but their number.

Task i of N makes the shards whose number leaves i when divided by N. Neither is a place in a list of what is missing,
so a later run with the same N deals out the same, whatever was made meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import groupby

from pipeline.errors import PosebridgeError, short

MOST_TASKS = 1000  # of an array: clusters allow 1001 unless they are told otherwise (MaxArraySize of Slurm)
Share = tuple[int, int]  # i, N


def read_share(text: str) -> Share:
    """`3/8` as (3, 8). Raises PosebridgeError for what is no such share."""
    found = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text)
    if not found or int(found[1]) >= int(found[2]):
        raise PosebridgeError(f"A share of the shards should be i/N, like 0/8 to 7/8, not {short(text)}.")
    return int(found[1]), int(found[2])


def share_of_array(environment: Mapping[str, str]) -> Share | None:
    """The share of a task of a Slurm array, by the variables that it finds; None outside of an array.

    Raises PosebridgeError for an array with gaps, whose number of tasks says nothing of where a task stands.
    """
    names = [f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "MAX", "COUNT")]
    values = [environment.get(name, "") for name in names]
    if not all(value.isdecimal() for value in values):
        return None
    task, least, most, count = map(int, values)
    if count != most - least + 1:
        raise PosebridgeError(
            f"The {count} tasks of this Slurm array have numbers from {least} to {most}, with gaps; name the share "
            "with `--shard $SLURM_ARRAY_TASK_ID/N`, N as `posebridge extract --plan` gives it."
        )
    return task - least, count


def array_of(numbers: Iterable[int]) -> str:
    """Numbers as sbatch's --array takes them: `0-2,7`."""
    runs = groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0])
    spans = [[number for _, number in run] for _, run in runs]
    return ",".join(str(span[0]) if len(span) == 1 else f"{span[0]}-{span[-1]}" for span in spans)
