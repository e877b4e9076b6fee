"""params.yaml: unknown keys, wrong types, the file that ships."""

from pathlib import Path

import pytest

from pipeline.errors import PosebridgeError
from pipeline.params import Params, load_params
from pipeline.recipe import Recipe

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parent.parent


def write(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text)
    return path


def test_the_shipped_file_is_valid_and_runs_name_recipes_that_exist() -> None:
    params = load_params(ROOT / "params.yaml")
    for run in params.runs.values():
        assert run.recipe in params.recipes
        assert run.skeletons != "gt" or "gt" in params.recipes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {epcohs: 3}", "did you mean epochs"),
        ("trian: {epochs: 3}", "did you mean train"),
        ("train: {epochs: many}", "should be int"),
        ("train: {epochs: true}", "should be int"),
        ("train: [1]", "should be a mapping"),
        ("datasets: {d: {}}", "'root' is missing"),
        ("recipes: {r: {anchors: body}}", "should be a list"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PosebridgeError, match=message):
        load_params(write(tmp_path, text))


def test_values_reach_the_dataclasses(tmp_path: Path) -> None:
    params = load_params(write(tmp_path, "train: {lr: 1}\nencode: {seeds: [4, 5]}\nrecipes: {r: {sigma: 0.1}}"))
    assert params.train.lr == 1.0 and isinstance(params.train.lr, float)
    assert params.encode.seeds == (4, 5)
    assert params.recipes["r"] == Recipe(sigma=0.1)
    assert load_params(write(tmp_path, "")) == Params()


def test_a_recipe_is_known_by_what_changes_its_result() -> None:
    base = Recipe(weights="a.safetensors", weights_sha256="1" * 64)
    assert Recipe(weights="elsewhere/a.safetensors", weights_sha256="1" * 64).fingerprint == base.fingerprint
    assert Recipe(weights="a.safetensors", weights_sha256="2" * 64).fingerprint != base.fingerprint
    assert Recipe(weights="a.safetensors", weights_sha256="1" * 64, sigma=0.09).fingerprint != base.fingerprint


def test_fewer_seeds_of_encode_and_of_every_run(tmp_path):
    runs = "runs: {all: {}, three: {seeds: [0, 1, 2]}}"
    params = load_params(write(tmp_path, f"encode: {{seeds: [0, 1, 2, 3]}}\n{runs}"))
    fewer = params.only((3, 1))
    assert fewer.encode.seeds == (1, 3)
    assert fewer.seeds(fewer.runs["all"]) == (1, 3) and fewer.seeds(fewer.runs["three"]) == (1,)
    assert params.only(()) == params
    with pytest.raises(PosebridgeError, match="no seed 7 among encode's in the parameters; there are 0, 1, 2, 3"):
        params.only((1, 7))
    with pytest.raises(PosebridgeError, match="the seeds 0, 1, 2, and none of 3"):
        params.only((3,)).seeds(params.runs["three"])
    with pytest.raises(PosebridgeError, match="runs: three: the seed 2 is none of encode's, 0, 1"):
        load_params(write(tmp_path, f"encode: {{seeds: [0, 1]}}\n{runs}"))
