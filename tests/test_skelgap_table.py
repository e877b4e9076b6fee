"""The table of skelgap in params/tables.yaml: it trains and tests every run of params/skelgap.yaml, and writes where it
says.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc.repo import Repo

from pipeline.manifest.variants import of_variant, strength
from pipeline.params import Params, load_params
from pipeline.synth.knobs import COUNTERFACTUALS, VARIANTS

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parent.parent
HEADLINE = "compositional_30_10"
OTHERS = {"pgfa", "purls", "purls_matched", "skeletoncontext"}


@pytest.fixture(scope="module")
def params() -> Params:
    return load_params(ROOT / "params/skelgap.yaml")


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repo]:
    """The stages of demo and tables, where DVC finds both; it reads them once."""
    project = tmp_path_factory.mktemp("tables")
    for name in ("dvc.yaml", "params.yaml", ".dvc/config", "params/tables.yaml"):
        (project / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, project / name)
    (project / "params" / "dvc.yaml").symlink_to("tables.yaml")
    with Repo(str(project)) as found:
        yield found


@pytest.fixture(scope="module")
def stages(repo: Repo) -> list[tuple[dict[str, str], list[str]]]:
    """(option -> value with `""` -> command, what it writes) of every stage on skelgap."""
    found = []
    for stage in repo.index.stages:
        words = str(stage.cmd or "").partition(" && ")[0].split()
        if "params/skelgap.yaml" in words:
            if words[1] == "bench":  # a group
                words[1:3] = ["bench leaks"]
            outs = [out.def_path for out in stage.outs]
            found.append(({"": words[1], **dict(zip(words[2::2], words[3::2], strict=True))}, outs))
    return found


def of(stages, command: str) -> list[tuple[dict[str, str], list[str]]]:
    return [(values, outs) for values, outs in stages if values[""] == command]


def test_every_run_is_trained_and_tested(stages, params: Params) -> None:
    for command in ("train", "evaluate"):
        tried = {(v["--protocol"], v["--run"]) for v, _ in of(stages, command) if "--variant" not in v}
        assert {run for _, run in tried} == set(params.runs)
        assert {run for protocol, run in tried if protocol == HEADLINE} == set(params.runs) - {"posebridge_strict"}
        for protocol in (HEADLINE, "motion_only"):
            methods = {*OTHERS, *(f"{name}_cues" for name in OTHERS), "posebridge", "skeleton"}
            assert {(protocol, run) for run in methods} <= tried
        for run in ("posebridge", "posebridge_strict", "levels_kp", "skeleton"):
            assert ("novel_object_30_10", run) in tried
    encoded = {(v["--protocol"], v["--skeletons"]) for v, _ in of(stages, "encode")}
    extracted = {v["--recipe"] for v, _ in of(stages, "extract")}
    assert extracted == set(params.recipes)
    for values, _ in of(stages, "train"):
        run = params.runs[values["--run"]]
        skeletons = run.recipe if run.skeletons == "estimated" else run.skeletons
        assert (values["--protocol"], skeletons) in encoded, f"{values['--run']} has no encoder"


def test_a_run_waits_for_every_extraction_that_it_reads(params: Params, repo: Repo) -> None:
    """Itself, or by the checksums of what it shares with others; and for the encoder of its skeletons, and no other."""
    behind = {out.def_path: stage.deps for stage in repo.index.stages for out in stage.outs}
    for stage in repo.index.stages:
        words = str(stage.cmd).split() if stage.cmd else []
        if "params/skelgap.yaml" in words and words[1] in ("train", "evaluate"):
            run = params.runs[words[words.index("--run") + 1]]
            deps = {dep.def_path for dep in stage.deps}
            deps |= {dep.def_path for path in deps if path.startswith("cache/sums/") for dep in behind[path]}
            skeletons = run.recipe if run.skeletons == "estimated" else run.skeletons
            for recipe in {run.recipe, skeletons}:
                assert f"cache/skelgap/{recipe}/index.json" in deps, stage.addressing
            encoders = {path for path in deps if path.startswith("cache/encoders/")}
            assert encoders == {f"cache/encoders/skelgap/{words[words.index('--protocol') + 1]}/{skeletons}"}


def test_variants_exist_and_are_rendered_extracted_and_tested(stages) -> None:
    rendered, extracted, tested = (
        {v["--variant"] for v, _ in of(stages, command) if "--variant" in v}
        for command in ("synth", "extract", "evaluate")
    )
    assert rendered == extracted == tested and rendered <= set(VARIANTS)
    assert set(COUNTERFACTUALS) <= rendered
    for kind in ("occlusion", "blur", "low_light"):
        assert {strength(name) for name in rendered} >= {(kind, level) for level in (1, 2, 3)}
    runs = {v["--run"] for v, _ in of(stages, "evaluate") if "--variant" in v}
    assert {"posebridge", "skeleton", "gate"} <= runs


def test_stages_write_where_they_say(stages) -> None:
    for values, outs in stages:
        variant, protocol, run = (values.get(f"--{name}", "") for name in ("variant", "protocol", "run"))
        expected = {
            "synth": f"cache/videos/{of_variant('skelgap', variant)}",
            "extract": f"cache/skelgap/{of_variant(values.get('--recipe', ''), variant)}/index.json",
            "evaluate": f"cache/results/skelgap/{protocol}/{of_variant(run, variant)}",
            "bench leaks": f"cache/leaks/skelgap/{protocol}/{run}.csv",
            "train": f"cache/models/skelgap/{protocol}/{run}",
        }
        if run.endswith(("_jittered", "_detected")):  # else the table of all results would ask for them
            expected["evaluate"] = f"cache/sums/skelgap/{run}.txt"
        if values[""] in expected:
            assert outs[0] == expected[values[""]]


def test_the_leaderboard_waits_for_every_method(params: Params, repo: Repo) -> None:
    (stage,) = (s for s in repo.index.stages if getattr(s, "name", "") == "leaderboard")
    deps = {dep.def_path for dep in stage.deps}
    graph = {s.addressing for s in repo.stage.collect(f"{repo.root_dir}/params/dvc.yaml:leaderboard", with_deps=True)}
    for protocol in (HEADLINE, "motion_only"):
        for run in {"posebridge", "skeleton"} | OTHERS | {f"{name}_cues" for name in OTHERS}:
            folder = f"cache/results/skelgap/{protocol}"  # as a whole, or the run's
            assert deps & {folder, f"{folder}/{run}"}
            assert any("evaluate-skelgap" in name and f"@{protocol}-{run}-" in name for name in graph), run
    for run in ("skeleton", *OTHERS):
        assert f"cache/results/skelgap/{HEADLINE}/{run}_gt" in deps
    extracted = {name.rpartition("@")[2] for name in graph if "extract-skelgap" in name}
    assert extracted == {"refined", "gt"}, "no run of the leaderboard reads another extraction"
    for name, run in params.runs.items():
        if run.method in OTHERS and not run.flags.get("cues"):
            cued = params.runs.get(f"{name}_cues")
            assert name.endswith("_gt") or (cued and cued.flags == {**run.flags, "cues": True}), "one switch apart"
        if run.method in OTHERS:
            assert run.adapt, "adaptation is measured for every method"


def test_the_prices_of_leaks_are_of_every_method_on_true_skeletons(repo: Repo) -> None:
    graph = {s.addressing for s in repo.stage.collect(f"{repo.root_dir}/params/dvc.yaml:leaks", with_deps=True)}
    priced = {name.rpartition("-")[2] for name in graph if "leaks-skelgap" in name}
    assert priced == {"posebridge", "skeleton_gt", *(f"{name}_gt" for name in OTHERS)}
