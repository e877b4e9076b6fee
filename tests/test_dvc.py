"""dvc.yaml: what it names exists, and it re-runs what has changed and nothing else."""

from __future__ import annotations

import ast
import functools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import networkx
import pytest
import yaml
from dvc.repo import Repo
from dvc.stage import PipelineStage
from dvc_project import calls, copied, dvc, with_tables

from pipeline.manifest.texts import texts_path
from pipeline.params import load_params
from stages.cli import COMMANDS

ROOT = Path(__file__).parent.parent
# Their products carry a hash that decides what is made anew: ALGORITHM and a recipe's fingerprint, and that of weights.
BY_FINGERPRINT = {"extract", "tune-hpe"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project as a tarball gives it, for one test: no git, no generated file."""
    return copied(tmp_path / "posebridge")


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repo]:
    """Such a copy with its tables, to look at; DVC reads its stages once."""
    with Repo(str(with_tables(copied(tmp_path_factory.mktemp("dvc") / "posebridge")))) as found:
        yield found


@pytest.mark.unit
def test_everything_that_dvc_yaml_names_exists(repo: Repo) -> None:
    stages = [stage for stage in repo.index.stages if stage.cmd]
    outs = {Path(out.def_path) for stage in stages for out in stage.outs}
    above = {folder for out in outs for folder in out.parents}
    for stage in stages:
        words = str(stage.cmd).split()
        assert is_of_sums(stage) or words[0] == "posebridge" and words[1] in COMMANDS, stage.cmd
        for dep in stage.deps:
            if hasattr(dep, "params"):
                continue
            path = Path(dep.def_path)
            made = path in outs or path in above or any(folder in outs for folder in path.parents)
            assert made or (Path(repo.root_dir) / path).exists(), f"{stage.name} depends on {path}, which is not there"


def is_of_sums(stage: PipelineStage) -> bool:
    """Whether a stage writes checksums, of rooms or of what runs share, instead of running a command."""
    return stage.name.startswith(("code@", "base-"))


def code_behind(stage: PipelineStage, makers: dict[str, PipelineStage]) -> Iterator[Path]:
    """The rooms and files of ours that a stage depends on, itself or by their checksums."""
    if stage.name.startswith("code@"):
        assert [dep.def_path for dep in stage.deps] == ["pipeline"], "any edit must run it"
        yield from (Path(word) for word in str(stage.cmd).split() if word.startswith("pipeline/"))
        return
    for dep in stage.deps:
        if dep.def_path in makers and is_of_sums(makers[dep.def_path]):
            yield from code_behind(makers[dep.def_path], makers)
        elif dep.def_path.startswith(("pipeline", "stages/")):
            yield Path(dep.def_path)


@functools.cache
def imported(path: Path) -> set[Path]:
    """The files of ours that one imports, late imports too, but none for types alone. Who takes a `find_...` from a
    room has all of it open, by name.
    """
    tree, found = ast.parse(path.read_text(encoding="utf-8")), set()
    types = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    for node in {*ast.walk(tree)} - {inner for part in types for inner in ast.walk(part)}:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("pipeline", "stages"):
            room = ROOT.joinpath(*str(node.module).split("."))
            for name in (alias.name for alias in node.names):
                places = room / f"{name}.py", room / name / "__init__.py", room.with_suffix(".py"), room / "__init__.py"
                found.add(next(place for place in places if place.is_file()))
                found |= set(room.glob("*.py")) if name.startswith("find_") else set()
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith(("pipeline.", "stages.")) for alias in node.names), path
    return found


@functools.cache
def needed(command: str) -> set[Path]:
    """The file of a command, and all of pipeline/ that it imports, directly or not; relative to the project."""
    waiting, seen = {ROOT / "stages" / f"{command.replace('-', '_')}.py"}, set()
    own = next(iter(waiting))
    while waiting:
        path = waiting.pop()
        seen.add(path)
        waiting |= imported(path) - seen
    return {path.relative_to(ROOT) for path in seen if path == own or "pipeline" in path.relative_to(ROOT).parts}


def uncovered(command: str, deps: set[Path]) -> set[Path]:
    """What a command imports and its stage does not depend on."""
    return {path for path in needed(command) if not deps & {path, *path.parents}}


@pytest.mark.unit
def test_a_stage_depends_on_every_room_that_its_command_imports(repo: Repo) -> None:
    """And on no other: what has not changed is not made again."""
    checked: set[tuple[str, frozenset[Path]]] = set()
    makers = {out.def_path: stage for stage in repo.index.stages for out in stage.outs}
    for stage in repo.index.stages:
        if is_of_sums(stage):
            assert all(dep.def_path in str(stage.cmd) for dep in stage.deps), f"{stage.addressing} sums up less"
            continue
        code, command = frozenset(code_behind(stage, makers)), str(stage.cmd).split()[1]
        if command in BY_FINGERPRINT or (command, code) in checked:
            continue
        checked.add((command, code))
        assert not (missing := uncovered(command, set(code))), f"{stage.addressing} forgets {sorted(missing)}"
        for dep in code if command != "bench" else ():  # the leaks': nearly all of pipeline/
            assert uncovered(command, {*code} - {dep}), f"{stage.addressing} depends on {dep} for nothing"
    assert {command for command, _ in checked} == {
        "synth", "ingest", "text", "encode", "train", "evaluate", "report", "bench"
    }  # fmt: skip


@pytest.mark.unit
def test_checksums_are_written_by_commands_that_every_system_has(repo: Repo) -> None:
    """Those of POSIX, with its options: nothing else is said to be on a macOS or a BSD."""
    commands = [str(stage.cmd) for stage in repo.index.stages if is_of_sums(stage)]
    words = {word for command in commands for word in command.split() if re.fullmatch(r"-?\w+", word)}
    assert words == {"mkdir", "-p", "find", "-type", "f", "-name", "sort", "xargs", "cksum"}


@pytest.mark.unit
def test_every_parameter_that_dvc_yaml_tracks_is_in_its_file_and_known(repo: Repo) -> None:
    tracked: dict[Path, set[str]] = {}
    for stage in repo.index.stages:
        for dep in stage.deps:
            if hasattr(dep, "params"):
                tracked.setdefault(Path(dep.def_path), set()).update(dep.params)
    demo, table = tracked[Path("params.yaml")], tracked[Path("params/paper-pku.yaml")]
    assert {"synth", "text", "encode", "train", "recipes.refined", "runs.posebridge"} <= demo
    assert {"text", "encode", "train", "recipes.levels", "runs.posebridge_levels", "datasets.pku_mmd"} <= table
    for path, keys in tracked.items():
        load_params(ROOT / path)  # strict: an unknown key would be refused
        written = yaml.safe_load((ROOT / path).read_text())
        for key in keys:
            section = written
            for part in key.split("."):
                assert part in section, f"a stage tracks {key}, but {path} has no {part}"
                section = section[part]


@pytest.mark.unit
@pytest.mark.parametrize("file", ["dvc.yaml", "params/tables.yaml"])
def test_the_text_stage_depends_on_the_texts_that_it_embeds(file: str) -> None:
    """`minilm@purls` embeds texts.purls.csv: DVC can only be told by a variable, which must not be forgotten."""
    (values,) = yaml.safe_load((ROOT / file).read_text())["vars"]
    paths = [ROOT / "params.yaml"] if file == "dvc.yaml" else list((ROOT / "params").glob("paper-*.yaml"))
    for path in paths:
        variant = load_params(path).text.encoder.partition("@")[2]
        assert values["texts"] == texts_path(Path(), variant).name, path


@pytest.mark.unit
def test_only_the_table_of_boxes_asks_for_a_detector(repo: Repo) -> None:
    """Whose file does not ship: folders that several stages write into must not tie them together."""
    graph = repo.index.graph
    wanting = {
        stage.name
        for stage in graph
        if stage.name in {"skelgap", "skelgap-headline", "skelgap-more", "skelgap-boxes", "leaderboard", "leaks"}
        and any("detected" in needed.name for needed in networkx.descendants(graph, stage))
    }
    assert wanting == {"skelgap-boxes"}


@pytest.mark.unit
def test_every_stage_is_in_the_order_of_the_corridor_and_seeds_are_inside() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert list(stages) == ["code", "synth", "ingest", "extract", "text", "encode", "train", "evaluate", "report"]
    assert not any("seed" in str(stage.get("matrix")) for stage in stages.values())


@pytest.mark.unit
def test_stages_work_without_git_and_without_network(project: Path) -> None:
    assert not (project / ".git").exists()
    config = (project / ".dvc" / "config").read_text()
    assert re.search(r"analytics = false", config) and re.search(r"check_update = false", config)
    graph = dvc(project, "dag", "--dot").stdout
    assert '"synth" -> "ingest"' in graph and '"evaluate@compositional_18_6-posebridge" -> "report"' in graph


@pytest.mark.unit
def test_the_picture_in_the_docs_is_that_of_the_stages(project: Path) -> None:
    """Without `code`, on which nearly all depend."""
    drawn = re.findall(r"^ +(\w+) --> (\w+)$", (ROOT / "docs" / "dvc.md").read_text(), re.M)
    said = dvc(project, "dag", "--collapse-foreach-matrix", "--mermaid").stdout
    names = dict(re.findall(r'(node\d+)\["(\w+)"\]', said))
    edges = [(names[a], names[b]) for a, b in re.findall(r"(node\d+)-->(node\d+)", said)]
    assert sorted(drawn) == sorted(edge for edge in edges if edge[0] != "code") and len(edges) > 10


@pytest.mark.unit
def test_a_plain_status_and_graph_are_of_the_demo_alone(project: Path) -> None:
    """DVC looks for stages by the name dvc.yaml: the tables, whose hundreds of stages are 8,400 lines, have another."""
    assert [path.relative_to(ROOT).as_posix() for path in ROOT.glob("*/dvc.yaml") if not path.is_symlink()] == []
    said = dvc(project, "status").stdout
    assert "synth:" in said and "report:" in said and len(said.splitlines()) < 250
    drawn = dvc(project, "dag", "--collapse-foreach-matrix").stdout
    assert max(map(len, drawn.splitlines())) < 300, "183 to a few above 200, by Python's hashes; with the tables 800"
    assert "params/dvc.yaml:paper-pku:" in dvc(with_tables(project), "status", "params/dvc.yaml:paper-pku").stdout


@pytest.mark.e2e
def test_repro_runs_what_has_changed_and_nothing_else(project: Path) -> None:
    calls(project)
    dvc(project, "repro", "--quiet")
    first = calls(project)
    assert [line.split()[0] for line in first].count("extract") == 2 and first[-1] == "report"
    compiled = project / "pipeline" / "learn" / "__pycache__" / "train.cpython-311.pyc"
    compiled.parent.mkdir()
    compiled.write_bytes(b"what Python leaves in a room")
    dvc(project, "repro", "--quiet")
    assert calls(project) == [], "a second repro must do nothing"

    params = project / "params.yaml"
    changed = yaml.safe_load(params.read_text())
    changed["train"]["lr"] = 0.123
    params.write_text(yaml.safe_dump(changed))
    dvc(project, "repro", "--quiet")
    assert {line.split()[0] for line in calls(project)} == {"train", "evaluate", "report"}

    changed["extract"] = {"batch_size": 3}
    params.write_text(yaml.safe_dump(changed))
    dvc(project, "repro", "--quiet")
    assert calls(project) == [], "a knob of speed must re-run nothing"

    method = project / "pipeline" / "methods" / "posebridge.py"
    method.write_text(method.read_text() + "\n")
    dvc(project, "repro", "--quiet")
    again = {line.split()[0] for line in calls(project)}
    assert again == {"train", "evaluate"}, "the stub's results are equal, so the report is not made again"

    changed["recipes"]["gt"]["frames"] = 16
    params.write_text(yaml.safe_dump(changed))
    dvc(project, "repro", "--quiet")
    assert calls(project)[0] == "extract --dataset skelgap-mini --recipe gt"


@pytest.mark.e2e
def test_one_command_makes_one_table_and_leaves_the_others_alone(project: Path) -> None:
    """With no run of `refined` at the top of params/tables.yaml, as for a lab without tuned pose weights."""
    stages, params = project / "params" / "tables.yaml", with_tables(project) / "params" / "paper-ntu-synse.yaml"
    text = stages.read_text().replace("run: [posebridge, skeleton]\n", "run: []\n", 1)
    for pgfa in ("pgfa_120", "pgfa"):
        runs = f"posebridge_levels, skeleton_levels, purls, skeletoncontext, {pgfa}"
        text = text.replace(runs, "skeleton_levels, purls")
    stages.write_text(text.replace("[synse_55_5, synse_48_12]", "[synse_55_5]").replace(", synse_96_24]", "]"))
    table = "params/dvc.yaml:paper-ntu-synse"
    calls(project)
    dvc(project, "repro", "--quiet", table)
    first = calls(project)
    assert all("--params params/paper-ntu-synse.yaml" in line for line in first)
    counts = Counter(line.split()[0] for line in first)
    assert counts == {"ingest": 2, "text": 2, "extract": 2, "encode": 2, "train": 4, "evaluate": 4, "report": 1}
    assert first[-1].startswith("report") and not any("refined" in line for line in first)
    tables = yaml.safe_load(stages.read_text())
    tables["stages"] = {name: stage for name, stage in tables["stages"].items() if "ntu" in name}
    stages.write_text(yaml.safe_dump(tables, sort_keys=False))  # DVC need not read all of them at each call
    dvc(project, "repro", "--quiet", table)
    assert calls(project) == [], "a second repro must do nothing"

    def edit(*names: str) -> None:
        for name in names:
            path = project / "pipeline" / name
            path.write_text(path.read_text() + "\n")

    edit("doctor.py", "hpe/crops.py", "report/templates/page.html")
    dvc(project, "repro", "--quiet", table)
    assert [line.split()[0] for line in calls(project)] == ["report"], "no run imports any of these rooms"
    edit("learn/loop.py", "cache/reader.py")
    dvc(project, "repro", "--quiet", "code")
    dvc(project, "commit", "--quiet", "--force", "--with-deps", table)
    edit("doctor.py")
    dvc(project, "repro", "--quiet", table)
    assert calls(project) == [], "whoever says that a change moves no figure has nothing made again"
    edit("methods/purls.py")
    dvc(project, "repro", "--quiet", table)
    assert Counter(line.split()[0] for line in calls(project)) == {"train": 4, "evaluate": 4}, "no encoder"

    changed = yaml.safe_load(params.read_text())
    changed["runs"]["skeleton_levels"]["flags"]["width"] = 32
    params.write_text(yaml.safe_dump(changed, sort_keys=False))
    dvc(project, "repro", "--quiet", table)
    again = calls(project)
    assert Counter(line.split()[0] for line in again) == {"train": 2, "evaluate": 2}, "the stub's results are equal"
    assert all("--run skeleton_levels" in line for line in again)

    changed["train"]["lr"] = 0.123
    params.write_text(yaml.safe_dump(changed, sort_keys=False))
    dvc(project, "repro", "--quiet", table)
    assert Counter(line.split()[0] for line in calls(project)) == {"train": 4, "evaluate": 4, "report": 1}
