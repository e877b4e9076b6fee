"""Leak guards: each raises where a released evaluation went wrong (HAZARDS: the names in the messages)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from pipeline.errors import PosebridgeError
from pipeline.files.names import plain_path
from pipeline.manifest.clips import Clip


class LeakError(AssertionError):
    """Our own code broke a rule of the protocol; never the user's fault."""


def require_no_pseudo_unseen(train: Iterable[Clip], classes: Sequence[int]) -> None:
    """No clip of another class than `classes`, and none of the test part, may be trained on."""
    allowed = set(classes)
    for clip in train:
        if clip.label not in allowed or not clip.trains:
            raise LeakError(
                f"Clip {clip.clip_id} (class {clip.label}, part {clip.part}) must not be trained on in this phase."
            )


def require_clips_of_phase(clip_ids: Iterable[str], clips: Iterable[Clip]) -> None:
    """Training holds no clip besides those of its phase: none that it could be judged on by mistake."""
    known = {clip.clip_id for clip in clips}
    if foreign := [clip_id for clip_id in clip_ids if clip_id not in known]:
        raise LeakError(f"Clip {foreign[0]} does not belong to this phase of training.")


def require_disjoint_sources(clips: Sequence[Clip]) -> None:
    """One source video (by hash, else by path) may not have clips in train and test, nor be shared by two classes where
    its clips are of the part `both`. Raises PosebridgeError.
    """
    seen: dict[str, Clip] = {}
    for clip in clips:
        if not clip.part:
            continue
        for source in filter(None, (clip.sha256, plain_path(clip.path))):
            other = seen.setdefault(source, clip)
            if other.part != clip.part or (clip.part == "both" and other.label != clip.label):
                raise PosebridgeError(
                    f"Clips {other.clip_id} ({other.part}) and {clip.clip_id} ({clip.part}) come from one video; "
                    f"put them into one part, train or test, in clips.csv."
                )


def require_eval_mode(model: nn.Module) -> None:
    """No batch-norm statistics and no dropout at test."""
    for name, module in model.named_modules():
        if module.training:
            raise LeakError(f"{name or type(model).__name__} is in train mode while scoring.")


def require_online(scores: Tensor, alone: Tensor) -> None:
    """What an online adaptation says of the clips that come first, in scores [N, C], is what it says when no other
    comes, alone [n, C]: one pass, which has seen no later clip.
    """
    if not torch.allclose(scores[: len(alone)], alone, rtol=1e-3, atol=1e-4):
        raise LeakError("The adaptation calls itself online, but its scores have seen clips that came later.")


def require_seen_centre(centre: Tensor, seen_text: Tensor) -> None:
    """Text may be centred on the mean of the classes trained on, never of others as well. Both [..., d_t]."""
    if not torch.allclose(centre, seen_text.mean(0), atol=1e-6):
        raise LeakError("Text prototypes are centred on something else than the mean of the seen classes.")


def require_seen_spread(evened: Tensor, seen_evened: Tensor) -> None:
    """Text may be whitened by the classes trained on alone. Both [d_t, d_t]; the latter is made of the seen classes."""
    if not torch.allclose(evened, seen_evened, rtol=0, atol=1e-3 * float(seen_evened.abs().max())):
        raise LeakError("Text prototypes are whitened by something else than the seen classes.")


def require_seen_vocabulary(
    vocabulary: Iterable[str], seen: Iterable[Mapping[str, str]], unseen: Iterable[Mapping[str, str]]
) -> None:
    """A method may know the words of the classes trained on; one that only unseen classes have is a leak."""
    ours, theirs = ({text.strip().lower() for own in words for text in own.values()} for words in (seen, unseen))
    if leaked := sorted(set(vocabulary) & theirs - ours):
        raise LeakError(f"The method's vocabulary holds {leaked[0]!r}, a word that only unseen classes have.")


def require_texts_of(classes: Iterable[int | None], allowed: Sequence[int]) -> None:
    """A pose model may be tuned with the words of these classes, of which none is unseen or plays unseen."""
    if foreign := sorted({-1 if c is None else c for c in classes} - set(allowed)):
        raise LeakError(f"A pose model would be tuned with clips or texts of class {foreign[0]}, which is kept unseen.")
