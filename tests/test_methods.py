"""PoseBridge and its parts: shapes, ablations, fallbacks, prototypes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from pipeline.errors import PosebridgeError
from pipeline.methods import METHODS, find_method, takes_cues
from pipeline.methods.base import Features, Method, Shapes, SolvedMethod
from pipeline.methods.bridge import IMPORTANCE_SPEED, BridgeLayer, CueTokens, Gate, Levels, Queries
from pipeline.methods.losses import cosine_ce, sup_con
from pipeline.methods.prototypes import RidgeResidual, class_means, leave_one_out, whitening
from pipeline.params import choose, load_params

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parent.parent
ANCHORS = ("body", "left_hand", "right_hand")
SHAPES = Shapes(d_text=12, persons=2, cue_frames=4, anchors=ANCHORS, d_cue=15)
SMALL = {"width": 16, "heads": 2, "layers": 2}
CLASSES = 5


def features(batch=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    return Features(
        skeleton=torch.rand(batch, 256, 3, 17, generator=g),
        quality=torch.rand(batch, 2, 2, generator=g),
        cues=torch.randn(batch, 2, 4, 3, 15, generator=g).half(),
        cue_scores=torch.rand(batch, 2, 4, 3, generator=g),
    )


def text(classes=CLASSES, slots=3, seed=1):
    return F.normalize(torch.randn(classes, slots, 12, generator=torch.Generator().manual_seed(seed)), dim=-1)


def build(name="posebridge", **flags):
    torch.manual_seed(0)
    method = find_method(name)(SHAPES, CLASSES, SMALL | flags)
    method.see_text(text())
    return method.eval()


ABLATIONS = [
    {},
    {"cues": False},
    {"skeleton": False},
    {"bridge": False},
    {"gate": True},
    {"additive": False},
    {"adaptation": "mlp"},
    {"adaptation": "none"},
    {"centre": False},
    {"whiten": 1.0},
    {"canonical": True},
    {"canonical": True, "cues": False},
    {"anchors": ["body"]},
    {"level_widths": [1, 2, 4, 8]},
    {"level_widths": [1, 2, 4, 8], "levels": [3]},
    {"bridge": False, "cues": False},
]


@pytest.mark.parametrize("flags", ABLATIONS, ids=str)
def test_every_ablation_trains_and_scores_any_candidates(flags):
    method, labels = build(**flags), torch.tensor([0, 1, 2, 3, 4, 0])
    method.before([features()], labels, text())
    loss = method.train().loss(features(), labels, text())
    loss.backward()
    assert loss.ndim == 0 and torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)
    method.eval()
    method.finish(class_means([method.embed(features()).detach()], labels, len(text())), text())
    method.alpha = 0.5
    for candidates in (text(), text(9, seed=7)):
        scores = method.scores(features(), candidates)
        assert scores.shape == (6, len(candidates)) and torch.isfinite(scores).all()
    torch.testing.assert_close(method.embed(features()).norm(dim=-1), torch.ones(6))


RUNS = [(path, name) for path in ("params.yaml", "params/skelgap.yaml") for name in load_params(ROOT / path).runs]


@pytest.mark.parametrize(("path", "name"), RUNS, ids=str)
def test_every_run_that_skelgap_names_can_be_built(path, name):
    """Its flags are known and fit the cues of its recipe: 512 refined, or the four stages of RTMPose-t."""
    params = load_params(ROOT / path)
    run = params.runs[name]
    recipe = choose(params.recipes, run.recipe, "recipe")
    width = {"refined": 512, "levels": 48 + 96 + 192 + 384, "none": 0}[recipe.cues]
    assert run.skeletons == "estimated" or run.skeletons in params.recipes
    assert set(params.seeds(run)) <= set(params.encode.seeds), "a seed without an encoder"
    shapes = Shapes(384, recipe.persons, recipe.cue_frames, recipe.anchors, width)
    assert isinstance(find_method(run.method)(shapes, 30, run.flags), Method)


def test_every_registered_method_is_built_by_name():
    for name in METHODS:
        assert issubclass(find_method(name), Method)
    for ask in (find_method, lambda name: takes_cues(name, {})):
        with pytest.raises(PosebridgeError, match="no method named 'pgfb'; there are posebridge, skeleton"):
            ask("pgfb")


def test_a_line_says_of_a_method_what_its_class_says():
    for name, known in METHODS.items():
        module = sys.modules[find_method(name).__module__]
        assert known.cues is None or known.cues == module.Flags().cues, name
        assert takes_cues(name, {}) == bool(known.cues)
        assert (known.reads == "joints") == find_method(name).end_to_end, name


def test_the_report_learns_who_takes_cues_without_loading_a_method_or_pytorch():
    code = (
        "import sys; from pipeline.methods import takes_cues; import pipeline.report.report; "
        "assert takes_cues('pgfa', {'cues': True}); "
        "sys.exit('torch' in sys.modules or 'pipeline.methods.pgfa' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0


@pytest.mark.parametrize("flags", [{}, {"gate": True}, {"bridge": False}, {"level_widths": [1, 2, 4, 8]}], ids=str)
def test_a_clip_without_a_visible_anchor_scores_as_one_without_cues(flags):
    method, seen = build(**flags), features()
    vanished = dataclasses.replace(seen, cue_scores=torch.zeros_like(seen.cue_scores))
    none = dataclasses.replace(seen, cues=None, cue_scores=None)
    blind = method.scores(vanished, text())
    assert torch.isfinite(blind).all()
    torch.testing.assert_close(blind, method.scores(none, text()))
    assert not torch.allclose(blind, method.scores(seen, text()))


def test_nan_free_where_nothing_is_seen_at_all():
    zero = Features(
        torch.zeros(2, 256, 3, 17), torch.zeros(2, 2, 2), torch.zeros(2, 2, 4, 3, 15), torch.zeros(2, 2, 4, 3)
    )
    method = build().train()
    assert torch.isfinite(method.loss(zero, torch.tensor([0, 1]), text()))
    assert torch.isfinite(method.eval().scores(zero, text())).all()


def test_the_skeleton_method_does_not_look_at_cues():
    method, seen = build("skeleton"), features()
    other = dataclasses.replace(seen, cues=torch.randn_like(seen.cues), cue_scores=torch.rand_like(seen.cue_scores))
    assert torch.equal(method.scores(seen, text()), method.scores(other, text()))
    assert not takes_cues("skeleton", {"cues": True}) and takes_cues("posebridge", {})
    assert not takes_cues("posebridge", {"cues": False})


def test_cues_only_does_not_look_at_the_skeleton():
    method, seen = build(skeleton=False), features()
    assert torch.equal(
        method.scores(seen, text()),
        method.scores(dataclasses.replace(seen, skeleton=torch.rand_like(seen.skeleton)), text()),
    )


def test_a_subset_of_anchors_ignores_the_others():
    method, seen = build(anchors=["body"]), features()
    cues = seen.cues.clone()
    cues[..., 1:, :] = 7.0
    torch.testing.assert_close(method.scores(seen, text()), method.scores(dataclasses.replace(seen, cues=cues), text()))


def test_levels_are_refined_from_shallow_to_deep_by_hand():
    """G1 = P1(F1), G2 = P2(F2) + D(G1): each P a norm and a map, D a norm, SiLU and a map. Of four levels, two."""
    torch.manual_seed(0)
    levels, cues = Levels([1, 2, 4, 3], [1, 3], 5).double(), torch.randn(6, 10, dtype=torch.float64)
    assert len(levels.carry) == 1 and [part[1].in_features for part in levels.enter] == [2, 3]

    def normed(x):
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()

    def mapped(x, layer):
        return x @ layer.weight.T + layer.bias

    (shallow, deep), (carry,) = levels.enter, levels.carry
    first = mapped(normed(cues[:, 1:3]), shallow[1])
    carried = normed(first)
    carried = carried / (1 + (-carried).exp())
    expected = mapped(normed(cues[:, 7:]), deep[1]) + mapped(carried, carry[2])
    torch.testing.assert_close(levels(cues), expected)
    assert len(Levels([1, 2], [], 5).carry) == 1, "none named: all of them"


def test_the_gate_closes_the_bridge():
    method, seen = build(additive=False, gate=True), features()
    with torch.no_grad():
        method.gate.linear.bias.fill_(-50.0)
    other = dataclasses.replace(seen, cues=torch.randn_like(seen.cues))
    torch.testing.assert_close(method.scores(seen, text()), method.scores(other, text()))


def test_rows_do_not_depend_on_one_another():
    method, seen = build(), features()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    mixed = Features(*(getattr(seen, f.name)[order] for f in dataclasses.fields(seen)))
    torch.testing.assert_close(method.scores(mixed, text()), method.scores(seen, text())[order])


def test_scores_of_a_candidate_do_not_depend_on_the_others():
    method, all_text = build(), text(9, seed=7)
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    method.finish(class_means([method.embed(features()).detach()], labels, len(text())), text())
    method.alpha = 0.5
    some = [4, 1, 8]
    torch.testing.assert_close(method.scores(features(), all_text[some]), method.scores(features(), all_text)[:, some])


def cue_tokens(**changes):
    torch.manual_seed(2)
    tokens = CueTokens(SHAPES, (), None, 16, 0.0)
    with torch.no_grad():
        tokens.importance.copy_(torch.tensor([0.1, 0.0, -0.05]))
    return tokens, dataclasses.replace(features(2), **changes)


def test_tokens_and_the_pooled_cue_by_hand():
    """LN(x) weighted by its score and by its anchor's importance, over every person, moment and anchor."""
    tokens, seen = cue_tokens()
    found = tokens(seen, torch.zeros(2, dtype=torch.bool))
    x = F.layer_norm(seen.cues.float(), (15,))
    weight = seen.cue_scores * (IMPORTANCE_SPEED * torch.tensor([0.1, 0.0, -0.05])).exp()
    mean = (x * weight[..., None]).sum((1, 2, 3)) / weight.sum((1, 2, 3))[:, None]
    torch.testing.assert_close(found.pooled, F.layer_norm(mean, (15,)))
    row = found.tokens.reshape(2, 2, 4, 3, 16)[1, 1, 2, 0]  # of the second person, the third moment, the first anchor
    own = x[1, 1, 2, 0] @ tokens.project.weight.T + tokens.project.bias
    torch.testing.assert_close(row, own + tokens.person[1, 0, 0] + tokens.time[2, 0] + tokens.anchor[0])
    assert found.present.tolist() == [[1.0], [1.0]] and not found.hidden.any()


