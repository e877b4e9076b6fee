"""The weights that ship: they load, say what they saw, and are as good as their card says."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from pipeline.hpe.model import PoseBridgeHPE
from pipeline.hpe.weights import SHIPPED, load_state, resolve_weights
from pipeline.params import load_params
from pipeline.recipe import Recipe
from pipeline.tune.quality import measure

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parent.parent


def header(name: str) -> dict[str, str]:
    with safe_open(SHIPPED / f"{name}.safetensors", "pt") as file:
        return file.metadata()


@pytest.mark.parametrize(("name", "exposure"), [("skelgap-kp", "none"), ("skelgap-sem", "captions")])
def test_each_file_declares_its_exposure_and_is_in_the_card(name: str, exposure: str) -> None:
    found = resolve_weights(Recipe(weights=name))
    assert found.hpe_text == exposure == header(name)["hpe_text"]
    card = (SHIPPED / "README.md").read_text()
    assert found.weights_sha256 in card, f"write the new hash of {name} into pipeline/weights/README.md"
    quality = json.loads(header(name)["quality"])
    assert f"{quality['pck']:.3f}" in card and f"{quality['pck_wrists']:.3f}" in card


def test_the_recipe_that_ships_uses_weights_that_ship() -> None:
    recipe = load_params(ROOT / "params.yaml").recipes["refined"]
    assert (SHIPPED / f"{recipe.weights}.safetensors").is_file()


def test_keypoints_on_held_out_stills_are_what_was_promised() -> None:
    """On stills with subjects, clothes and backgrounds of their own; gated on wrists: the hand anchors hang there."""
    state = load_state(SHIPPED / "skelgap-sem.safetensors")
    model = PoseBridgeHPE(header("skelgap-sem")["config"], width=state["cue.project.weight"].shape[1])
    model.load_state_dict(state)
    quality = measure(model, 200)
    assert quality["pck"] >= 0.97, quality
    assert quality["pck_wrists"] >= 0.91, quality
    assert quality["oks_ap"] >= 0.85, quality
