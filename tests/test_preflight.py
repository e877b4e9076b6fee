"""All that a command of stage two lacks is told at once, with its remedy, before anything is computed."""

from __future__ import annotations

from dataclasses import replace

import h5py
import pytest
import yaml
from click.testing import CliRunner
from synthetic import CLASSES, FLAGS, PARAMS, PROTOCOL, SEEN, make_world

import pipeline.learn.encode
import pipeline.learn.evaluate
import pipeline.learn.train
import stages.encode
import stages.evaluate
import stages.train
from pipeline.errors import PosebridgeError
from pipeline.learn.dataset import Dataset, open_dataset
from pipeline.learn.encode import encode
from pipeline.learn.evaluate import evaluate
from pipeline.learn.train import train
from pipeline.params import RunParams

pytestmark = pytest.mark.unit
RUN = RunParams(flags=FLAGS)
QUICK = replace(PARAMS, encode=replace(PARAMS.encode, epochs=1, seeds=(0, 1)), train=replace(PARAMS.train, epochs=1))


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A data set in which nothing may be computed."""
    world = make_world(tmp_path)
    for module, name in (
        (pipeline.learn.encode, "each_seed"),
        (pipeline.learn.train, "each_seed"),
        (pipeline.learn.evaluate, "evaluate_seed"),
    ):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("it computes"))
    return world


def lines(call, *arguments, **options):
    """What is missing, line by line; the head of a longer list is left out."""
    with pytest.raises(PosebridgeError) as error:
        call(*arguments, **options)
    found = [line.strip() for line in str(error.value).splitlines()]
    if len(found) > 1:
        assert found.pop(0) == f"{len(found)} things are missing:"
    return found


def without_extractions(world):
    """The same files, whose extractions are looked for on the disk, in vain."""
    return Dataset(world.name, world.manifests, world.cache, world.class_names, world.clips)


def drop_texts(world, dropped):
    """Take the texts (class, slot) out of the bank."""
    with h5py.File(world.cache / "text/minilm/toy.h5", "r+") as file:
        for name, slot in dropped:
            file["mask"][CLASSES.index(name), list(file["slots"].asstr()[:]).index(slot)] = False


def test_encode_lists_protocol_parts_and_extraction(world):
    for path in (world.folder / "protocols").iterdir():
        path.unlink()
    found = lines(encode, without_extractions(world), PROTOCOL, "refined", QUICK.encode)
    assert len(found) == 3 and "posebridge extract --dataset toy --recipe refined" in found[2]
    assert f"{PROTOCOL}.txt is missing" in found[0] and f"{PROTOCOL}.val.txt is missing" in found[1]


def test_classes_without_train_clips_are_listed_by_name(world):
    lacking = ("Ar", "Cp", "Eq")
    clips = tuple(
        c if CLASSES[c.label] not in lacking or c.part == "test" else replace(c, part="") for c in world.clips
    )
    (line,) = lines(encode, replace(world, clips=clips), PROTOCOL, "refined", QUICK.encode)
    assert "'Ar', 'Cp', 'Eq' have no clip of part `train`" in line and "clips.csv" in line


def test_classes_whose_extraction_failed_are_listed(world):
    reader = world.readers["refined"]
    reader.clip_ids = [clip_id for clip_id in reader.clip_ids if not clip_id.startswith(("Br-", "Dp-"))]
    (line,) = lines(encode, world, PROTOCOL, "refined", QUICK.encode)
    assert "no train clip of 'Br', 'Dp'" in line and "--retry-failed" in line


def test_train_lists_every_slot_and_every_encoder(world):
    drop_texts(world, [("Ar", "hands"), ("Ap", "hands"), ("Bs", "global")])
    found = lines(train, world, PROTOCOL, "r", RUN, QUICK)
    assert len(found) == 2 + 4 and all("posebridge text --dataset toy --encoder minilm" in line for line in found[:2])
    assert (
        "'Ar', 'Ap' have no text in the slot 'hands'" in found[0]
        and "'Bs' has no text in the slot 'global'" in found[1]
    )
    names = [f"seed-{seed}/{phase}.safetensors" for seed in (0, 1) for phase in ("select", "final")]
    assert all(name in line and "posebridge encode" in line for name, line in zip(names, found[2:], strict=True))


def test_where_there_is_no_bank_yet_the_texts_themselves_are_looked_at(world):
    (world.cache / "text/minilm/toy.h5").unlink()
    rows = [f"{i},{slot},words" for i, name in enumerate(CLASSES) for slot in ("label", "one_line", "hands", "global")
            if (name, slot) != ("Dq", "global")]  # fmt: skip
    (world.folder / "texts.csv").write_text("\n".join(["index,slot,text", *rows]) + "\n")
    found = lines(train, without_extractions(world), PROTOCOL, "r", RUN, QUICK)
    assert sum("posebridge extract --dataset toy --recipe refined" in line for line in found) == 1
    assert sum("toy.h5 is missing; run `posebridge text" in line for line in found) == 1
    assert sum("'Dq' has no text in the slot 'global'" in line for line in found) == 1
    assert sum("posebridge encode" in line for line in found) == 4 and len(found) == 7


@pytest.mark.parametrize("flags", [{"level_widths": ["x"]}, {"anchors": 5}, {"anchors": [[]]}, {"heads": 0}], ids=str)
@pytest.mark.parametrize("method", ["posebridge", "pgfa"])
def test_odd_flags_are_told_beside_all_else_that_is_missing(world, method, flags):
    found = lines(train, without_extractions(world), PROTOCOL, "r", RunParams(method=method, flags=flags), QUICK)
    (name,) = flags
    assert sum(name in line and f"method {method}" in line for line in found) == 1
    assert sum("posebridge extract" in line for line in found) == 1


def test_words_that_a_method_reads_are_asked_of_seen_classes(world):
    rows = [f"{i},{slot},words" for i, name in enumerate(CLASSES) for slot in ("label", "one_line", "hands", "global")]
    (world.folder / "texts.csv").write_text("\n".join(["index,slot,text", *rows]) + "\n")
    found = lines(train, world, PROTOCOL, "r", RunParams(method="skeletoncontext", flags={"heads": 2}), QUICK)
    assert sum("no slot 'key_parts'" in line for line in found) == 1


def test_evaluate_lists_models_encoders_and_attributes(world):
    attributes = world.folder / "attributes.csv"
    attributes.write_text(
        "\n".join(line for line in attributes.read_text().splitlines() if not line.endswith(",A,q")) + "\n"
    )
    (world.cache / "videos/toy/twins.csv").write_text("clip,tuple\n")
    found = lines(evaluate, world, PROTOCOL, "r", RUN, QUICK)
    assert "attributes.csv lacks the unseen class" in found[0] and "twins.csv lacks the column" in found[1]
    assert sum("final.safetensors is missing; run `posebridge train" in line for line in found) == 2
    assert (
        sum("final.safetensors is missing; run `posebridge encode" in line for line in found) == 2 and len(found) == 6
    )


def test_what_is_all_there_goes_on(world):
    with pytest.raises(pytest.fail.Exception, match="it computes"):
        encode(world, PROTOCOL, "refined", QUICK.encode)


def test_the_commands_list_what_they_lack_with_nothing_there(tmp_path, monkeypatch):
    """Not even clips.csv: the rest is told all the same, without a bar before it and without a traceback."""
    world = make_world(tmp_path)
    (world.folder / "clips.csv").unlink()
    (world.cache / "text/minilm/toy.h5").unlink()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"recipes": {"refined": {}}, "runs": {"r": {}}}))
    base = ["--dataset", "toy", "--protocol", PROTOCOL]
    wanted = {
        stages.encode: (["--skeletons", "refined"], ["ingest", "extract"]),
        stages.train: (["--run", "r"], ["ingest", "extract", "text", "encode"]),
        stages.evaluate: (["--run", "r"], ["ingest", "extract", "text", "encode", "train"]),
    }
    for stage, (options, commands) in wanted.items():
        result = CliRunner().invoke(stage.command, [*base, *options])
        assert result.exit_code == 1 and "things are missing" in result.stderr, result.stderr
        assert all(f"`posebridge {command}" in result.stderr for command in commands), result.stderr
    for made, of in (("encoders", "refined"), ("models", "r")):
        assert f"cache/{made}/toy/{PROTOCOL}/{of}/seed-0/final.safetensors is missing" in result.stderr


def test_membership_of_a_class_is_not_computed_for_every_clip(world):
    split = world.split(PROTOCOL)
    assert split.seen is split.seen and split.phase_one is split.phase_one and len(split.seen) == len(SEEN)


def test_a_class_list_that_is_broken_is_named_and_nothing_that_follows_from_it(world):
    for content in ("index,name\n", "name\nx\n"):
        (world.folder / "classes.csv").write_text(content)
        opened = open_dataset(world.name, world.manifests, world.cache, strict=False)
        found = [line for line in lines(train, opened, PROTOCOL, "r", RUN, QUICK) if ".csv" in line]
        assert len(found) == 1 and "classes.csv l" in found[0], found
