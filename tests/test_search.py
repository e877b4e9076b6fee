"""`search`: clips of a cache by a sentence or an example; what is stale, foreign or missing is told, never answered."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from fakes import FakeEstimator, write_video
from test_predict import project, trained  # noqa: F401 (fixtures)

import pipeline.search.build as build
import pipeline.search.nearest as nearest
from pipeline.cache.sealed import seal
from pipeline.errors import PosebridgeError
from pipeline.extract.extract import extract
from pipeline.hpe.weights import resolve_weights
from pipeline.learn.dataset import open_dataset
from pipeline.learn.encoders import load_encoder
from pipeline.learn.run import open_run
from pipeline.learn.trained import load_method
from pipeline.manifest.clips import read_clips, write_clips
from pipeline.params import ExtractParams, load_params
from pipeline.search.embedders import Skeletons, Trained, check_query, foreign
from pipeline.search.search import Search
from pipeline.search.vectors import Vectors
from pipeline.text.minilm import MiniLM
from stages.cli import main

faiss = pytest.importorskip("faiss")
RUN = ("--run", "fast")
PLACE = Path("cache/search/toy/all_seen/fast/seed-0/toy")


def call(*words: str) -> Result:
    done = CliRunner().invoke(main, ["search", *words, "--json"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def ask(*words: str) -> dict:
    done = call(*words)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def refused(*words: str) -> str:
    done = call(*words)
    assert done.exit_code == 1, done.output
    return done.stderr


@pytest.fixture
def alone(project: Path) -> Path:  # noqa: F811
    """The project without an index."""
    shutil.rmtree("cache/search", ignore_errors=True)
    return project


@pytest.fixture
def copied(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project, to change."""
    monkeypatch.chdir(shutil.copytree(alone, tmp_path, dirs_exist_ok=True))
    return tmp_path


def embedder() -> Trained:
    return Trained("toy", "all_seen", "fast", load_params(Path("params.yaml")).runs["fast"])


def test_hits_are_the_scores_of_the_method(alone: Path):
    """The order and the cosines are those of the run's own scores with the query in every slot."""
    found = ask("a person bows", *RUN, "--top", "20")
    assert found["clips"] == 20 and found["trained_on"] == ["wave a hand", "bow", "kick a ball", "sit down"]
    model = embedder()
    samples = model.opened.samples(model.opened.dataset.clips)
    scores = model.embed(samples) @ model.say("a person bows")[0][0]
    expected = sorted(zip(scores.tolist(), samples.clip_ids, strict=True), reverse=True)
    got = {hit["clip_id"]: hit["score"] for hit in found["hits"]}
    assert got == pytest.approx({clip_id: score for score, clip_id in expected}, abs=2e-3)
    assert [hit["score"] for hit in found["hits"]] == sorted(got.values(), reverse=True)
    assert found["hits"][0]["path"].endswith(".mp4") and found["hits"][0]["dataset"] == "toy"


def test_an_example_finds_itself_and_needs_no_run(alone: Path):
    for words in ((*RUN,), ("--recipe", "fake")):
        found = ask("--like", "videos/2-3.mp4", "--in", "toy", "--top", "20", *words)
        own = next(hit for hit in found["hits"] if hit["clip_id"] == "2-3")
        assert own["score"] == pytest.approx(found["hits"][0]["score"], abs=2e-3) and own["score"] > 0.99
    assert "trained_on" not in found


def test_a_page_has_frames_and_no_markup_of_others(alone: Path):
    page = alone / "found.html"
    ask("<script>bow</script>", *RUN, "--top", "2", "--html", str(page))
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") == 2 and "<script>" not in text and "whole video" in text


def test_only_new_shards_are_embedded_and_another_model_is_refused(alone: Path, monkeypatch: pytest.MonkeyPatch):
    ask("bow", *RUN)
    counted: list[int] = []
    plain = Trained.embed
    monkeypatch.setattr(Trained, "embed", lambda self, samples: counted.append(len(samples)) or plain(self, samples))
    ask("bow", *RUN)
    assert not counted, "an index that is up to date is read"
    values = json.loads((PLACE / "search.json").read_text())
    shard = values["shards"].pop()  # as if killed before it, or as if the shard were new
    (PLACE / "search.json").write_text(json.dumps(seal(values | {"source": ""})))
    assert len(ask("bow", *RUN, "--top", "30")["hits"]) == 20
    assert counted == [1, shard["count"]]  # the first tells the width
    values = json.loads((PLACE / "search.json").read_text())
    (PLACE / "search.json").write_text(json.dumps(seal(values | {"model": "0" * 64})))
    with pytest.raises(PosebridgeError, match="another run, encoder or extraction"):
        Search(embedder(), ["toy"])
    counted.clear()
    ask("bow", *RUN)
    assert sum(counted) == 21, "of another model nothing is kept"


