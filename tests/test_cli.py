"""The command line as a whole: help with an example, JSON, one-sentence errors, exit codes, quick to start."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pipeline.errors import PosebridgeError
from stages.cli import COMMANDS, main
from stages.shell import answer, plain_errors

pytestmark = pytest.mark.unit


def leaves(name: str) -> Iterator[tuple[str, click.Command]]:
    """The command itself, or the sub-commands of a group, by their words: `cache verify`."""
    command = importlib.import_module(f"stages.{COMMANDS[name]}").command
    if isinstance(command, click.Group):
        yield from ((f"{name} {sub}", each) for sub, each in command.commands.items())
    else:
        yield name, command


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_has_an_example_and_json(name: str) -> None:
    for words, command in leaves(name):
        shown = CliRunner().invoke(main, [*words.split(), "--help"])
        assert shown.exit_code == 0, words
        usage, _, rest = shown.stdout.partition("\n")
        assert f"posebridge {words}" in rest or "Example" in rest, f"`posebridge {words} --help` shows no example"
        assert "--json" in rest, f"`posebridge {words}` cannot answer in JSON"
        assert command.help and len(command.help.split()) >= 4, words


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_option_is_explained_and_tells_its_default(name: str) -> None:
    """As a stranger reads it: what it is, what is taken where it is left out; and the example has no option that is not
    there. Of a text or a place that is simply not used then, nothing need be said; of a number it has to.
    """
    for words, command in leaves(name):
        for option in command.params:
            if not isinstance(option, click.Option):
                continue
            what, told = f"posebridge {words} {option.opts[0]}", option.help or ""
            assert len(told.split()) >= 3 and not told.startswith(("Of ", "As of ")), f"{what}: {told!r} is half a word"
            empty = option.default in (None, "", ()) or "UNSET" in repr(option.default)
            number = isinstance(option.type, click.types.IntParamType | click.types.FloatParamType)
            shown = option.show_default or "[default: " in told or option.required or option.is_flag
            assert shown or empty and not number, f"{what} does not tell its default"
        known = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)} | {"--help"}
        example = (command.help or "").partition("Example")[2]
        assert example and set(re.findall(r"(?<=\s)--[a-z][\w-]*", example)) <= known, words


def test_the_words_of_the_helps_are_explained_once() -> None:
    words = CliRunner().invoke(main, ["--help"]).stdout.partition("Words:")[2]
    explained = re.findall(r"^ +([\w, ]+?)  +\w", words, re.M)
    assert {"data set", "clip", "recipe", "cue", "protocol", "run", "seed", "store", "variant"} <= set(explained)
    for each in ("train", "cache", "cache stats"):
        assert "explained by `posebridge --help`" in " ".join(
            CliRunner().invoke(main, [*each.split(), "--help"]).stdout.split()
        )


@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_wrong_call_is_exit_code_2(name: str) -> None:
    for words, _ in leaves(name):
        assert CliRunner().invoke(main, [*words.split(), "--no-such-option"]).exit_code == 2, words


def test_the_labs_stores_are_named_once_for_all_commands() -> None:
    roots = {words: option.envvar for name in COMMANDS for words, command in leaves(name) for option in command.params
             if option.name == "cache_root"}  # fmt: skip
    assert len(roots) > 10 and set(roots.values()) == {"POSEBRIDGE_CACHE_ROOT"}


@pytest.mark.parametrize("words", [[], ["cache"], ["bench"]])
def test_the_list_of_commands_has_whole_sentences(words: list[str]) -> None:
    shown = CliRunner().invoke(main, [*words, "--help"]).stdout
    assert "..." not in shown.partition("Commands:")[2]


def test_a_name_of_any_bytes_is_told_in_one_line() -> None:
    name = "a\n\u2028\x1b[2J\udcff ü.mp4"

    @click.command()
    @click.option("--fail", is_flag=True)
    @plain_errors
    def command(fail: bool) -> None:
        if fail:
            raise PosebridgeError(f"{name} is missing; bring it.")
        answer({}, name, as_json=False)

    told = CliRunner().invoke(command, ["--fail"])
    assert told.exit_code == 1
    assert told.stderr == "Error: a\\n\\u2028\\x1b[2J\\udcff ü.mp4 is missing; bring it.\n"
    assert CliRunner().invoke(command, []).stdout == "a\n\\u2028\\x1b[2J\\udcff ü.mp4\n"


def test_an_unknown_command_is_exit_code_2() -> None:
    assert CliRunner().invoke(main, ["fly"]).exit_code == 2


@pytest.mark.parametrize(
    "words",
    [
        "ingest --dataset nowhere",
        "extract --dataset nowhere --recipe refined",
        "text --dataset nowhere",
        "encode --dataset nowhere --protocol p --skeletons refined",
        "train --dataset nowhere --protocol p --run posebridge",
        "evaluate --dataset nowhere --protocol p --run posebridge",
        "report",
    ],
)
def test_a_failure_is_one_sentence_on_stderr_and_exit_code_1(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_text("recipes:\n  refined: {}\nruns:\n  posebridge: {}\n")
    monkeypatch.chdir(tmp_path)
    failed = CliRunner().invoke(main, words.split())
    assert failed.exit_code == 1, failed.output
    assert failed.stdout == ""
    *before, sentence = failed.stderr.splitlines()
    assert re.fullmatch(r"Error: .+\.", sentence), failed.stderr
    assert all("/s]" in line for line in before if line), f"more than a progress bar: {before}"


def test_an_unknown_key_in_params_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_text("datasets:\n  mine: {rot: x}\n")
    monkeypatch.chdir(tmp_path)
    failed = CliRunner().invoke(main, ["ingest", "--dataset", "mine"])
    assert failed.exit_code == 1 and "'rot' is not a known key; did you mean root?" in failed.stderr


def test_help_is_quick() -> None:
    """`posebridge --help` lists every command and loads neither torch nor a model nor matplotlib."""
    heavy = ("torch", "cv2", "mmpose", "mmengine", "sentence_transformers", "matplotlib")
    code = (
        "import sys\nfrom stages.cli import main\nmain(['--help'], standalone_mode=False)\n"
        f"print('LOADED', [name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "LOADED []" in done.stdout, done.stdout.splitlines()[-1]
    assert all(re.search(rf"^  {re.escape(name)} ", done.stdout, re.M) for name in COMMANDS)
