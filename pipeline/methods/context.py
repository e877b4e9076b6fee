"""SkeletonContext's context branch: a skeleton guesses where, with what and towards what, and is changed by guessing.

Source: Wang et al., "SkeletonContext", CVPR 2026 (arXiv 2603.29692); behaviour of its released model files as
described, written anew. What differs between joints becomes one vector g; one cross-modal layer (as in LXMERT: Tan and
Bansal, EMNLP 2019) lets g and the tokens of a prompt read each other; a head learns to name the masked words. The
changed g is the branch's feature, so at test, where every slot is masked, the prompt is the same for every clip.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.methods.dropout import Dropout
from pipeline.methods.prompts import IGNORED, Prompts, masked_slots

CHANNELS = 256


class DifferentialEncoding(nn.Module):
    """D_ij = ReLU(Q_j - K_i), A = softmax of D over i, channel by channel; joint j becomes the sum over i of A_ij V_i.

    Q, K, V are linear in the layer-normed joints. On a CPU a few clips at a time, so that their differences stay in the
    processor's cache.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.query, self.key, self.value = (nn.Linear(channels, channels) for _ in range(3))

    def forward(self, h: Tensor) -> Tensor:  # [B, V, channels] -> the same
        x = self.norm(h)
        some = 2 if x.device.type == "cpu" else len(x)
        parts = zip(*(linear(x).split(some) for linear in (self.query, self.key, self.value)), strict=True)
        return torch.cat([self._encode(query, key, value) for query, key, value in parts])

    def _encode(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        difference = (query[:, :, None] - key[:, None]).relu_()  # [B, j, i, channels]
        return (difference.softmax(2) * value[:, None]).sum(2)


class AttendOne(nn.Module):
    """LN(x + attention of x to one vector): whatever is asked, a single one has all the attention."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout, self.norm = Dropout(dropout), nn.LayerNorm(width)

    def to_one(self, x: Tensor, one: Tensor) -> Tensor:
        """x [B, Q, width], one [B, 1, width]."""
        return self.norm(x + self.dropout(self.out(self.value(one)).expand_as(x)))


class Attend(AttendOne):
    """LN(x + attention of x to y), the part that BERT's and LXMERT's layers are made of, where few ask many.

    The weights of keys and values are applied to the questions and to what they have heard, not to every token of y:
    q . (K y) = (K^T q) . y, and a weighted sum of V y is V of the weighted sum. A bias of the keys would cancel.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__(width, dropout)
        self.heads, self.forget = heads, Dropout(dropout)
        self.ask, self.key = nn.Linear(width, width), nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, y: Tensor, there: Tensor | None = None) -> Tensor:
        """x [B, Q, width], y [B or 1, N, width], there [B or 1, N] bool, all of y where it is None."""
        queries = self.ask(x).unflatten(-1, (self.heads, -1))  # [B, Q, heads, d]
        keys, values = (w.unflatten(0, (self.heads, -1)) for w in (self.key.weight, self.value.weight))
        asked = torch.einsum("bqhd,hdw->bhqw", queries, keys) * queries.shape[-1] ** -0.5
        y = y.expand(len(x), -1, -1)
        fit = (asked.flatten(1, 2) @ y.transpose(1, 2)).unflatten(1, (self.heads, -1))  # [B, heads, Q, N]
        if there is not None:
            fit = fit.masked_fill(~there[:, None, None], -torch.inf)
        share = self.forget(fit.softmax(-1))
        heard = (share.flatten(1, 2) @ y).unflatten(1, (self.heads, -1))  # [B, heads, Q, width]
        bias = share.sum(-1)[..., None] * self.value.bias.view(self.heads, 1, -1)  # shares sum to 1 but for dropout
        answer = torch.einsum("bhqw,hdw->bhqd", heard, values) + bias
        return self.norm(x + self.dropout(self.out(answer.transpose(1, 2).flatten(2))))