def test_a_cue_of_score_0_changes_nothing_and_a_dropped_clip_has_none():
    scores = torch.full((2, 2, 4, 3), 0.5)
    scores[0, 1, 2, 0] = 0
    tokens, seen = cue_tokens(cue_scores=scores)
    other = dataclasses.replace(seen, cues=seen.cues.clone())
    other.cues[0, 1, 2, 0] = 50
    drop = torch.tensor([False, True])
    found, changed = tokens(seen, drop), tokens(other, drop)
    assert torch.equal(found.pooled, changed.pooled) and torch.equal(found.hidden, changed.hidden)
    assert found.hidden[0].nonzero().tolist() == [[1 * 12 + 2 * 3 + 0]] and found.hidden[1].all()
    assert found.present.tolist() == [[1.0], [0.0]] and not found.pooled[1].any()
    method = build()
    torch.testing.assert_close(method.scores(seen, text()), method.scores(other, text()))


def test_a_layer_of_the_bridge_is_attention_by_hand():
    torch.manual_seed(3)
    layer = BridgeLayer(8, 2, 0.0).eval()
    q, x, gate = torch.randn(2, 3, 8), torch.randn(2, 5, 8), torch.tensor([[0.3], [1.0]])
    hidden = torch.tensor([[False, False, True, False, False], [False, True, True, True, True]])
    ask, (key, value) = layer.ask(q), layer.key_value(x).split(8, -1)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        logits = ask[..., part] @ key[..., part].mT / 4**0.5
        heads.append(logits.masked_fill(hidden[:, None], -torch.inf).softmax(-1) @ value[..., part])
    expected = layer.norm(q + gate[:, :, None] * layer.out(torch.cat(heads, -1)))
    torch.testing.assert_close(layer(q, x, hidden, gate), expected)


