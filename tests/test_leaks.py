"""The ceiling of skelgap holds: who knows the motion reaches it, nobody who sees true skeletons passes it, and nothing
that is drawn tells of the class. A leak is planted for every check, and found.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from pipeline.params import SynthParams
from pipeline.protocol.ceiling import ceilings, twin_hits
from pipeline.synth.catalogue import DATASETS, PROTOCOLS
from pipeline.synth.dataset import PlannedClip, plan
from pipeline.synth.motions import Style
from pipeline.synth.objects import OBJECTS
from pipeline.synth.scene import FRAMES, MARGIN, SIZE, ClipSpec, distracting, stage

pytestmark = pytest.mark.unit
MANIFESTS = Path(__file__).parent.parent / "manifests"
CLIPS = plan("skelgap", SynthParams(train_clips=24, test_clips=10, twins=40))
TRAIN = [clip for clip in CLIPS if clip.part == "train"]
TEST = [clip for clip in CLIPS if clip.part == "test"]
INDEX = {action.name: index for index, action in enumerate(DATASETS["skelgap"])}
TWINS = {clip.clip_id: clip.tuple_id for clip in TEST}
LABELS = {clip.clip_id: INDEX[clip.action.name] for clip in TEST}
EACH_PROTOCOL = pytest.mark.parametrize("protocol", [p for p, split in PROTOCOLS["skelgap"].items() if split.unseen])
ROUNDS = 499
CLEAN, FOUND = 0.02, 2 / (ROUNDS + 1)  # p-values; FOUND: no permutation was as extreme, in one of two statistics


def skeleton(spec: ClipSpec) -> np.ndarray:
    """The exact keypoints of a clip, as the ground truth has them: [F, 17, 2] float32."""
    return stage(spec)[0].pixels[:, :17].astype(np.float32)


@pytest.fixture(scope="module")
def skeletons() -> dict[str, np.ndarray]:
    return {clip.clip_id: skeleton(clip.spec) for clip in CLIPS}


def unseen_clips(protocol: str) -> list[PlannedClip]:
    return [clip for clip in TEST if clip.action.name in PROTOCOLS["skelgap"][protocol].unseen]


def ceiling(clips: Sequence[PlannedClip]) -> dict[str, float]:
    counts = Counter(LABELS[clip.clip_id] for clip in clips)
    return ceilings(MANIFESTS / "skelgap" / "attributes.csv", sorted(counts), counts)


def by_heart(clips: Sequence[PlannedClip], key: Callable[[PlannedClip], object]) -> dict[str, int]:
    """Predictions by the best of all deterministic predictors that see `key` of a clip and nothing else: it has been
    told the answers, and names the class that is right most often.
    """
    answers: dict[object, Counter[int]] = defaultdict(Counter)
    for clip in clips:
        answers[key(clip)][LABELS[clip.clip_id]] += 1
    return {clip.clip_id: answers[key(clip)].most_common(1)[0][0] for clip in clips}


def accuracy(predictions: Mapping[str, int]) -> float:
    return sum(LABELS[clip_id] == said for clip_id, said in predictions.items()) / len(predictions)


def unequal_twins(skeletons: Mapping[str, np.ndarray]) -> set[str]:
    """The tuples whose skeletons are not the same in every bit."""
    variants = defaultdict(set)
    for clip_id, name in TWINS.items():
        variants[name].add(skeletons[clip_id].tobytes())
    return {name for name, different in variants.items() if len(different) > 1}


@EACH_PROTOCOL
def test_an_oracle_reaches_its_ceiling_exactly(protocol: str) -> None:
    """Whoever knows the motion, or the object; also where classes have unequal numbers of clips."""
    clips = unseen_clips(protocol)
    some = [clips[i] for i in np.random.default_rng(0).permutation(len(clips))[: len(clips) // 3]]
    for asked in (clips, some):
        assert accuracy(by_heart(asked, lambda clip: clip.action.motion)) == ceiling(asked)["skeleton"]
        assert accuracy(by_heart(asked, lambda clip: clip.action.object)) == ceiling(asked)["cue"]
        assert accuracy(by_heart(asked, lambda clip: clip.action)) == 1


@EACH_PROTOCOL
def test_nobody_who_sees_true_skeletons_passes_the_ceiling(protocol: str, skeletons: dict[str, np.ndarray]) -> None:
    assert not unequal_twins(skeletons)
    clips = unseen_clips(protocol)
    predictions = by_heart(clips, lambda clip: skeletons[clip.clip_id].tobytes())
    assert accuracy(predictions) == ceiling(clips)["skeleton"]
    hits = twin_hits(TWINS, predictions, LABELS)
    assert set(hits.values()) == {1} and len(hits) == len({clip.tuple_id for clip in clips})


def test_an_object_in_a_joints_noise_is_found(skeletons: dict[str, np.ndarray]) -> None:
    leaking = dict(skeletons)
    for clip in TEST:
        leaking[clip.clip_id] = skeletons[clip.clip_id].copy()
        leaking[clip.clip_id][3, 9, 0] += 0.001 * INDEX[clip.action.name]  # a thousandth of a pixel, in one frame
    assert len(unequal_twins(leaking)) == sum(size > 1 for size in Counter(TWINS.values()).values())
    clips = unseen_clips("compositional_30_10")
    predictions = by_heart(clips, lambda clip: leaking[clip.clip_id].tobytes())
    assert accuracy(predictions) == 1 and max(twin_hits(TWINS, predictions, LABELS).values()) == 4


def lying_about(clip: PlannedClip) -> set[str]:
    """The things in the scene that nobody holds."""
    return {name for name, _, _ in distracting(np.random.default_rng([clip.spec.distractors, 6]), SIZE + 2 * MARGIN)}


def p_of_distractors(clips: Sequence[PlannedClip]) -> float:
    """Is what lies about independent of what is held? Chi-square of the table held x lying, by permutation."""
    names = list(OBJECTS)
    clips = [clip for clip in clips if clip.action.object in names]
    held = np.array([names.index(clip.action.object) for clip in clips])
    lying = np.array([[name in about for name in names] for about in map(lying_about, clips)], float)  # [N, O]

    def chi_square(held: np.ndarray) -> float:
        table = np.eye(len(names))[held].T @ lying
        expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
        return float(((table - expected) ** 2 / expected).sum())

    rng = np.random.default_rng(0)
    as_extreme = sum(chi_square(rng.permutation(held)) >= chi_square(held) for _ in range(ROUNDS))
    return (1 + as_extreme) / (ROUNDS + 1)


def test_what_lies_about_says_nothing_of_what_is_held() -> None:
    assert p_of_distractors(TRAIN) > CLEAN


def test_elimination_through_distractors_is_found() -> None:
    """The held object never lies about: whoever sees the scene can rule classes out."""
    leaking = []
    for clip in TRAIN:
        tries = (replace(clip, spec=replace(clip.spec, distractors=clip.spec.distractors + n)) for n in count())
        leaking.append(next(other for other in tries if clip.action.object not in lying_about(other)))
    assert p_of_distractors(leaking) <= FOUND


def traits(clip: PlannedClip) -> list[float]:
    """Numbers of all that is drawn for a clip, and of the skeleton that comes of it."""
    actor, camera = stage(clip.spec)
    style, holding = Style.draw(np.random.default_rng([clip.spec.trajectory, 2])), actor.holding
    body, joints = actor.subject.body, actor.pixels[:, :17]
    steps = np.linalg.norm(np.diff(joints, axis=0), axis=-1)  # [F - 1, 17] pixels a frame
    moving = steps[:, 9:11].max(1) > 2
    return [
        *(style.hand, style.both, style.cycles, style.phase, style.amplitude, style.delay),
        *(holding.look.scale, *holding.look.colours[0], holding.grip.tilt, holding.grip.follow, holding.grip.flip),
        *(body.height, body.shoulder, *actor.subject.top, actor.subject.sleeves),
        *(camera.yaw, camera.distance, camera.height, camera.focal, *camera.centre),
        *(clip.spec.background, clip.spec.distractors, len(lying_about(clip))),
        *(*steps[:, 9:11].mean(0), steps.max(), moving.sum(), moving.argmax()),
        *(*joints.mean((0, 1)), *np.ptp(joints, 1).mean(0)),
    ]


def p_of_traits(clips: Sequence[PlannedClip]) -> float:
    """Is every trait independent of the class, given the motion? By permuting classes within motions.

    Traits are ranked within their motion, and squared as well, so that a spread tied to the class is found like a mean.
    Two statistics, each the largest over all traits so that one p-value stands for all: how far the classes' means are
    apart together, and how far the farthest class is off.
    """
    motions = np.array([clip.action.motion for clip in clips])
    values = np.array([traits(clip) for clip in clips], float)  # [N, K]
    groups = [np.flatnonzero(motions == motion) for motion in sorted(set(motions))]
    for rows in groups:
        values[rows] = np.stack([standardised(ranks(column)) for column in values[rows].T], 1)
    values = np.concatenate([values, standardised(values**2)], 1)
    member = np.eye(len(INDEX))[[INDEX[clip.action.name] for clip in clips]]  # [N, C]
    sizes = np.maximum(member.sum(0), 1)[:, None]

    def apart(order: np.ndarray) -> np.ndarray:
        squares = (member.T @ values[order]) ** 2 / sizes  # [C, 2 K]
        return np.array([squares.sum(0).max(), squares.max()])

    rng, order = np.random.default_rng(0), np.arange(len(clips))
    found, as_extreme = apart(order), np.zeros(2)
    for _ in range(ROUNDS):
        for rows in groups:
            order[rows] = rng.permutation(rows)
        as_extreme += apart(order) >= found
    return float(min(1, 2 * (1 + as_extreme.min()) / (ROUNDS + 1)))


def ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value; equal values share theirs."""
    _, place, sizes = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(sizes) - sizes / 2)[place]


def standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(0)) / np.maximum(values.std(0), 1e-6)


def test_nothing_that_is_drawn_depends_on_the_class() -> None:
    assert p_of_traits(TRAIN) > CLEAN


def test_every_clip_is_as_long_as_every_other(skeletons: dict[str, np.ndarray]) -> None:
    assert {s.shape for s in skeletons.values()} == {(FRAMES, 17, 2)}


@pytest.mark.parametrize("trait", ["hand", "cycles", "delay"])
def test_a_trait_tied_to_the_class_is_found(trait: str) -> None:
    """Classes with an odd index lead with the other hand, are quicker, or start later: the greater of two draws."""
    leaking = []
    for clip in TRAIN:
        draws = [clip.spec.trajectory, clip.spec.trajectory + 1]
        draws.sort(key=lambda seed: getattr(Style.draw(np.random.default_rng([seed, 2])), trait))
        spec = replace(clip.spec, trajectory=draws[INDEX[clip.action.name] % 2])
        leaking.append(replace(clip, spec=spec))
    assert p_of_traits(leaking) <= FOUND


def test_a_camera_of_its_own_for_a_class_is_found() -> None:
    leaking = [
        replace(clip, spec=replace(clip.spec, camera=7)) if clip.action.name == DATASETS["skelgap"][0].name else clip
        for clip in TRAIN
    ]
    assert p_of_traits(leaking) <= FOUND