def test_a_shard_that_went_takes_its_clips_along(tmp_path: Path):
    vectors = Vectors(tmp_path)
    with vectors.alone():
        vectors.begin("a" * 64, 2, frozenset())
        for number, key in enumerate("bcd"):
            vectors.add(key * 64, np.full((2, 2), number), [(f"{key}{i}", "", None, None) for i in range(2)])
        vectors.seal()
        with pytest.raises(PosebridgeError, match="Another process"), Vectors(tmp_path).alone():
            pass
        vectors.begin("a" * 64, 2, frozenset({"b" * 64, "d" * 64}))
    kept = Vectors(tmp_path)
    assert kept.mapped()[:, 0].tolist() == [0, 0, 2, 2] and kept.entry(3)[0] == "d1"
    assert len(list(tmp_path.glob("vectors-*"))) == 1


@pytest.mark.parametrize("name", ["search.json", "vectors-1.f16", "clips-1.json"])
def test_damage_is_told(alone: Path, name: str):
    ask("bow", *RUN)
    generation = Vectors(PLACE).known.generation
    path = PLACE / name.replace("-1", f"-{generation}")
    path.write_bytes(path.read_bytes()[:-40])
    assert "search again" in refused("bow", *RUN)


@pytest.mark.unit
@pytest.mark.parametrize("file", ["vectors-1.f16", "clips-1.json"])
def test_a_flipped_bit_is_told_and_a_damaged_shard_is_not_copied(tmp_path: Path, file: str):
    vectors = Vectors(tmp_path)
    with vectors.alone():
        for model in "ab":
            vectors.begin(model * 64, 2, frozenset())
        for key in "cde":
            vectors.add(key * 64, np.full((2, 2), 1), [(f"{key}{i}", "", None, None) for i in range(2)])
        vectors.seal()
    content = bytearray((tmp_path / file).read_bytes())
    content[2] ^= 1  # within the first shard
    (tmp_path / file).write_bytes(content)
    opened = Vectors(tmp_path)
    assert opened.entry(5)[0] == "e1", "its own shard is sound"
    for look in (lambda: opened.entry(0), opened.check):
        with pytest.raises(PosebridgeError, match="is damaged; delete it and search again"):
            look()
    with opened.alone():
        opened.begin("b" * 64, 2, frozenset({"c" * 64, "d" * 64}))
    assert [shard.key[0] for shard in opened.known.shards] == ["d"]
    values = json.loads((tmp_path / "search.json").read_text())
    for shard in values["shards"]:
        del shard["crc"]
    (tmp_path / "search.json").write_text(json.dumps(seal(values)))
    assert Vectors(tmp_path).entry(1)[0] == "d1", "one without checksums is read"


@pytest.mark.unit
def test_more_clips_have_lists_and_are_compared_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """IVF-PQ finds what a comparison with all finds; new clips are added to its lists."""
    monkeypatch.setattr(build, "FLAT", 500)
    generator = np.random.default_rng(0)
    all_of_them = generator.standard_normal((3000, 32)).astype(np.float32)
    all_of_them /= np.linalg.norm(all_of_them, axis=1, keepdims=True)
    vectors = Vectors(tmp_path)
    with vectors.alone():
        vectors.begin("a" * 64, 32, frozenset())
        for key, part in (("b", all_of_them[:2000]), ("c", all_of_them[2000:])):
            vectors.add(key * 64, part, [("x", "", None, None)] * len(part))
            vectors.seal()
            build.index_vectors(vectors)
    assert vectors.known.trained == 2000 and vectors.known.indexed == 3000
    assert len(list(tmp_path.glob("ivfpq-*"))) == 1
    opened = nearest.Nearest(vectors.mapped(), vectors.index_file())
    flat = nearest.Nearest(vectors.mapped())
    asked = all_of_them[::100]
    same = [set(opened.find(one[None], 10)[1]) == set(flat.find(one[None], 10)[1]) for one in asked]
    assert np.mean(same) > 0.8
    path = vectors.index_file()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(PosebridgeError, match="damaged"):
        vectors.index_file()
    with vectors.alone():
        vectors.begin("b" * 64, 32, frozenset())
    assert not list(tmp_path.glob("ivfpq-*")), "of another model nothing is kept"


@pytest.mark.unit
def test_only_a_flat_index_goes_to_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """FAISS on a GPU refuses codes of more than 48 bytes, as those of 384 numbers are."""
    moved: list[str] = []
    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: None, raising=False)
    monkeypatch.setattr(
        faiss, "index_cpu_to_gpu", lambda _, place, index: moved.append(type(index).__name__) or index, raising=False
    )
    vectors = np.random.default_rng(0).standard_normal((2000, 16)).astype(np.float16)
    nearest.write_index(vectors, tmp_path / "lists.faiss")
    gpu = torch.device("cuda")
    for path in (None, tmp_path / "lists.faiss"):
        assert len(nearest.Nearest(vectors, path, gpu).find(vectors[:1], 3)[1]) == 3
    assert moved == ["IndexFlatIP"]