class FeedForward(nn.Module):
    """LN(x + W GELU(W x))."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.inside = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), Dropout(dropout)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.inside(x))


class CrossModalLayer(nn.Module):
    """One LXMERT layer between g [B, 1, width] and tokens [B, L, width]: to each other, to themselves, feed-forward.

    The attention to each other has the same weights in both directions, as in LXMERT.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.cross = Attend(width, heads, dropout)
        self.skeleton_itself, self.skeleton_forth = AttendOne(width, dropout), FeedForward(width, dropout)
        self.text_itself, self.text_forth = Attend(width, heads, dropout), FeedForward(width, dropout)

    def skeleton(self, g: Tensor, tokens: Tensor, there: Tensor | None = None) -> Tensor:
        """g as the tokens [B or 1, L, width] change it."""
        g = self.cross(g, tokens, there)
        return self.skeleton_forth(self.skeleton_itself.to_one(g, g))

    def text(self, g: Tensor, tokens: Tensor, there: Tensor, places: Tensor) -> Tensor:
        """The tokens at `places` [B, P] as g changes them, [B, P, width]; the others are not worked out to the end."""
        tokens = self.cross.to_one(tokens, g)
        asked = tokens[torch.arange(len(places), device=places.device)[:, None], places]
        return self.text_forth(self.text_itself(asked, tokens, there))


class ContextBranch(nn.Module):
    """The map [B, 256, T', V] to the feature [B, width]. Sizes that words and language model decide are those of the
    weights it is loaded with, so that testing needs neither.
    """

    prompt: Tensor  # [L, d_lm] the frozen model's states of the prompt with every slot masked
    spelled: Tensor  # the vocabulary as bytes, an answer a line

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.differ = DifferentialEncoding(CHANNELS)
        self.enter = nn.Linear(CHANNELS, width)
        self.layer = CrossModalLayer(width, heads, dropout)
        self.before_answer = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.prompts: Prompts | None
        self.register_module("prompts", None)  # until training
        self.register_buffer("prompt", torch.zeros(0))
        self.register_buffer("spelled", torch.zeros(0, dtype=torch.uint8))
        self._fit_sizes(torch.zeros(1, width), self.spelled, answers=1)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Every answer that the head can give."""
        return tuple(bytes(self.spelled.tolist()).decode().splitlines())

    def see(self, prompts: Prompts) -> None:
        """Take the prompts of the classes trained on; the head is made anew."""
        spelled = torch.tensor(list("\n".join(prompts.vocabulary).encode()), dtype=torch.uint8)
        self._fit_sizes(prompts.all_masked(), spelled, len(prompts.vocabulary))
        self.prompts = prompts.to(self.prompt.device)

    def forward(self, skeleton: Tensor) -> Tensor:
        """The feature where no context is known: every slot is masked."""
        return self.layer.skeleton(self.guess(skeleton), self.bring(self.prompt)[None])[:, 0]

    def train_with(self, skeleton: Tensor, labels: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """The feature where each clip's own context is known as far as the curriculum has it, and the loss of naming
        the rest.
        """
        if self.prompts is None:
            raise RuntimeError("see_words comes before training")
        states, there, gaps, answers = self.prompts.draw(labels, masked_slots(progress))
        g, tokens = self.guess(skeleton), self.bring(states)
        named = self.answer(self.before_answer(self.layer.text(g, tokens, there, gaps)))  # [B, 3, answers]
        naming = F.cross_entropy(named.flatten(0, 1), answers.flatten(), ignore_index=IGNORED)
        return self.layer.skeleton(g, tokens, there)[:, 0], naming

    def guess(self, skeleton: Tensor) -> Tensor:
        """g [B, 1, width]."""
        h = skeleton.mean(2).transpose(1, 2)  # [B, V, 256]
        return torch.relu(self.enter((self.differ(h) + h).mean(1, keepdim=True)))

    def _fit_sizes(self, prompt: Tensor, spelled: Tensor, answers: int) -> None:
        """`bring` is a layer only where the language model is not as wide as the text."""
        device = self.prompt.device
        same = prompt.shape[1] == self.width
        self.bring = nn.Identity() if same else nn.Linear(prompt.shape[1], self.width, device=device)
        self.answer = nn.Linear(self.width, answers, device=device)
        self.prompt, self.spelled = prompt.clone().to(device), spelled.clone().to(device)

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *args) -> None:
        own = {"prompt": self.prompt, "spelled": self.spelled, "answer.bias": self.answer.bias}
        found = {key: state[prefix + key] for key in own if prefix + key in state}
        if len(found) == len(own) and any(found[key].shape != own[key].shape for key in own):
            self._fit_sizes(found["prompt"], found["spelled"], len(found["answer.bias"]))
        super()._load_from_state_dict(state, prefix, *args)
