"""What every stage's command shares: how it answers, how it fails, where params.yaml is."""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import os
import re
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pipeline.errors import LIST, PosebridgeError
from pipeline.files.shipped import bring, enclosing_project, shipped_file

if TYPE_CHECKING:
    import torch

STARTED = "stages.shell.started"  # in a context's meta: where the person is, if the project is elsewhere
TYPED = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
before_errors: set[Callable[[], None]] = set()  # what ends the bars that are shown
_ODD = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # all but tab and line end


class FiniteRange(click.FloatRange):
    """A number between bounds; click's own range lets `nan` pass, which compares with nothing."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if (number := super().convert(value, param, ctx)) != number:
            self.fail("nan is no number.", param, ctx)
        return number


class Place(click.Path):
    """A file or folder. What is typed is meant from where the person is, whatever --project says; a default is in the
    project.
    """

    def __init__(self, **settings: Any):
        super().__init__(path_type=Path, **settings)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if ctx and param and STARTED in ctx.meta and ctx.get_parameter_source(param.name or "") in TYPED:
            value = Path(ctx.meta[STARTED], os.fsdecode(value))
        return super().convert(value, param, ctx)


def enter(context: click.Context, folder: Path) -> None:
    """Work in a project elsewhere until the command ends: --project."""
    if not folder.is_dir():
        raise click.ClickException(f"{folder} is no folder; make it first, or correct --project.")
    context.meta[STARTED] = Path.cwd()
    os.chdir(folder)
    context.call_on_close(lambda: os.chdir(context.meta[STARTED]))


def find_params(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """What --params stands for, see pipeline/files/shipped.py: as it was typed, else the project's, else what ships;
    the last is said. Ends the command in a folder of a project that is not its top, where nobody means what ships.
    """
    if path is None or path.exists() or context.resilient_parsing:
        return path
    if STARTED in context.meta and path.is_relative_to(context.meta[STARTED]):
        path = path.relative_to(context.meta[STARTED])
    found = shipped_file(path)
    if found != path:
        refuse_inner_folder(context, path)
        say(f"There is no {path} here; posebridge's own is used.")
    return found


def refuse_inner_folder(context: click.Context, path: Path) -> None:
    """End the command where `path` is missing, but there is a project above, unless --project names this folder."""
    if STARTED not in context.meta and (above := enclosing_project(Path())):
        raise click.ClickException(
            f"There is no {path} here, but this folder lies in the project {above}; run the command there or with "
            f"`posebridge --project {above}`, or with `--project .` for a project of its own here."
        )


params_option = click.option(
    "--params",
    "params_path",
    type=Place(),
    default=Path("params.yaml"),
    show_default=True,
    callback=find_params,
    help="The file of parameters, of the project or else of what ships.",
)
dataset_option = click.option("--dataset", required=True, help="The data set: name of a folder under manifests/.")
_PROTOCOL = "Which classes are unseen: the name of a file under manifests/<dataset>/protocols/, without .txt"
protocol_option = click.option("--protocol", required=True, help=f"{_PROTOCOL}.")
protocols_option = click.option(
    "--protocol", "protocols", required=True, multiple=True, help=f"{_PROTOCOL}; may be repeated."
)
runs_option = click.option(
    "--run", "runs", required=True, multiple=True,
    help="A method and its settings: a name under `runs` in params.yaml; may be repeated.",
)  # fmt: skip
manifests_option = click.option(
    "--manifests", type=Place(), default=Path("manifests"), show_default=True,
    help="The folder of data sets: a folder each, with classes, clips, descriptions and protocols.",
)  # fmt: skip
cache_option = click.option(
    "--cache", type=Place(), default=Path("cache"), show_default=True,
    help="The folder of what commands write: indexes of extractions, weights, results.",
)  # fmt: skip
recipe_option = click.option(
    "--recipe", "recipe_name", default="refined", show_default=True,
    help="Which extraction: the name of a pose model and its settings, under `recipes` in params.yaml.",
)  # fmt: skip
seed_option = click.option(
    "--seed", type=int, default=0, show_default=True, help="Which of the trained repetitions of the run."
)
root_option = click.option(
    "--cache-root",
    type=Place(),
    envvar="POSEBRIDGE_CACHE_ROOT",
    show_envvar=True,
    help="The folder of the stores, which hold skeletons and cues; on a lab's shared disk for example.  [default: "
    "`store` in the cache folder]",
)
seeds_option = click.option(
    "--seed", "seeds", type=int, multiple=True,
    help="Only this seed, a repetition with other random numbers; may be repeated.  [default: all of params.yaml]",
)  # fmt: skip
jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="So many seeds at a time, each in a process that holds clips of up to 2 GB in memory; in turn on all GPUs.",
)
verify_option = click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Compare what is read of the cache with its checksums; --no-verify is for who knows that the disk is sound.",
)
device_option = click.option(
    "--device",
    metavar="auto|cpu|cuda|cuda:N",
    default="auto",
    show_default=True,
    help="Where to compute; auto takes a GPU where there is one, e.g. cuda:1 the second one.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print a machine-readable result on stdout.")


class Group(click.Group):
    """A group of commands whose list has the whole first sentence of each; click cuts them to one line."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, command.get_short_help_str(limit=200)) for name, command in commands if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def say(message: str) -> None:
    """A line for the person at the terminal. Logs go to stderr, so that --json leaves stdout clean."""
    click.echo(_shown(message), err=True)