def test_queries_are_stretches_of_time_and_the_whole():
    torch.manual_seed(4)
    queries, skeleton = Queries(2, 8, 0.0), torch.randn(3, 256, 4, 17)
    parts = [skeleton[:, :, :2].mean((2, 3)), skeleton[:, :, 2:].mean((2, 3)), skeleton.mean((2, 3))]
    expected = queries.project(queries.norm(torch.stack(parts, 1))) + queries.place
    torch.testing.assert_close(queries(skeleton), expected)


def test_the_gate_goes_by_how_well_joints_and_anchors_were_seen():
    gate, seen = Gate(3), features(2)
    assert gate(seen).detach().flatten().tolist() == pytest.approx([0.880797] * 2), "open at first, sigmoid(2)"
    with torch.no_grad():
        gate.linear.weight.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]]))
    known = torch.cat([seen.quality.mean(1), seen.cue_scores.mean((1, 2))], -1)
    torch.testing.assert_close(gate(seen)[:, 0], torch.sigmoid(known @ torch.arange(1.0, 6.0) + 2))
    blind = dataclasses.replace(seen, cues=None, cue_scores=None)
    torch.testing.assert_close(gate(blind)[:, 0], torch.sigmoid(known[:, :2] @ torch.tensor([1.0, 2.0]) + 2))


