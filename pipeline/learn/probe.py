"""How long the steps of stage two take on this machine, now, on clips of noise. Reads and writes nothing.

The next batch is read while a step is computed, so reading is left out; `bench scale` measures it with the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import PosebridgeError
from pipeline.files.device import CPU, generator_on
from pipeline.files.memory import keep_freed_memory, resident_bytes
from pipeline.learn.cost import Steps
from pipeline.learn.encode import new_encoder
from pipeline.learn.feature_table import Encoder, Joints, StreamedTable
from pipeline.learn.features import Samples
from pipeline.learn.score import BATCH
from pipeline.methods import find_method, takes_cues
from pipeline.methods.base import Method, Shapes
from pipeline.params import Params, RunParams
from pipeline.recipe import Recipe, other_side
from pipeline.skeleton.augment import augment
from pipeline.skeleton.graph import graph_of

TEXT_WIDTH = 384  # of the vectors of descriptions, as MiniLM makes them


def method_of(run: RunParams, recipe: Recipe, cue_width: int, classes: int) -> Method:
    """A run's method for clips of a recipe. Raises PosebridgeError for one that wants cues where there are none."""
    frames, anchors, width = recipe.cue_frames, tuple(recipe.anchors), cue_width
    if not takes_cues(run.method, run.flags):
        frames, anchors, width = 0, (), 0
    elif not cue_width:
        raise PosebridgeError("The recipe holds no cues; name a run with --run whose method reads none.")
    inputs = recipe.dimensions + 1
    shapes = Shapes(TEXT_WIDTH, recipe.persons, frames, anchors, width, recipe.layout, inputs)
    return find_method(run.method)(shapes, classes, run.flags)


def probe_steps(
    method: Method, recipe: Recipe, cue_width: int, classes: int, params: Params, seconds: float = 6.0,
    device: torch.device = CPU,
) -> Steps:  # fmt: skip
    """Time a training step of the encoder, one of the method and the scoring of a batch, each for a third of `seconds`,
    among so many classes, on `device`, where the method ends. The caller's random state is left alone.
    """
    keep_freed_memory()
    before = resident_bytes()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        clips = noise(recipe, cue_width, 2 * BATCH)
        return _probe(method.to(device), clips, recipe, classes, params, seconds / 3, device, before)


def _probe(
    method: Method, clips: Samples, recipe: Recipe, classes: int, params: Params, seconds: float, device: torch.device,
    before: int,
) -> Steps:  # fmt: skip
    config, own = params.encode, asdict(params.train) | dict(method.schedule())
    encoder = new_encoder(clips.take([0]).inputs[0].shape, classes, config).to(device)
    frozen: Encoder = Joints() if method.end_to_end else encoder
    order = tuple(recipe.anchors.index(other_side(name)) for name in recipe.anchors)
    table, generator = StreamedTable(frozen, clips, order, device), generator_on(device, 0)
    text = F.normalize(torch.randn(classes, len(method.text_slots), TEXT_WIDTH), dim=-1).to(device)
    method.see_text(text)
    method.see_words([dict.fromkeys(method.word_slots, "hands")] * classes)  # a word that every slot may hold

    def batch(size: int) -> tuple[Samples, Tensor]:
        return table.load(torch.randint(len(clips), (size,))), torch.randint(classes, (size,))

    def encoder_loss() -> Tensor:
        samples, labels = batch(config.batch_size)
        x, person = samples.inputs
        return F.cross_entropy(encoder(augment(x, generator, samples.graph), person), labels.to(device))

    def method_loss() -> Tensor:
        samples, labels = batch(own["batch_size"])
        views = torch.randint(params.train.views, (len(labels),), device=generator.device)
        return method.loss(table.features(samples, views, generator), labels, text)

    @torch.no_grad()
    def score() -> None:
        method.scores(table.features(batch(BATCH)[0]), text)

    encode = 0.0 if method.end_to_end else _seconds_of(_step(encoder.train(), encoder_loss), seconds, device)
    frozen.eval().requires_grad_(False)
    train = _seconds_of(_step(method.train(), method_loss), seconds, device)
    method.eval()
    scored, one = _seconds_of(score, seconds, device), clips.take([0])
    map_bytes = frozen.feature_map(*one.to(device).inputs).nbytes
    return Steps(encode, train, scored, max(0, resident_bytes() - before), one.nbytes, map_bytes)


def _step(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """A step of training on that loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return step


def noise(recipe: Recipe, cue_width: int, clips: int) -> Samples:
    """So many clips of a recipe, the persons after the first one in every fourth."""
    shape = clips, recipe.persons, recipe.frames, len(graph_of(recipe.layout).joints)
    valid = torch.ones(shape[:3], dtype=torch.bool)
    valid[torch.arange(clips) % 4 > 0, 1:] = False
    cues = cue_scores = None
    if cue_width:
        cue_scores = torch.rand(clips, recipe.persons, recipe.cue_frames, len(recipe.anchors))
        cues = torch.rand(*cue_scores.shape, cue_width).half()
    keypoints, ids = 100 * torch.rand(*shape, recipe.dimensions), tuple(map(str, range(clips)))
    return Samples(ids, keypoints, torch.rand(shape), valid, cues, cue_scores, recipe.layout)


def _seconds_of(work: Callable[[], None], seconds: float, device: torch.device) -> float:
    """The median of as many times as fit into `seconds`, one at least, after one that does not count."""
    found: list[float] = []
    while len(found) < 2 or sum(found[1:]) < seconds:
        begun = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - begun)
    return sorted(found[1:])[len(found[1:]) // 2]
