"""params.yaml: one section per stage, same name; an unknown key is an error.

Light on purpose (no torch), so that the command line can take its defaults from the same dataclasses as the library.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import PosebridgeError, short
from pipeline.files.bounds import MOST_SEED, check_bounds, one_of, within
from pipeline.files.names import check_name
from pipeline.files.yaml_file import read_yaml
from pipeline.recipe import Recipe

LARGEST = 2**63  # of a whole number
# By what was trained that tells nothing of it: there was no such value then.
BEFORE: dict[str, dict[str, Any]] = {
    "encode": {"encoder": "light", "swap_persons": False},
    "train": {"swap_persons": False, "smoothing": 1},
}
IMAGE_FPS = 25.0  # of a folder of images whose rate nobody tells


@dataclass(frozen=True)
class DatasetParams:
    """`root`: the folder that the paths of clips.csv are relative to. `image_fps`: frames a second of its clips, where
    they are folders of images.
    """

    root: str
    image_fps: float = within(IMAGE_FPS, above=0, most=10**6)

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True)
class SynthParams:
    """Sizes of the generated benchmark."""

    train_clips: int = within(20, 0, 10**6)  # per class that is seen in some protocol
    test_clips: int = within(4, 0, 10**6)  # per class that is seen in every protocol
    twins: int = within(30, 0, 10**6)  # test clips per class that is unseen in some protocol
    seed: int = within(0, 0, MOST_SEED)

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True)
class ExtractParams:
    """Knobs of speed and tolerance; nothing here changes the row of a clip, only whether it is one or a failure.

    `max_lost_frames`: the share of a video's frames looked at that may not decode; above it its clips fail. What is in
    the cache stays when it changes, and failures are tried again with --retry-failed.
    `decoders`: videos that are decoded at a time; 0 takes half of the cores that a process may use, 8 at most.
    """

    batch_size: int = within(16, 1, 10**5)
    decoders: int = within(0, 0, 256)
    clips_per_shard: int = within(256, 1, 10**6)
    max_failures: int = within(0, 0)
    max_lost_frames: float = within(0.1, 0, 1)

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True)
class TextParams:
    """`encoder`: `minilm` (embedded), or any sentence-transformers name or local folder."""

    encoder: str = "minilm"


@dataclass(frozen=True)
class EncodeParams:
    """Training of the skeleton encoder, seen classes only. `shift_gcn` is the published one; with `width` 64 and
    `blocks` 4, 3, 3 as large (then take `lr` 3e-3), by default a sixteenth of that, for a CPU. `light` is what was the
    default until 30 November 2026. `dense` is for clips of a few frames; it has no `blocks`.
    """

    epochs: int = within(20, 1, 10**6)
    batch_size: int = within(32, 1, 10**6)
    lr: float = within(1e-2, above=0)
    weight_decay: float = within(1e-2, 0)
    encoder: str = one_of("shift_gcn", "light", "dense")
    width: int = within(16, 1, 10**4)
    blocks: tuple[int, ...] = within((2, 2, 2), 1, 100)
    dropout: float = within(0.1, 0, 1)
    ema: float = within(0.9, 0, 1)  # per step
    hidden_joints: float = within(0.0, 0, 1)  # share of clips of which joints are hidden, see skeleton/hide.py
    hidden_frames: float = within(0.0, 0, 1)  # share of clips of which frames are
    swap_persons: bool = True  # the persons of a clip change places at random
    bfloat16: bool = False  # autocast
    tf32: bool = False  # on a GPU, products and convolutions of a step; on a CPU it changes nothing
    seeds: tuple[int, ...] = within((0, 1, 2), 0, MOST_SEED)  # of encode, train and evaluate

    def __post_init__(self) -> None:
        check_bounds(self)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise PosebridgeError(f"seeds should be one or more, each of them once, not {list(self.seeds)}.")
        if not self.blocks:
            raise PosebridgeError("blocks should be one or more numbers.")


@dataclass(frozen=True)
class TrainParams:
    """Training of the method on the cache. `epochs` is the most that the selection phase may choose."""

    epochs: int = within(30, 1, 10**6)
    batch_size: int = within(64, 1, 10**6)
    lr: float = within(2e-3, above=0)
    weight_decay: float = within(5e-2, 0)
    ema: float = within(0.95, 0, 1)  # per step
    patience: int = within(10, 1, 10**6)  # epochs; ends the selection phase early
    smoothing: int = within(5, 1, 10**6)  # epochs whose mean score chooses the last of them: one alone is chance
    views: int = within(4, 1, 10**4)  # of every training skeleton, the first one unaugmented
    hidden_joints: float = within(0.0, 0, 1)  # share of views but the first of which joints are hidden, as in encode
    hidden_frames: float = within(0.0, 0, 1)  # share of them of which frames are
    swap_persons: bool = True  # in all views but the first, the persons of a clip change places at random
    bfloat16: bool = False  # autocast
    tf32: bool = False  # on a GPU, products and convolutions of a step; on a CPU it changes nothing

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True)
class RunParams:
    """One named run: what is trained, on which features.

    `{protocol}` in `recipe` is the protocol's name: for cues of pose weights that were tuned on what it lets be seen.
    `skeletons` is `estimated` (those of the recipe itself) or another recipe: `gt` for true ones. `adapt` names an
    adaptation at test time, reported in a column of its own; empty for none. `seeds` are some of encode's; empty takes
    all.
    """

    method: str = "posebridge"
    flags: dict[str, Any] = field(default_factory=dict)
    recipe: str = "refined"
    text: str = "minilm"
    skeletons: str = "estimated"
    adapt: str = ""
    seeds: tuple[int, ...] = within((), 0, MOST_SEED)

    def __post_init__(self) -> None:
        check_bounds(self)
        check_name(self.of("").recipe, "recipe")
        check_name(self.skeletons, "recipe")

    def of(self, protocol: str) -> RunParams:
        """The run on this protocol."""
        recipe = self.recipe.replace("{protocol}", protocol)
        return self if recipe == self.recipe else replace(self, recipe=recipe)


@dataclass(frozen=True)
class SlurmParams:
    """What each task of a Slurm array gets.

    `partition`, empty, is the cluster's default one. `setup` are lines of shell that run before a task (`module load
    cuda`), `sbatch` further options of sbatch by their long names (`{account: lab}`). A task that is lost (its time is
    up, it is preempted, its node fails) is submitted again up to `resubmit` times.
    """

    partition: str = ""
    gpus: int = within(0, 0, 1000)
    cpus: int = within(4, 1, 10**4)
    memory_gb: float = within(16.0, above=0, most=10**5)
    minutes: int = within(24 * 60, 1, 10**6)
    setup: tuple[str, ...] = ()
    sbatch: dict[str, Any] = field(default_factory=dict)
    resubmit: int = within(3, 0, 100)

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True)
class RayParams:
    """What each task of Ray gets, of the cluster at `address`; empty takes this machine. A task whose worker or node
    dies is run again up to `retries` times.
    """

    address: str = ""
    gpus: float = within(0.0, 0, 1000)
    cpus: float = within(1.0, 0, 10**4)
    retries: int = within(3, 0, 100)

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True)
class ExecutorParams:
    """Where shards are extracted and seeds trained: `name` and `workers`, at most so many at once, are what
    --executor and --workers are when they are not given.
    """

    name: str = one_of("local", "slurm", "ray")
    workers: int = within(1, 1, 10**5)
    slurm: SlurmParams = SlurmParams()
    ray: RayParams = RayParams()

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True)
class Params:
    """The whole of params.yaml."""

    datasets: dict[str, DatasetParams] = field(default_factory=dict)
    recipes: dict[str, Recipe] = field(default_factory=dict)
    runs: dict[str, RunParams] = field(default_factory=dict)
    synth: SynthParams = SynthParams()
    extract: ExtractParams = ExtractParams()
    executor: ExecutorParams = ExecutorParams()
    text: TextParams = TextParams()
    encode: EncodeParams = EncodeParams()
    train: TrainParams = TrainParams()

    def seeds(self, run: RunParams) -> tuple[int, ...]:
        """Those of a run. Raises PosebridgeError where `only` has left it none."""
        seeds = tuple(seed for seed in run.seeds or self.encode.seeds if seed in self.encode.seeds)
        if not seeds:
            asked = _listed(self.encode.seeds)
            raise PosebridgeError(f"The run has the seeds {_listed(run.seeds)}, and none of {asked}.")
        return seeds

    def only(self, seeds: Sequence[int]) -> Params:
        """The same with these seeds alone, or as it is where none is given.

        Raises PosebridgeError for a seed that encode has not.
        """
        if unknown := sorted(set(seeds) - set(self.encode.seeds)):
            raise PosebridgeError(
                f"There is no seed {unknown[0]} among encode's in the parameters; there are "
                f"{_listed(self.encode.seeds)}."
            )
        return replace(self, encode=replace(self.encode, seeds=tuple(sorted(set(seeds))))) if seeds else self


def load_params(path: Path) -> Params:
    """Read params.yaml. Raises PosebridgeError for a missing file, an unknown key or a value of the wrong type."""
    data = read_yaml(path, "run the command from the project's folder or name the file with --params")
    _refuse_foreign(data, path)
    params: Params = _build(Params, {} if data is None else data, path.name)
    for section, what in (("datasets", "data set"), ("recipes", "recipe"), ("runs", "run")):
        for name in getattr(params, section):
            try:
                check_name(name, what)
            except PosebridgeError as error:
                raise PosebridgeError(f"{path.name}: {section}: {error}") from None
    for name, run in params.runs.items():
        if unknown := sorted(set(run.seeds) - set(params.encode.seeds)):
            raise PosebridgeError(
                f"{path.name}: runs: {name}: the seed {unknown[0]} is none of encode's, {_listed(params.encode.seeds)}."
            )
    return params


def _refuse_foreign(data: Any, path: Path) -> None:
    """Raise PosebridgeError for a file of that name of some other program, as DVC's projects have it."""
    known = [each.name for each in fields(Params)]
    if not isinstance(data, dict) or set(data) & {"datasets", "recipes", "runs"}:
        return
    odd = [key for key in data if isinstance(key, str) and key not in known]
    if odd and not any(difflib.get_close_matches(key, known, n=1) for key in odd):  # a slip is told of later
        keys = ", ".join(map(short, odd[:3]))
        raise PosebridgeError(
            f"{path} is not posebridge's but of another program (it has {keys}); work in another folder, which "
            "--project can name, or name a file with --params."
        )


def choose(section: dict[str, Any], name: str, what: str) -> Any:
    """The entry `name` of a named section, or a PosebridgeError that lists the names there are."""
    if name not in section:
        raise PosebridgeError(
            f"There is no {what} named {name!r} in the parameters; there are {', '.join(section) or 'none'}."
        )
    return section[name]


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _build(kind: Any, data: Any, where: str) -> Any:
    """Turn plain YAML data into `kind`, strictly.

    Not by pydantic: an error in __post_init__ would lose its place, a missing or misspelt key its remedy, and `3.0` or
    `true` for a whole number would need validators of our own; the sentences take as many lines as this.
    """
    origin = typing.get_origin(kind)
    if isinstance(data, dict) and (odd := [key for key in data if not isinstance(key, str)]):
        raise PosebridgeError(f"{where}: the key {odd[0]!r} is read as no text; put it in quotes.")
    if is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(data, dict):
            empty = ", and is empty" if data is None else ""
            raise PosebridgeError(f"{where} should be a mapping{empty}.")
        hints = typing.get_type_hints(kind)
        for key in data:
            if key not in hints:
                close = difflib.get_close_matches(key, hints, n=1)
                hint = f"did you mean {close[0]}?" if close else f"known keys are {', '.join(hints)}."
                raise PosebridgeError(f"{where}: {short(key)} is not a known key; {hint}")
        required = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
        if missing := [name for name in required if name not in data]:
            raise PosebridgeError(f"{where}: the key {missing[0]!r} is missing.")
        values = {key: _build(hints[key], value, f"{where}: {key}") for key, value in data.items()}
        try:
            return kind(**values)
        except PosebridgeError as error:
            raise PosebridgeError(f"{where}: {error}") from None
    if origin is dict:
        if not isinstance(data, dict | None):
            raise PosebridgeError(f"{where} should be a mapping.")
        value_kind = typing.get_args(kind)[1]
        return {key: _build(value_kind, value, f"{where}: {key}") for key, value in (data or {}).items()}
    if origin is tuple:
        if not isinstance(data, list):
            raise PosebridgeError(f"{where} should be a list.")
        return tuple(_build(typing.get_args(kind)[0], value, where) for value in data)
    if isinstance(data, int | float) and not -LARGEST < data < LARGEST:
        raise PosebridgeError(f"{where} should be a finite number, not {data!r}.")
    if kind is Any:
        for key, value in data.items() if isinstance(data, dict) else enumerate(data if isinstance(data, list) else ()):
            _build(Any, value, f"{where}: {key}")
        return data
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if kind is int and isinstance(data, float) and data.is_integer():  # 3.0, 1e3
        return int(data)
    if not isinstance(data, kind) or (kind is int and isinstance(data, bool)):
        raise PosebridgeError(f"{where} should be {kind.__name__}, not {short(data)}.")
    return data
