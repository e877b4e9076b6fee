"""Where a tuning starts: weights by name, path, URL or `auto`, and what words they have been exposed to."""

from __future__ import annotations

import json
from dataclasses import dataclass

from torch import Tensor

from pipeline.errors import PosebridgeError
from pipeline.hpe.model import PoseBridgeHPE
from pipeline.hpe.weights import find_weights, load_state, metadata
from pipeline.recipe import Recipe


@dataclass(frozen=True)
class Start:
    """Weights to start from: the state of a PoseBridgeHPE or of its pose model alone, under `pose.`, float32."""

    name: str
    sha256: str
    state: dict[str, Tensor]
    hpe_text: str = "none"
    without: tuple[str, ...] = ()  # words that `captions-strict` has kept out


def find_start(init: str, config: str) -> Start:
    """Weights as a recipe names them: shipped ones, a path, or `auto` for mmpose's own of `config`.

    Raises PosebridgeError as `find_weights` and `load_state`.
    """
    found = find_weights(Recipe(config=config, weights=init))
    state = load_state(found.path)
    if not any(key.startswith("pose.") for key in state):  # a checkpoint of mmpose
        state = {f"pose.model.{key}": value for key, value in state.items()}
    try:
        without = json.loads(metadata(found.path).get("without", "[]"))
    except (ValueError, RecursionError):
        without = None
    if not isinstance(without, list) or not all(isinstance(word, str) for word in without):
        raise PosebridgeError(f"The header of {found.path} does not say which words it was kept from; bring it again.")
    return Start(found.path.name, found.sha256, state, found.hpe_text or "none", tuple(without))


def load_start(model: PoseBridgeHPE, start: Start) -> bool:
    """Load what the start has into the model; False where its cue head, being of another form, as of an earlier
    version, had to be left out.

    Raises PosebridgeError where a pose tensor is missing or does not fit.
    """
    own = model.state_dict()
    foreign = {key for key, value in start.state.items() if key not in own or own[key].shape != value.shape}
    without_head = any(key.startswith("cue.") for key in foreign)
    state = {key: value for key, value in start.state.items() if not (without_head and key.startswith("cue."))}
    wrong = [key for key in own if key.startswith("pose.") and key not in state] + sorted(foreign & state.keys())
    if wrong:
        raise PosebridgeError(
            f"{start.name} does not fit {model.pose.config}: {len(wrong)} tensors are missing, foreign or of another "
            f"shape (first: {sorted(wrong)[0]}); give its own weights with --init, or its config with --config."
        )
    model.load_state_dict(state, strict=False)
    return not without_head


def exposure(kind: str, without: tuple[str, ...], start: Start | None) -> tuple[str, tuple[str, ...]]:
    """`hpe_text` of a tuned model, and the words that it has never seen.

    Words stay seen: what the start was exposed to, the tuned model is exposed to as well.
    """
    before, kept_out = (start.hpe_text, start.without) if start else ("none", ())
    if kind == "kp":
        return before, kept_out
    left = tuple(word for word in without if before == "none" or word in kept_out)
    return ("captions-strict" if left else "captions"), left