def test_a_clip_without_cues_is_left_out(copied: Path):
    """Skeletons of one recipe and cues of another, in which the first clip failed."""
    params = load_params(Path("params.yaml"))
    Path("videos/0-0.mp4").write_bytes(b"no video")
    other = resolve_weights(params.recipes["other"])
    extract("toy", "other", other, Path("videos"), params=ExtractParams(), build_estimator=lambda _: FakeEstimator())
    both = Skeletons("fake", resolve_weights(params.recipes["fake"]).fingerprint)
    both.cue_recipe, both.fingerprints = "other", (*both.fingerprints, other.fingerprint)
    assert build.update("toy", both) == 19


def test_a_data_set_of_which_no_clip_is_embedded_takes_nothing_from_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pipeline.search.search.is_current", lambda *_: True)
    there = np.eye(2)
    asked = SimpleNamespace(place=("fake",))
    for name, rows in (("empty", there[:0]), ("full", there)):
        vectors = Vectors(build.folder_of(tmp_path, asked, name))
        with vectors.alone():
            vectors.begin("a" * 64, 2, frozenset())
            if len(rows):
                vectors.add("b" * 64, rows, [(f"{name}{i}", "", None, None) for i in range(len(rows))])
            vectors.seal()
    for names in (["empty", "full"], ["full", "empty"]):
        found = Search(asked, names, tmp_path)
        assert found.clips == 2 and [hit.clip_id for hit in found.find(there[1:], 5)] == ["full1", "full0"]
    assert Search(asked, ["empty"], tmp_path).find(there, 5) == []


def test_a_run_answers_though_clips_have_come_or_gone_since_it_was_trained(copied: Path):
    """Nothing is tested by it, so nothing can have been learnt by heart."""
    path = copied / "manifests/toy/clips.csv"
    write_clips(path, read_clips(path, 4)[:-1])
    dataset, run = open_dataset("toy"), load_params(Path("params.yaml")).runs["fast"]
    with pytest.raises(PosebridgeError, match="was trained on other clips"):
        load_method(open_run(dataset, "all_seen", run), "all_seen", "fast", 0)
    with pytest.raises(PosebridgeError, match="was trained on other clips"):
        load_encoder(dataset, "all_seen", "fake", 0, "final")
    assert embedder().say("a person bows")[0].shape[0] == 1


def test_of_the_trained_runs_one_answers_that_gives_a_clip_a_vector(copied: Path):
    assert ask("bow")["run"] == "fast"
    params = copied / "params.yaml"
    params.write_text(params.read_text().replace("fast: {", "fast: {method: purls, "))
    assert "No run of the parameters is trained here; train one of posebridge" in refused("bow")


def test_what_cannot_be_asked_is_one_sentence(alone: Path, monkeypatch: pytest.MonkeyPatch):
    assert CliRunner().invoke(main, ["search"]).exit_code == 2
    assert "no word" in refused(" ?! ", *RUN)
    assert "not trained" in refused("bow", "--run", "untrained", "--dataset", "toy", "--protocol", "all_seen")
    assert "posebridge extract --dataset nowhere" in refused("bow", *RUN, "--in", "nowhere")
    assert "posebridge extract --dataset NAME" in refused("--like", "videos/2-3.mp4", "--recipe", "other")
    write_video(alone / "broken.mp4", frames=10)
    (alone / "broken.mp4").write_bytes(b"no video")
    assert "broken.mp4 is no example" in refused("--like", "broken.mp4", *RUN)
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert "pip install" in refused("bow", *RUN)


@pytest.mark.unit
@pytest.mark.parametrize(
    "query,warned",
    [
        ("a person lifts a barbell", False),
        ("jumping jacks", False),
        ("человек поднимает штангу", True),
        ("一个人举起杠铃", True),
        ("ein Mensch stemmt die schwere Langhantel hoch", True),
    ],
)
def test_another_language_is_warned_of(query: str, warned: bool):
    assert bool(foreign(check_query(query), MiniLM())) == warned


@pytest.mark.unit
def test_a_book_is_no_query():
    with pytest.raises(PosebridgeError, match="at most"):
        check_query("lift " * 1000)


def test_the_bench_counts_recall(tmp_path: Path):
    from pipeline.bench.search import bench_search

    torch.set_num_threads(1)
    found = bench_search(tmp_path, 2000, 16, questions=10)
    assert found.recall > 0.8 and found.missed == pytest.approx(1 - min(found.recall, found.recall_far))
