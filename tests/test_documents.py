"""README and the pages in docs/: every command in them can be typed, and every link leads somewhere.

A command either runs, in tests/test_documents_run.py, or stands in `PARSED` with the reason why it does not; even then
its options, and the names of files, data sets, protocols, recipes, runs and DVC's stages in it, are checked here.
"""

from __future__ import annotations

import functools
import re
import shlex
import tomllib
from pathlib import Path

import click
import dvc.cli
import pytest
import yaml
from documents import PAGES, ROOT, Block, anchors, blocks, blocks_of, links, name_of, prose, spans
from test_cli import leaves

from pipeline.params import load_params
from stages.cli import COMMANDS as NAMES
from stages.cli import main

pytestmark = pytest.mark.unit

ACROSS = "skeletons that we may not ship: tests/test_across.py"
# The first words of what is only parsed, and why. What runs in earnest elsewhere is named.
PARSED = {
    "make": "the targets are looked up: `make test` is this, `make demo` takes minutes",
    "ln": "of a clone: tests/test_dvc.py; the file is looked up",
    "source": "of an interactive shell",
    "pip": "installs: extras and files are looked up",
    "dvc": "hours, a lab's remote or git; DVC's own parser reads it, and stages are looked up: tests/test_dvc.py, "
    "tests/test_dvc_git.py, tests/test_lab.py, tests/test_init_real.py",
    "git": "a history: tests/test_dvc_git.py",
    ".venv/bin/python": "pytest itself, or a picture of the demo",
    "posebridge cache publish": "a lab's remote: tests/test_lab.py",
    "posebridge cache estimate": "probes the machine for seconds: tests/test_cost.py",
    "posebridge bench scale": "minutes: tests/test_scale.py",
    "posebridge tune-hpe": "forty minutes: tests/test_tuning.py",
    "posebridge bench cues": "photos that we may not ship: tests/test_taps.py",
    "posebridge gap": "photos that we may not ship: tests/test_gap.py",
    "posebridge weights get": "the web: tests/test_public_weights.py",
    "posebridge doctor": "looks at this machine: tests/test_doctor.py",
    "posebridge ingest --dataset ntu60": "videos that we may not ship: tests/test_datasets.py",
    "posebridge cache import ntu60_3danno.pkl --dataset ntu60 --recipe ntu25_3d --split xsub --params": ACROSS,
    **{f"posebridge {words} --dataset nw_ucla": ACROSS for words in (
        "text", "encode", "train", "evaluate", "cache import nw-ucla.npz"
    )},
    "posebridge extract --dataset mine --recipe public --workers": "processes: tests/test_workers.py",
    **dict.fromkeys(
        (f"posebridge {words} --dataset gym" for words in ("text", "extract", "train", "evaluate")),
        "photos and weights that we may not ship: tests/test_image_text.py",
    ),
    **dict.fromkeys(
        (f"posebridge {word} --dataset ntu60 --protocol synse_55_5 --protocol" for word in ("encode", "train")),
        "Slurm: tests/test_executors.py",
    ),
}
MADE = {"mine", "videos", "pooled"}  # data sets and runs of a person, who makes them by a page's words


def is_parsed(words: list[str]) -> bool:
    """Whether a command is only parsed, and does not run."""
    line = shlex.join(plain(words))
    return any(line == start or line.startswith(f"{start} ") for start in PARSED)


def plain(words: list[str]) -> list[str]:
    return ["posebridge", *words[1:]] if words[0] == ".venv/bin/posebridge" else words


COMMANDS = [(block.place, words) for block in blocks("bash") for words in block.commands()]
IDS = [f"{place} {shlex.join(words)[:60]}" for place, words in COMMANDS]


def test_pages_have_commands_and_every_reason_is_of_one() -> None:
    assert len(COMMANDS) > 40
    for start in PARSED:
        assert any(shlex.join(plain(words)).startswith(start) for _, words in COMMANDS), f"nothing begins with {start}"