WEIGHTS = {"cue_weight": 0.0, "sup_con": 0.0, "mlp_weight": 0.0}


def loss_with(labels, seen, **flags):
    method = build(dropout=0.0, cue_dropout=0.0, **WEIGHTS | flags)
    z, c = method.paths(seen)
    return method, method.loss(seen, labels, text()), z, c


@pytest.mark.parametrize("additive", [True, False])
def test_every_term_of_the_loss_by_hand(additive):
    """Each with its weight alone; the fourth clip shows no cue and has no say in the terms of the cues."""
    labels, seen = torch.tensor([0, 1, 1, 3, 0, 4]), features()
    seen.cue_scores[3] = 0
    there = torch.tensor([0, 1, 2, 4, 5])
    method, plain, z, c = loss_with(labels, seen, additive=additive)
    p = method.prototypes(text())
    torch.testing.assert_close(p, F.normalize(F.normalize(text().mean(1), dim=-1) - method.centre, dim=-1))
    torch.testing.assert_close(method.centre, F.normalize(text().mean(1), dim=-1).mean(0))
    torch.testing.assert_close(plain, cosine_ce(z, p, labels, 0.1))
    own = labels[there]
    for name, weight, term in (
        ("sup_con", 0.7, sup_con(z, labels)),
        ("cue_weight", 0.3, additive * cosine_ce(c[there], p, own, 0.1)),
    ):
        _, total, *_ = loss_with(labels, seen, additive=additive, **{name: weight})
        torch.testing.assert_close(total, plain + weight * term)
    h = method._bridge(method.queries(seen.skeleton), method.cues(seen, torch.zeros(6).bool()), torch.ones(6, 1))
    torch.testing.assert_close(z, F.normalize(h + c, dim=-1) if additive else h)


def test_the_loss_of_the_moved_prototypes_by_hand():
    labels, seen = torch.tensor([0, 1, 1, 3, 0, 4]), features()
    method, plain, z, _ = loss_with(labels, seen, adaptation="mlp")
    p = method.prototypes(text(), adapted=False)
    moved = F.normalize(p + method.mlp(p), dim=-1)
    torch.testing.assert_close(method.prototypes(text()), moved)
    torch.testing.assert_close(plain, cosine_ce(z, moved, labels, 0.1))
    _, total, *_ = loss_with(labels, seen, adaptation="mlp", mlp_weight=0.6)
    torch.testing.assert_close(total, plain + 0.6 * (moved - p).square().sum(-1).mean())