def own_dataset(manifests: Path, dataset: str) -> None:
    """Before a command writes into manifests/<dataset>: the project gets a copy of a data set that ships, and the
    person is told. Raises PosebridgeError as `bring` does.
    """
    if bring(manifests, dataset):
        say(f"Copied the data set {dataset}, which ships with posebridge, to {manifests / dataset}; it is yours now.")


def given(names: Collection[str]) -> str:
    """The first of the command's parameters `names` that stands on the command line, as its option is spelt; or ""."""
    context = click.get_current_context()
    for parameter in context.command.params:
        if parameter.name in names and context.get_parameter_source(parameter.name) == ParameterSource.COMMANDLINE:
            return parameter.opts[0]
    return ""


def devices_of(name: str, jobs: int = 1) -> tuple[torch.device, ...]:
    """What --device stands for, as `choose_devices` has it; says on a line which GPU `auto` has taken."""
    from pipeline.files.device import choose_devices, told_devices  # after parsing, so that --help needs no torch

    devices = choose_devices(name, jobs)
    if name == "auto" and devices[0].type == "cuda":
        say(f"Computing on {told_devices(devices)}.")
    return devices


def answer(result: dict[str, Any], sentence: str, as_json: bool) -> None:
    """The command's result: JSON on stdout with --json, else one human sentence."""
    click.echo(json.dumps(result, default=str) if as_json else _shown(sentence))


def judge(result: Any, sentence: str, limits: dict[str, float], as_json: bool) -> None:
    """Answer, and fail where a value is above its limit."""
    answer(dataclasses.asdict(result) | {"limits": limits}, sentence, as_json)
    for name, limit in limits.items():
        if not getattr(result, name) <= limit:  # nan is no limit
            raise PosebridgeError(f"The {name} {getattr(result, name):.3f} is above its limit {limit:.3f}.")


def _shown(text: str) -> str:
    """Text that a terminal can show and a pipe can take: files may be named by any bytes."""
    return _ODD.sub(lambda found: ascii(found[0])[1:-1], text)


def plain_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a PosebridgeError into one sentence on stderr and exit code 1, and so an error of the disk that nobody
    foresaw. Bars end before it: an error holds on to the frames that would have ended them, and they would do so later.
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except PosebridgeError as error:
            _end_bars()
            sentence, *listed = (line.replace("\n", r"\n") for line in str(error).split(LIST))
            for line in listed:  # before the sentence, which is what a person, or a script, sees last
                say(f"  {line}")
            above = sentence.removesuffix(":") + "; see the list above."
            say(f"Error: {above if listed else sentence}")
            sys.exit(1)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # whoever reads our output wants no more of it; click knows
            _end_bars()
            reason = error.strerror or str(error).partition("\n")[0]
            where = f"{error.filename}: " if error.filename else ""
            say(f"Error: {where}{reason}; put this right and run the same command again.")
            sys.exit(1)

    return wrapped


def _end_bars() -> None:
    for end in [*before_errors]:
        end()
