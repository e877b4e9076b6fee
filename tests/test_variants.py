"""Variants of test clips: a store and an index of their own, and nothing of the originals is taken for theirs."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from fakes import FakeEstimator, write_video

import stages.extract
from pipeline.cache.garbage import find_garbage
from pipeline.cache.reader import CacheReader
from pipeline.errors import PosebridgeError
from pipeline.extract.extract import extract
from pipeline.ingest.ingest import ingest
from pipeline.manifest.clips import Clip
from pipeline.manifest.variants import of_variant, strength, variant_clips, variant_root
from pipeline.params import ExtractParams
from pipeline.recipe import Recipe

pytestmark = pytest.mark.e2e
RECIPE = Recipe(config="fake", weights="w", weights_sha256="0" * 64, boxes="full_frame", frames=8, cue_frames=4)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two train and three test clips; the variant `dark-2` has two of the test clips, darker and shorter."""
    for i, part in enumerate(("train", "train", "test", "test", "test")):
        write_video(tmp_path / f"v/{part}/{i}.mp4", offset=90 + i)
    for name in ("train/0", "test/2", "test/3"):
        write_video(tmp_path / f"v@dark-2/{name}.mp4", frames=16, offset=20)
    ingest("d", tmp_path / "v", pattern="(?P<part>train|test)/", hash_files=True, manifests=tmp_path / "m")
    return tmp_path


def run(root: Path, variant: str = "", estimator: FakeEstimator | None = None):
    return extract(
        "d", "r", RECIPE, root / "v", params=ExtractParams(), build_estimator=lambda _: estimator or FakeEstimator(),
        manifests=root / "m", cache=root / "c", variant=variant,
    )  # fmt: skip


def test_a_variant_has_its_own_store_and_only_its_test_clips(root: Path) -> None:
    plain = run(root)
    dark = run(root, "dark-2")
    assert dark.index == root / "c/d/r@dark-2/index.json" and dark.clips == 2 and not dark.failures
    assert dark.store.parent.name == "d@dark-2" and dark.store.name == plain.store.name
    with CacheReader(plain.index) as original, CacheReader(dark.index) as reader:
        assert reader.clip_ids == ["test/2", "test/3"] and reader.fingerprint == original.fingerprint
        ours, theirs = (r.read(["test/2"], ["cues"])["cues"] for r in (reader, original))
        assert ours.mean() < theirs.mean() - 20  # the darker video's own cues
        assert set(original.clip_ids) == {"train/0", "train/1", "test/2", "test/3", "test/4"}
    estimator = FakeEstimator()
    again = run(root, "dark-2", estimator)
    assert not again.changed and again.estimated == 0 and estimator.calls == 0
    assert not find_garbage(root / "c/store", root / "c", [])


def test_errors_name_the_command_of_the_variant(root: Path) -> None:
    with pytest.raises(PosebridgeError, match="`posebridge synth --dataset d --variant fog-1`"):
        run(root, "fog-1")
    run(root, "dark-2")
    next((root / "c/store/d@dark-2").rglob("*.h5")).unlink()
    with pytest.raises(PosebridgeError, match="`posebridge extract --dataset d --recipe r --variant dark-2`"):
        CacheReader(root / "c/d/r@dark-2/index.json")


def test_several_variants_in_one_command_load_the_model_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(root / "v@dark-1/test/2.mp4", offset=50)
    built: list[Recipe] = []
    monkeypatch.setattr("pipeline.hpe.weights.resolve_weights", lambda recipe: RECIPE)
    monkeypatch.setattr("pipeline.hpe.factory.build_estimator", lambda r, _: built.append(r) or FakeEstimator())
    once = functools.cache(stages.extract.build_estimator.__wrapped__)  # what it keeps goes with this test
    monkeypatch.setattr(stages.extract, "build_estimator", once)
    (root / "p.yaml").write_text(f"datasets: {{d: {{root: {root / 'v'}}}}}\nrecipes: {{r: {{}}}}\n")
    places = {"--params": root / "p.yaml", "--manifests": root / "m", "--cache": root / "c"}
    arguments = [str(word) for option in places.items() for word in option]
    arguments += ["--dataset", "d", "--recipe", "r", "--variant", "dark-1", "--variant", "dark-2", "--json"]
    done = CliRunner().invoke(stages.extract.command, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["variants"]
    assert {name: values["clips"] for name, values in found.items()} == {"dark-1": 1, "dark-2": 2} and len(built) == 1


@pytest.mark.unit
def test_the_clips_of_a_variant_keep_nothing_that_is_said_of_the_original_videos(tmp_path):
    (tmp_path / "v@dark-2").mkdir()
    for name in ("a", "c"):
        (tmp_path / f"v@dark-2/{name}.mp4").touch()
    said = {"sha256": "0" * 64, "fps": 25.0, "frames": 9, "height": 48, "width": 64}
    plain = Clip("a", "a.mp4", 1.0, 2.0, 3, "Ann", "left", "test")
    clips = [replace(plain, **said), Clip("b", "b.mp4", part="test"), Clip("c", "c.mp4", part="train")]
    assert variant_clips(clips, "d", tmp_path / "v", "dark-2") == [plain]


@pytest.mark.unit
def test_names() -> None:
    assert of_variant("refined", "blur-1") == "refined@blur-1" and of_variant("refined", "") == "refined"
    assert variant_root(Path("a/b"), "blur-1") == Path("a/b@blur-1")
    assert strength("low_light-3") == ("low_light", 3) and strength("background") == ("background", 0)
    assert strength("-3") == ("-3", 0)