def test_cues_are_hidden_from_a_share_of_the_clips_in_training_only():
    method = build(cue_dropout=0.25)
    q = torch.zeros(4000, 1, 1)
    assert not method._drop_cues(q).any()
    assert method.train()._drop_cues(q).float().mean() == pytest.approx(0.25, abs=0.04)
    assert not build(skeleton=False, cue_dropout=0.25).train()._drop_cues(q).any(), "nothing would be left"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"bridges": True}, ["'bridges'", "did you mean bridge"]),
        ({"bridge": 1}, ["'bridge'", "bool"]),
        ({"adaptation": "kernel"}, ["ridge, mlp or none"]),
        ({"cues": False, "skeleton": False}, ["both off"]),
        ({"anchors": ["tail"]}, ["'tail'", "body, left_hand"]),
        ({"level_widths": [1, 2]}, ["sums to 3", "15", "run `posebridge extract` again"]),
        ({"heads": 3}, ["multiple of heads"]),
        ({"heads": 0}, ["heads should be at least 1, not 0"]),
        ({"width": 10**9}, ["width should be", "at most 10000"]),
        ({"dropout": 2}, ["dropout should be", "at most 1, not 2.0"]),
        ({"tau": 0}, ["tau should be more than 0"]),
        ({"level_widths": ["x"]}, ["'level_widths'", "a list of int"]),
        ({"level_widths": [12, True, 2]}, ["'level_widths'", "a list of int"]),
        ({"level_widths": 15}, ["'level_widths'", "a list of int"]),
        ({"level_widths": [7, 8], "levels": [2]}, ["levels names 2", "level_widths has 0 to 1"]),
        ({"anchors": [["body"]]}, ["'anchors'", "a list of str"]),
        ({"text_slots": []}, ["'text_slots'", "one or more"]),
        ({"canonical": True, "whiten": 1}, ["canonical stands for centre and whiten"]),
    ],
)
def test_flags_that_cannot_be_are_one_sentence(flags, words):
    with pytest.raises(PosebridgeError) as error:
        build(**flags)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize("name", METHODS)
def test_no_flag_of_zero_or_of_nothing_ends_in_a_traceback(name):
    """Every number of every method at 0, at 10^9 and every list empty: built, or refused in one sentence."""
    flags = sys.modules[find_method(name).__module__].Flags()
    for key, default in vars(flags).items():
        for odd in {int: (0, -1, 10**9), float: (0.0, -1.0, 1e9), tuple: ([],), bool: ()}.get(type(default), ("",)):
            try:
                find_method(name)(SHAPES, CLASSES, {key: odd})
            except PosebridgeError as error:
                assert str(error).count("\n") == 0


TRAINED = [name for name in METHODS if not issubclass(find_method(name), SolvedMethod)]


@pytest.mark.parametrize("name", [name for name in TRAINED if METHODS[name].cues is not None])
def test_cues_that_nobody_weighs_mean_nothing_and_need_not_be_read(name):
    """What features.py leaves out: those of a person without any visible anchor, in scores, loss and gradients."""
    torch.manual_seed(0)
    method = find_method(name)(SHAPES, CLASSES, {"cues": True, "dropout": 0.0, "cue_dropout": 0.0}).train()
    one, slots = features(), text(slots=len(method.text_slots))
    method.see_text(slots)
    method.see_words([dict.fromkeys(method.word_slots, "hands")] * CLASSES)
    if method.end_to_end:
        one = dataclasses.replace(one, skeleton=torch.rand(6, 2, 8, 17, 3))
    one.cue_scores[::2, 1], one.cue_scores[3] = 0, 0
    other = dataclasses.replace(one, cues=one.cues.clone())
    other.cues[::2, 1], other.cues[3] = 0, 0
    found = []
    for given in (one, other):
        torch.manual_seed(1)
        method.zero_grad()
        loss = method.loss(given, torch.arange(6) % CLASSES, slots)
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in method.parameters() if p.grad is not None)])
    torch.testing.assert_close(*found)
    method.eval()
    torch.testing.assert_close(method.scores(one, slots), method.scores(other, slots))


