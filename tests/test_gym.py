"""gym as it is committed: classes, attributes, texts, and the five folds of `shoot` and of `movement`."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from pipeline.cache.reader import CacheReader
from pipeline.extract.extract import extract
from pipeline.files.hashing import sha256_file
from pipeline.files.tables import open_table
from pipeline.hpe.factory import build_estimator
from pipeline.hpe.weights import resolve_weights
from pipeline.ingest.ingest import ingest
from pipeline.learn.dataset import open_dataset
from pipeline.manifest.check_texts import check_texts
from pipeline.manifest.clips import Clip, read_classes, write_clips
from pipeline.manifest.texts import read_texts
from pipeline.params import load_params
from pipeline.protocol.ceiling import ceilings, read_attributes
from pipeline.protocol.heldout import heldout_clips
from pipeline.protocol.splits import Split, read_split
from pipeline.protocol.training_set import training_phase
from pipeline.video.image import read_image

GYM = Path(__file__).parent.parent / "manifests/gym"
NAMES = read_classes(GYM / "classes.csv")
NOBODY = {"Ankle Circles", "Kneeling Jump Squat", "Pin Presses", "Reverse Band Bench Press"}
REAL = Path(__file__).parent.parent.parent / "shared/real/gym"
NEEDS_PHOTOS = pytest.mark.skipif(not REAL.is_dir(), reason="../shared/real/gym, with its photos, is absent")
EACH_KIND = pytest.mark.parametrize("kind", ["shoot", "movement"])


def attribute(name: str) -> list[str]:
    return [row.needed(name) for row in open_table(GYM / "attributes.csv", ("index", name))]


def folds(kind: str) -> list[Split]:
    return [read_split(GYM / "protocols", f"{kind}_{k}", NAMES) for k in range(1, 6)]


@pytest.mark.unit
def test_every_exercise_has_attributes():
    assert len(NAMES) == 873 and list(read_attributes(GYM / "attributes.csv")) == list(range(873))
    equipment = Counter(attribute("equipment"))
    assert (equipment["barbell"], equipment["kettlebells"], len(equipment)) == (170, 53, 13)
    assert read_attributes(GYM / "attributes.csv")[NAMES.index("Barbell Curl")] == ("curl", "barbell")
    assert ceilings(GYM / "attributes.csv", [0, 1], {0: 1, 1: 1}) == {}, "none is known of real people"


@pytest.mark.unit
def test_the_texts_are_worth_training_on():
    assert check_texts(read_texts(GYM / "texts.csv", NAMES)[1], NAMES) == []


@pytest.mark.unit
@EACH_KIND
def test_a_shoot_or_a_movement_is_in_one_fold(kind):
    nobody = {NAMES.index(name) for name in NOBODY}
    members = [set(split.unseen) - nobody for split in folds(kind)]
    assert all(nobody <= set(split.unseen) for split in folds(kind))
    assert set().union(*members) | nobody == set(range(873)) and sum(map(len, members)) == 873 - len(nobody)
    assert all(172 <= len(fold) <= 175 for fold in members)
    assert all(set(split.validation) == members[k % 5] for k, split in enumerate(folds(kind), start=1))
    place = {index: k for k, fold in enumerate(members) for index in fold}
    of = defaultdict(set)
    for index, value in enumerate(attribute(kind)):
        of[value].add(place.get(index))
    assert all(len(found - {None}) <= 1 for found in of.values())


@pytest.mark.real
@NEEDS_PHOTOS
@EACH_KIND
def test_one_photo_is_in_one_fold(kind):
    place = {index: k for k, split in enumerate(folds(kind)) for index in split.unseen if NAMES[index] not in NOBODY}
    of = defaultdict(set)
    for row in open_table(REAL / "exercises.csv", ("id", "name")):
        for photo in (REAL / "frames" / row.text("id")).iterdir():
            of[sha256_file(photo)].add(place.get(NAMES.index(row.text("name"))))
    assert all(len(found - {None}) <= 1 for found in of.values()) and len(of) < 2 * 873


@pytest.mark.real
@NEEDS_PHOTOS
def test_every_exercise_trains_where_it_is_seen_and_tests_where_it_is_unseen(tmp_path):
    (tmp_path / "gym").mkdir()
    for name in ("classes.csv", "protocols"):
        (tmp_path / "gym" / name).symlink_to(GYM / name)
    result = ingest("gym", REAL, image_fps=1, manifests=tmp_path)
    assert (result.clips, result.unreadable, result.left_out, result.missing) == (873, (), (), ())
    dataset = open_dataset("gym", tmp_path)
    split = dataset.split("shoot_1")
    assert {c.label for c in training_phase("final", split, dataset.clips).train} == set(split.seen)
    assert {c.label for c in heldout_clips(split, dataset.clips).unseen} == set(split.unseen)


@pytest.mark.real
@NEEDS_PHOTOS
def test_a_curl_of_two_photos_lifts_the_wrists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = Path("cache/weights")
    weights.parent.mkdir()
    weights.symlink_to(REAL.parent / "weights")
    params = load_params(GYM.parents[1] / "params/gym.yaml")
    curl = Clip("curl", "frames/Barbell_Curl/", label=0, part="both", fps=params.datasets["gym"].image_fps)
    write_clips(Path("manifests/gym/clips.csv"), [curl])
    recipe = resolve_weights(params.recipes["tinypose"])
    result = extract("gym", "tinypose", recipe, REAL, params=params.extract, build_estimator=build_estimator)
    with CacheReader(result.index) as reader:
        row = reader.read(["curl"], reader.names)
    assert row["timestamp"].tolist() == [[0, 1]] and row["person_valid"].all()
    assert row["cues"].shape == (1, 1, 2, 6, 20 + 80 + 80 + 320) and (row["cue_scores"][0, 0, :, 0] > 0).all()
    wrists = row["keypoints"][0, 0, :, 9:11, 1].mean(-1)  # [2], down the picture
    assert wrists[0] - wrists[1] > 0.2 * row["boxes"][0, 0, 0, 3]


@pytest.mark.real
@pytest.mark.slow
@NEEDS_PHOTOS
def test_shoots_are_found_by_their_rule():
    """16 x 12 mean colours (CIE Lab, of OpenCV) of every photo. Two photos are as far apart as the 60 % of these that
    differ least do on average, so a person in front does not count; two exercises as their two nearest photos. Average
    linkage, cut where the largest cluster holds at most a fifth of the exercises. No label is looked at.
    """
    ids = [row.text("id") for row in open_table(REAL / "exercises.csv", ("id", "name"))]
    photos = [read_image(path)[0] for name in ids for path in sorted((REAL / "frames" / name).iterdir())]
    small = [cv2.resize(photo, (16, 12), interpolation=cv2.INTER_AREA) for photo in photos]
    colours = np.stack([cv2.cvtColor(each, cv2.COLOR_RGB2LAB).reshape(-1, 3) for each in small]).astype(np.float32)
    alike = int(0.6 * colours.shape[1])
    apart = np.stack([np.partition(np.abs(each - colours).mean(-1), alike, 1)[:, :alike].mean(1) for each in colours])
    nearest = apart.reshape(873, 2, 873, 2).min((1, 3))
    np.fill_diagonal(nearest, 0)
    tree = linkage(squareform((nearest + nearest.T) / 2, checks=False), "average")
    cuts = (fcluster(tree, count, "maxclust") for count in range(1, 873))
    found = next(cut for cut in cuts if np.bincount(cut).max() <= 873 / 5)
    ours = attribute("shoot")
    assert all((found[a] == found[b]) == (ours[a] == ours[b]) for a, b in combinations(range(873), 2))
