"""What every method of stage two is: a loss on seen classes, and scores for any list of candidate classes.

A method knows tensors only: no file, no command line, no test label. It stands on the map of a frozen skeleton encoder,
or it has an encoder of its own and trains it with the rest (`end_to_end`). Adaptation at test time is no part of a
method but of adaptation.py, so that no score can be an adapted one by accident.
"""

from __future__ import annotations

import difflib
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import PosebridgeError
from pipeline.files.bounds import check_bounds

MOST_WIDE, MOST_LAYERS = 10**4, 100  # of a flag: what is larger is a slip, and would ask for all memory


@dataclass(frozen=True)
class Features:
    """A batch of clips as a method sees it. It has no label, so no score can depend on one."""

    skeleton: Tensor
    """[B, 256, T', V] map of the frozen skeleton encoder; for a method that is `end_to_end`, [B, M, T, V, C + 1] joints
    as `normalise` gives them, all zero where nobody is.
    """
    quality: Tensor  # [B, M, 2] mean keypoint score; share of frames with this person
    cues: Tensor | None = None  # [B, M, S, A, D]
    cue_scores: Tensor | None = None  # [B, M, S, A], 0 where the anchor has vanished


@dataclass(frozen=True)
class Shapes:
    """What a method must know of the data before it can be built; D = 0 and no anchors where there are no cues."""

    d_text: int
    persons: int  # M of the skeletons
    cue_frames: int = 0  # S
    anchors: tuple[str, ...] = ()  # A names
    d_cue: int = 0  # D
    layout: str = "coco17"  # of the V joints, for `graph_of`
    inputs: int = 3  # numbers of a joint, C + 1
    cue_persons: int = 0  # M of the cues; 0: as many