@pytest.mark.parametrize("flags", [{}, {"whiten": 1.0}, {"canonical": True}], ids=str)
def test_prototypes_in_training_are_made_once_and_never_those_of_before(flags, monkeypatch):
    """With gym's 520 classes and ten slots side by side, to make them anew in every step took half of it."""
    method, described = build(**flags), []
    describe = method.describe
    monkeypatch.setattr(method, "describe", lambda text: described.append(1) or describe(text))
    for seed in (1, 2):
        trained = text(seed=seed)
        for _ in range(2):  # learnt from other texts, and other clips
            method.train().see_text(trained)
            method.before(iter([features(seed=seed)]), torch.arange(6) % CLASSES, trained)
            described.clear()
            steps = [method.prototypes(trained, adapted=False) for _ in range(3)]
            assert len(described) == 1
            assert torch.equal(steps[2], method.eval().prototypes(trained, adapted=False)), "as when it is tested"
            refined = trained.clone().requires_grad_()
            assert method.prototypes(refined).requires_grad, "as an adaptation needs it"


def test_whitened_descriptions_vary_alike_in_all_directions_by_hand():
    """Two classes differ along one axis alone: its variance is 4, the mean of both 2, so with a ridge of 1 the axis is
    divided by the root of 6 and the other one by that of 2.
    """
    centred = torch.tensor([[2.0, 0.0], [-2.0, 0.0]])
    expected = torch.diag(torch.tensor([1 / 6**0.5, 1 / 2**0.5]))
    torch.testing.assert_close(whitening(centred, 1.0), expected)
    assert whitening(torch.zeros(2, 2), 1.0).isfinite().all(), "classes that all read alike"


def test_canonical_prototypes_leave_out_what_no_clip_shows():
    """Of three slots clips show the first alone: the others may say what they will."""
    rng = torch.Generator().manual_seed(0)
    seen = torch.randn(200, 12, generator=rng)
    said = torch.stack([seen, *torch.randn(2, 200, 12, generator=rng)], 1)
    cues = torch.zeros(200, 2, 4, 3, 15)
    cues[..., :12] = seen[:, None, None, None]
    clips = Features(torch.zeros(200, 256, 2, 17), torch.ones(200, 2, 2), cues, torch.ones(200, 2, 4, 3))
    torch.manual_seed(0)
    method = find_method("posebridge")(SHAPES, 200, SMALL | {"canonical": True}).eval()
    method.see_text(said)
    method.before([clips], torch.arange(200), said)
    changed = {slot: said.clone() for slot in range(3)}
    for slot, other in changed.items():
        other[:, slot] = torch.randn(200, 12, generator=rng)
    near = {slot: float((method.prototypes(said) * method.prototypes(other)).sum(1).mean())
            for slot, other in changed.items()}  # fmt: skip
    assert near[0] < 0.3 < 0.8 < min(near[1], near[2]), near


def test_prototypes_are_whitened_by_the_classes_trained_on():
    method = build(whiten=0.5)
    described = method.describe(text())
    assert torch.equal(method.evened, whitening(described - described.mean(0), 0.5))
    others = text(4, seed=9)
    wanted = F.normalize((method.describe(others) - method.centre) @ method.evened, dim=-1)
    torch.testing.assert_close(method.prototypes(others, adapted=False), wanted)


def test_ridge_leave_one_out_is_what_refitting_without_the_class_gives():
    torch.manual_seed(0)
    p, y = F.normalize(torch.randn(8, 5), dim=-1), torch.randn(8, 5)
    closed = leave_one_out(p, y, 0.3)
    for left in range(8):
        rest = [i for i in range(8) if i != left]
        weights = torch.linalg.solve(p[rest] @ p[rest].T + 0.3 * torch.eye(7), y[rest])
        torch.testing.assert_close(closed[left].float(), y[left] - p[left] @ p[rest].T @ weights, atol=1e-4, rtol=1e-4)