@pytest.mark.parametrize(("place", "words"), COMMANDS, ids=IDS)
def test_a_command_can_be_typed(place: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    first, *rest = plain(words)
    assert not {"|", "&&", ";", ">"} & set(words), "one command a line, so that it can be tried"
    if first == "posebridge":
        check_posebridge(rest, monkeypatch)
    elif first == "dvc":
        check_dvc(rest)
    elif first == "make":
        check_make(rest)
    elif first == "source":
        assert rest == [".venv/bin/activate"]
    elif first == "pip":
        check_pip(rest)
    elif first == "git":
        assert rest[0] in ("add", "commit")
    elif first == "ln":
        _, source, target = rest
        assert ((ROOT / target).parent / source).is_file()
    elif first == ".venv/bin/python":
        check_python(rest)
    else:
        pytest.fail(f"{place}: say in tests/test_documents.py how {first!r} is checked")


def test_the_table_of_commands_has_all_of_them() -> None:
    table = (ROOT / "docs/commands.md").read_text()
    assert re.findall(r"^\| `([a-z-]+)` \|", table, re.M) == list(NAMES)


@pytest.mark.parametrize("name", list(NAMES))
def test_an_example_of_help_can_be_typed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for _, command in leaves(name):
        text = re.sub(r"\n +(?=--)", " ", command.help or "")  # an option that stands on a line of its own
        examples = re.findall(r"^\s*(?:Example: )?posebridge (.+)$", text, re.M)
        assert examples
        for example in examples:
            check_posebridge(shlex.split(example), monkeypatch)


def check_posebridge(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Options and arguments are valid, and what they name is there; files of a person need not be."""
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: Path(value))
    command: click.Command = main
    if words[0] == "--project":
        words = words[2:]
    while isinstance(command, click.Group):
        name, *words = words
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"there is no command {name}"
        command = found
    values = command.make_context(str(command.name), words).params
    params_path = ROOT / (values.get("params_path") or "params.yaml")
    assert params_path.is_file(), params_path
    given = {name: value for name, value in values.items() if value}
    if (dataset := given.get("dataset")) is None or isinstance(dataset, tuple) or dataset in MADE:
        return
    folder = ROOT / "manifests" / dataset
    assert (folder / "classes.csv").is_file(), f"there is no data set {dataset}"
    for protocol in many(given, "protocol"):
        assert (folder / "protocols" / f"{protocol}.txt").is_file(), protocol
    params = load_params(params_path)
    for run in many(given, "run"):
        assert run in params.runs or run in MADE, run
    if command.name not in ("import", "import-features"):
        assert all(recipe in params.recipes for recipe in many(given, "recipe")), given


def many(given: dict[str, object], name: str) -> list[str]:
    """The values of an option that may be repeated, or not."""
    value = given.get(f"{name}s", given.get(name, ()))
    return [value] if isinstance(value, str) else list(value)  # type: ignore[call-overload]


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
    assert words and set(words) <= set(targets), words


def check_dvc(words: list[str]) -> None:
    """DVC knows the options, and the stages are there."""
    asked = dvc.cli.parse_args(words)
    for target in getattr(asked, "targets", None) or []:
        if target.startswith(("manifests/videos/", "cache/")):
            continue  # made by `posebridge init`, or by a stage
        path, _, stage = target.rpartition(":") if ":" in target else ("", "", target)
        if not path and (ROOT / stage).is_file():
            continue
        assert stage.partition("@")[0] in stages_of(path or "dvc.yaml"), target


@functools.cache
def stages_of(path: str) -> set[str]:
    path = path.replace("params/dvc.yaml", "params/tables.yaml")  # to which the pages make a link
    return set(yaml.safe_load((ROOT / path).read_text())["stages"])


def check_pip(words: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert words[0] in ("install", "uninstall", "wheel")
    for word in words[1:]:
        assert not word.startswith("dist/") or word.startswith(f"dist/posebridge-{project['version']}-py3-none-any.whl")
        for extra in re.findall(r"\[([^\]]+)\]", word):
            assert set(extra.split(",")) <= set(extras), word
        if word.endswith(".txt"):
            assert (ROOT / word).is_file(), word


def check_python(words: list[str]) -> None:
    """A file of ours, or pytest with a marker that there is and files that are there."""
    if words[0] == "-m":
        assert words[1] == "pytest"
        markers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
        for flag, value in zip(words[2:], words[3:], strict=False):
            assert flag != "-m" or value in {marker.partition(":")[0] for marker in markers}, value
    assert all((ROOT / word).is_file() for word in words if word.endswith(".py"))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_command_in_a_sentence_exists_with_its_options(page: Path) -> None:
    for span in spans(page):
        first, _, rest = span.partition(" ")
        if not rest or "…" in span or "<" in span:
            continue
        if first == "dvc" and rest not in ("metrics", "plots", "params", "exp"):  # families of commands
            check_dvc(shlex.split(rest))
        if first == "make":
            check_make(shlex.split(rest))
        if first != "posebridge":
            continue
        command: click.Command = main
        words = shlex.split(span)[1:]
        if words[0] == "--project":
            words = words[2:]
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            found = command.get_command(click.Context(command), words.pop(0))
            assert found is not None, f"{name_of(page)}: `{span}`"
            command = found
        known = {flag for each in command.get_params(click.Context(command)) for flag in each.opts}
        assert {word for word in words if word.startswith("--")} <= known, f"{name_of(page)}: `{span}`"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists() and target.is_relative_to(ROOT), f"{name_of(page)}: {link}"
        assert not anchor or anchor in anchors(target), f"{name_of(page)}: {link}"


def test_every_page_is_found_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        targets = ((page.parent / link.partition("#")[0]).resolve() for link in links(page) if "://" not in link)
        waiting += [target for target in targets if target.suffix == ".md" and target not in reached]
    assert reached >= set(PAGES)


YAML = blocks("yaml")


@pytest.mark.parametrize("block", YAML, ids=lambda block: block.place)
def test_values_on_a_page_are_values_of_params(block: Block, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(block.text)
    assert load_params(tmp_path / "params.yaml") != load_params(empty(tmp_path / "none.yaml"))


def empty(path: Path) -> Path:
    path.write_text("{}\n")
    return path


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_block_is_of_a_language_that_a_test_knows(page: Path) -> None:
    found = list(blocks_of(page))
    assert 2 * len(found) == len(re.findall(r"^ *```", page.read_text(), re.M)), "a fence that is not closed alike"
    assert {block.language for block in found} <= {"bash", "python", "yaml", "mermaid", ""}
    assert not any("posebridge " in block.text for block in found if not block.language), "commands are bash"
    assert not re.search(r"^ {4,}(posebridge|dvc|make) ", prose(page), re.M), "commands stand between fences"