class Method(nn.Module, ABC):
    """The contract. `text` is always [C, K, d_t]: K chosen description slots of C classes, in the order of
    `text_slots`. Flags are read by `read_flags` into a frozen dataclass.
    """

    end_to_end: ClassVar[bool] = False
    """Whether the method has its own skeleton encoder: its features are joints, and no frozen encoder is loaded."""

    one_model: ClassVar[bool] = False
    """Whether it compares cues with words directly, so that one image-text model must have made both."""

    word_slots: ClassVar[tuple[str, ...]] = ()
    """Text slots whose words themselves the method wants in training, not only their vectors; see `see_words`."""

    choices: ClassVar[Mapping[str, tuple[float, ...]]] = {}
    """Attributes that the selection phase chooses, each from these values: the first one unless another is clearly
    better.
    """

    text_slots: tuple[str, ...]
    temperature: float = 1.0  # softmax(scores / temperature) are shares among the candidates
    progress: float = 0.0  # in training, the share of the schedule's epochs done: what a curriculum goes by
    centre: Tensor  # [d_t] what descriptions are centred on: 0, or the mean of the classes trained on
    evened: Tensor | None  # [d_t, d_t] what they are whitened by, made of the classes trained on; None: they are not

    def __init__(self, shapes: Shapes, classes: int, flags: Mapping[str, Any]) -> None:
        """`classes` is how many are trained on. Raises PosebridgeError for flags that cannot be."""
        super().__init__()
        self.register_buffer("centre", torch.zeros(shapes.d_text))
        self.register_buffer("evened", None)

    @property
    def device(self) -> torch.device:
        """Where it lies, and where its features and text have to be."""
        return self.centre.device

    def describe(self, text: Tensor) -> Tensor:
        """One unit vector a class, the mean of its slots: [C, K, d_t] -> [C, d_t]."""
        return F.normalize(text.mean(1), dim=-1)

    def schedule(self) -> Mapping[str, Any]:
        """Fields of `learn.loop.Loop` (epochs, batch_size, lr, optimiser, ...) that this method's training sets
        otherwise than the section `train` of params.yaml. `epochs` is the most that the selection phase may choose.
        """
        return {}

    def see_text(self, text: Tensor) -> None:  # noqa: B027 (most methods take nothing)
        """Take what may be taken from the text of the classes trained on (their mean, their spread), once, before
        training.
        """

    def see_words(self, words: Sequence[Mapping[str, str]]) -> None:  # noqa: B027
        """Take the words of `word_slots` (slot -> text; a slot that a class lacks is absent) of each class trained on,
        in the order of the labels: once, before training. A trained method is loaded without them.
        """

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The words that the method has learnt to name, in lower case: of the classes trained on, and of no other."""
        return ()

    @abstractmethod
    def loss(self, features: Features, labels: Tensor, text: Tensor) -> Tensor:
        """A scalar. `labels` [B] are rows of `text`, which holds exactly the classes trained on. They may stay on the
        CPU: how many classes are among them is then known without waiting for a GPU.
        """

    @abstractmethod
    def scores(self, features: Features, text: Tensor) -> Tensor:
        """Score of every candidate, [B, C]. Rows do not depend on one another. Differentiable in `text` wherever an
        adaptation may refine it.
        """


class EmbeddingMethod(Method):
    """A method that compares one vector of a clip, which knows no candidate, with one vector of each class."""

    @abstractmethod
    def embed(self, features: Features) -> Tensor:
        """What a clip is compared by, [B, d_t], L2-normalised."""

    @abstractmethod
    def prototypes(self, text: Tensor) -> Tensor:
        """What it is compared with, [C, d_t], L2-normalised."""

    def scores(self, features: Features, text: Tensor) -> Tensor:
        return self.embed(features) @ self.prototypes(text).T

    def before(self, batches: Iterable[Features], labels: Tensor, text: Tensor) -> None:  # noqa: B027
        """Before training: take what is estimated of the clips trained on, as they are, batch by batch, with `labels`
        [N], rows of `text`.
        """

    def finish(self, means: Tensor, text: Tensor) -> None:  # noqa: B027
        """After training: estimate, on the classes trained on, what is not trained by gradient. `means` [C, d_t] are
        the mean embeddings of their clips, L2-normalised.
        """


class SolvedMethod(EmbeddingMethod):
    """A method that is solved at once instead of trained, or that has nothing to learn."""

    def solve(self, batches: Iterable[Features], labels: Tensor, text: Tensor) -> None:  # noqa: B027
        """In the place of training; arguments as those of `before`."""

    def loss(self, features: Features, labels: Tensor, text: Tensor) -> Tensor:
        """There is none."""
        raise NotImplementedError


def read_flags(kind: Any, flags: Mapping[str, Any], method: str) -> Any:
    """The dataclass `kind` from the flags of a run. Raises PosebridgeError for an unknown flag, a wrong type, an empty
    list where the default names something, and a number out of its bounds.
    """
    known = typing.get_type_hints(kind)
    values = {}
    for name, value in flags.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"its flags are {', '.join(known)}."
            raise PosebridgeError(f"{name!r} is not a flag of the method {method}; {hint}")
        try:
            values[name] = _as_type(value, known[name])
        except TypeError:
            each = typing.get_args(known[name])
            wanted = f"a list of {each[0].__name__}" if each else known[name].__name__
            raise PosebridgeError(
                f"The flag {name!r} of the method {method} should be {wanted}, not {str(value)[:80]!r}."
            ) from None
        if values[name] == () != getattr(kind, name):
            raise PosebridgeError(f"The flag {name!r} of the method {method} should name one or more, not none.")
    made = kind(**values)
    try:
        check_bounds(made)
    except PosebridgeError as error:
        raise PosebridgeError(f"The flags of the method {method}: {error}") from None
    return made


def _as_type(value: Any, wanted: Any) -> Any:
    """The value, a list as a tuple and a whole number as a float where these are wanted; TypeError for any other."""
    if typing.get_origin(wanted) is tuple and isinstance(value, list | tuple):
        return tuple(_as_type(each, typing.get_args(wanted)[0]) for each in value)
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise TypeError
    return value