def test_ridge_puts_the_residuals_of_parts_together():
    """Residuals that are a linear map of the prototype are found for a class that was never fitted."""
    torch.manual_seed(0)
    d, shift = 6, torch.randn(6, 6) * 0.3
    p, new = F.normalize(torch.randn(60, d), dim=-1), F.normalize(torch.randn(4, d), dim=-1)
    ridge = RidgeResidual(60, d)
    assert not ridge(new).any()  # before it is fitted
    ridge.fit(p, p + p @ shift)
    assert float(ridge.strength) == pytest.approx(0.01)
    torch.testing.assert_close(ridge(new), new @ shift, atol=1e-2, rtol=0)
    noise = torch.randn(60, d)
    ridge.fit(p, p + noise)  # nothing to be learnt: the strongest ridge
    assert float(ridge.strength) >= 10
    dual = torch.linalg.inv(p @ p.T + ridge.strength * torch.eye(60))
    torch.testing.assert_close(ridge(new), new @ p.T @ dual @ noise, atol=1e-4, rtol=1e-3)


def test_class_means_are_normalised():
    z = F.normalize(torch.randn(6, 4), dim=-1)
    means = class_means([z], torch.tensor([0, 1, 0, 1, 2, 2]), 3)
    torch.testing.assert_close(means[0], F.normalize(z[0] + z[2], dim=0))
    parts = torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([[5.0, 0.0]])
    by_hand = class_means(parts, torch.tensor([1, 1, 0]), 2)
    torch.testing.assert_close(by_hand, torch.tensor([[1.0, 0.0], [0.6, 0.8]]))  # each row, and not each column


def test_losses_by_hand():
    z = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), dim=-1)
    labels = torch.tensor([0, 0, 1])
    assert sup_con(z, labels) < sup_con(z, torch.tensor([0, 1, 0]))
    assert sup_con(z, torch.tensor([0, 1, 2])) == 0  # nobody has a positive
    first = -torch.log_softmax((z[0] @ z[1:].T) / 0.1, 0)[0]
    second = -torch.log_softmax((z[1] @ z[[0, 2]].T) / 0.1, 0)[0]
    torch.testing.assert_close(sup_con(z, labels), (first + second) / 2)
    torch.testing.assert_close(
        cosine_ce(z, z, torch.tensor([0, 1, 2]), 0.5), F.cross_entropy(z @ z.T / 0.5, torch.arange(3))
    )


def test_losses_of_the_clips_that_are_there_are_those_of_a_batch_without_the_others():
    torch.manual_seed(0)
    a, b = (F.normalize(torch.randn(7, 4, dtype=torch.float64), dim=-1).requires_grad_() for _ in range(2))
    labels, there = torch.tensor([0, 1, 1, 2, 0, 2, 3]), torch.tensor([True, False, True, True, True, False, True])
    found, wanted = cosine_ce(a, b, labels, 0.3, there), cosine_ce(a[there], b, labels[there], 0.3)
    torch.testing.assert_close(found, wanted)
    for x, y in zip(torch.autograd.grad(found, (a, b)), torch.autograd.grad(wanted, (a, b)), strict=True):
        torch.testing.assert_close(x, y)
    nothing = cosine_ce(a, b, labels, 0.3, there & False)
    assert nothing == 0 and all(not g.any() for g in torch.autograd.grad(nothing, (a, b)))
    one = torch.arange(7) == 2
    torch.testing.assert_close(cosine_ce(a, b, labels, 0.3, one), cosine_ce(a[one], b, labels[one], 0.3))


def test_the_residual_moves_prototypes_and_alpha_scales_it():
    method = build()
    before = method.prototypes(text())
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    method.finish(class_means([method.embed(features()).detach()], labels, len(text())), text())
    assert torch.equal(method.prototypes(text()), before)  # alpha is 0 until it is chosen
    method.alpha = 1.0
    assert not torch.allclose(method.prototypes(text()), before)
    torch.testing.assert_close(method.prototypes(text()).norm(dim=-1), torch.ones(CLASSES))
