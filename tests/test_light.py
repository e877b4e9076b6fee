"""Crops of too little light are raised before a pose model sees them, where the recipe says so."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.errors import PosebridgeError
from pipeline.extract.boxes import box_source
from pipeline.extract.stream import PoseStream
from pipeline.hpe.crops import crop, crop_matrix, raised
from pipeline.recipe import Recipe

pytestmark = pytest.mark.unit


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (80, 60, 3), dtype=np.uint8)


def test_what_is_bright_enough_stays_as_it_is(picture: np.ndarray) -> None:
    assert raised(picture) is picture
    black = np.zeros_like(picture)
    assert not raised(black).any(), "nothing to raise, and no number that is none"


@pytest.mark.parametrize("gain", [0.5, 0.25, 0.12])
def test_a_dark_crop_is_as_bright_as_one_in_good_light(picture: np.ndarray, gain: float) -> None:
    dark = (picture * gain).astype(np.uint8)
    found = raised(dark)
    assert found.dtype == np.uint8 and np.percentile(found, 99) == pytest.approx(220, abs=12)
    assert np.corrcoef(found.ravel(), picture.ravel())[0, 1] > 0.99
    assert raised((picture * 0.01).astype(np.uint8)).max() <= 30, "tenfold at most: the rest is noise"


def test_only_a_recipe_that_says_so_raises_them(picture: np.ndarray) -> None:
    dark, matrix = picture // 4, crop_matrix(np.array([5, 5, 40, 60]), (48, 64))
    as_is = crop(dark, matrix, (48, 64))
    assert np.array_equal(as_is, crop(dark, matrix, (48, 64), Recipe().light))
    assert crop(dark, matrix, (48, 64), "raised").mean() > 3 * as_is.mean()
    assert '"light"' not in Recipe().canonical_json(), "the stores there are keep their fingerprints"
    assert replace(Recipe(), light="raised").fingerprint != Recipe().fingerprint
    with pytest.raises(PosebridgeError, match="light should be"):
        Recipe(light="bright")


def test_the_pose_model_is_given_what_the_recipe_says(picture: np.ndarray) -> None:
    estimator: Any = SimpleNamespace(crop_size=(48, 64))
    box = np.array([[5, 5, 40, 60]], np.float32)

    def given(recipe: Recipe) -> np.ndarray:
        stream = PoseStream(recipe, estimator, box_source(recipe, None), 1)
        return stream._crops(picture // 4, box, np.ones(1))[0][-1]

    assert given(Recipe(light="raised")).mean() > 3 * given(Recipe()).mean()
