"""The ranking adapter: a light network on frozen patch and word tokens that learns which of two images has more of it.

Patches look at one another and at the words of an instruction ("rank by density ..."), and two heads read them: one
gives each image a score, the other one compares each pair. The pair head shapes what the patches become and is left
out at the end: a pack answers by its score, cut into steps half way between them.

The comparison needs no memory for pairs of tokens. With z the logarithm of the sum of an image's exponentials and v its
attended values, a softmax over the tokens of i and j together gives σ(z_i − z_j)·v_i and σ(z_j − z_i)·v_j.

Reference: Yu et al., Ranking-aware adapter for text-driven image ordering with CLIP, ICLR 2025, and its published code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad

from medclip.adaptation.budget import BATCH, check_schedule, learn_at_best_rate, passes
from medclip.adaptation.data.class_text import ClassText
from medclip.adaptation.data.examples import Examples
from medclip.adaptation.data.shot_features import Judge
from medclip.adaptation.data.token_heads import ShotTokens
from medclip.adaptation.frozen.ordinal import DEFAULT_SLOPE, best_slope, check_scale, log_probabilities, take_steps
from medclip.adaptation.frozen.train_on_features import run_epochs
from medclip.adaptation.methods import Fitted
from medclip.errors import MedclipError, Reason
from medclip.models.towers.tokens import Tokens
from medclip.objectives.ranking import Ties, ranking_loss
from medclip.statistics.metrics.selection_score import log_loss, temperature

if TYPE_CHECKING:
    from medclip.models.model import Model

NUM_PROMPTS, NUM_QUERIES, NUM_HEADS, NUM_LAYERS = 32, 16, 8, 2
WIDTH = 128
"""Of the tokens inside; 768 in the published network, which learned from tens of thousands of images."""
_WEIGHT_DECAY = 0.01


class _Fusion(nn.Module):
    """One layer: patches look at one another, then at the words."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.own = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.cross = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)) for _ in range(2)
        )

    def forward(self, x_NPD: Tensor, words_NTD: Tensor, empty_NP: Tensor) -> Tensor:
        y_NPD = self.norms[0](x_NPD)
        x_NPD = x_NPD + self.own(y_NPD, y_NPD, y_NPD, key_padding_mask=empty_NP, need_weights=False)[0]
        x_NPD = x_NPD + self.mlps[0](self.norms[1](x_NPD))
        x_NPD = x_NPD + self.cross(self.norms[2](x_NPD), words_NTD, words_NTD, need_weights=False)[0]
        return x_NPD + self.mlps[1](self.norms[3](x_NPD))


class RankingAttention(nn.Module):
    """Learned queries that weigh the tokens of two images against each other.

    Args:
        width: Width of tokens, D.
        num_heads: Number of heads.
        num_queries: Number of queries, Q.
    """

    def __init__(self, width: int, num_heads: int = NUM_HEADS, num_queries: int = NUM_QUERIES) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_1QD = nn.Parameter(torch.randn(1, num_queries, width) * width**-0.5)
        self.q_proj, self.kv_proj, self.out_proj = (nn.Linear(width, width) for _ in range(3))
        self.ln_q, self.ln_kv = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x_NPD: Tensor, empty_NP: Tensor | None = None) -> Tensor:
        """Compare all images of a group.

        Args:
            x_NPD: Tokens of N images.
            empty_NP: True where a token is padding; None: nowhere.

        Returns:
            [N, N, Q, D]: of i (down) against j (across), behind the output projection. Before its bias what is at
            (i, j) is minus what is at (j, i).
        """
        heads = (self.num_heads, -1)
        q_QHd = self.ln_q(self.q_proj(self.query_1QD))[0].unflatten(-1, heads)
        k_NPHd = self.ln_kv(self.kv_proj(x_NPD)).unflatten(-1, heads)
        logits_NHQP = torch.einsum("qhd,nphd->nhqp", q_QHd, k_NPHd) * q_QHd.shape[-1] ** -0.5
        if empty_NP is not None:
            logits_NHQP = logits_NHQP.masked_fill(empty_NP[:, None, None], -torch.inf)
        values_NHQd = torch.einsum("nhqp,nphd->nhqd", logits_NHQP.softmax(dim=-1), k_NPHd)
        weight_NHQ = logits_NHQP.logsumexp(dim=-1)
        share_NNHQ = (weight_NHQ[:, None] - weight_NHQ).sigmoid()
        mixed = share_NNHQ[..., None] * values_NHQd[:, None] - (1 - share_NNHQ)[..., None] * values_NHQd
        return self.out_proj(mixed.transpose(2, 3).flatten(-2))


def _head(width: int, num_layers: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(num_layers):
        layers += [nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 1))


class RankingAdapter(nn.Module):
    """The whole network; tokens of a tower go in, a score of each image and a logit of each pair come out.

    Args:
        image_width: Width of patch tokens.
        text_width: Width of word tokens.
        width: Width inside, D; a multiple of the number of heads.
    """

    def __init__(self, image_width: int, text_width: int, width: int = WIDTH) -> None:
        super().__init__()
        self.of_image, self.of_text = nn.Linear(image_width, width), nn.Linear(text_width, width)
        self.prompt_M = nn.Parameter(torch.randn(NUM_PROMPTS) * NUM_PROMPTS**-0.5)
        self.fusion = nn.ModuleList(_Fusion(width, NUM_HEADS) for _ in range(NUM_LAYERS))
        layer = nn.TransformerEncoderLayer(width, NUM_HEADS, width, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, NUM_LAYERS, enable_nested_tensor=False)
        self.score_norm, self.score = nn.LayerNorm(width), _head(width, 2)
        self.attention = RankingAttention(width)
        self.pair_norm, self.pair = nn.LayerNorm(width), _head(width, 3)
        for module in (*self.score, *self.pair):
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)

    def encode(self, tokens_NPE: Tensor, empty_NP: Tensor, words_TW: Tensor) -> Tensor:
        """Let patches look at one another and at the words, [N, P, D]."""
        x_NPD, words_TD = self.of_image(tokens_NPE), self.of_text(words_TW)
        prompts_MD = self.prompt_M[:, None].expand(-1, words_TD.shape[1])
        words_NTD = torch.cat([prompts_MD, words_TD]).expand(len(x_NPD), -1, -1)
        for layer in self.fusion:
            x_NPD = layer(x_NPD, words_NTD, empty_NP)
        return self.encoder(x_NPD, src_key_padding_mask=empty_NP)

    def score_of(self, x_NPD: Tensor, empty_NP: Tensor) -> Tensor:
        """Score each image, [N]."""
        summed_ND = self.score_norm(x_NPD).masked_fill(empty_NP[..., None], 0.0).sum(dim=1)
        return self.score(summed_ND)[:, 0]

    def pairs_of(self, x_NPD: Tensor, empty_NP: Tensor, *, antisymmetric: bool = True) -> Tensor:
        """Compare each pair, [N, N].

        Args:
            x_NPD: Tokens of `encode`.
            empty_NP: True where a token is padding.
            antisymmetric: Whether half of what the other order gives is taken away, so that i against j is minus j
                against i.
        """
        compared_NND = self.attention(x_NPD, empty_NP).sum(dim=2)
        logits_NN = self.pair(self.pair_norm(compared_NND))[..., 0]
        return (logits_NN - logits_NN.T) / 2 if antisymmetric else logits_NN

    def kept(self) -> dict[str, Tensor]:
        """Return what the score needs, without the pair head."""
        left_out = ("attention.", "pair_norm.", "pair.")
        return {name: value for name, value in self.state_dict().items() if not name.startswith(left_out)}


@dataclass(frozen=True, eq=False)
class RankingHead:
    """The score of an image in steps, and the log probability of each of them around it."""

    network: RankingAdapter
    words_TW: NDArray[np.float32]
    """Tokens of the instruction."""
    mean: float
    spread: float
    """Steps are mean + spread · score."""
    slope: float
    num_steps: int
    kind: ClassVar[str] = "ranking"
    takes: ClassVar[Literal["features", "tokens"]] = "tokens"

    def place(self, features_ND: Any) -> NDArray[np.float64]:
        """Return where images lie on the scale, 0 for the lowest step, float64 [N].

        Args:
            features_ND: `Tokens` of N images.
        """
        with torch.inference_mode():
            tokens_NPE, empty_NP = _inputs(features_ND)
            x_NPD = self.network.encode(tokens_NPE, empty_NP, torch.from_numpy(self.words_TW))
            return self.mean + self.spread * self.network.score_of(x_NPD, empty_NP).double().numpy()

    def logits(self, features_ND: Any, model: Any) -> NDArray[np.float32]:
        """Return float32 [N, C], of which the softmax is the probability of each step."""
        thresholds_K = self.slope * (np.arange(self.num_steps - 1) + 0.5)
        return log_probabilities(self.slope * self.place(features_ND), thresholds_K).astype(np.float32)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all that it takes to make it again."""
        numbers = {name: np.asarray(getattr(self, name), np.float64) for name in ("mean", "spread", "slope")}
        weights = {f"network.{name}": value.numpy() for name, value in self.network.kept().items()}
        return {**numbers, "num_steps": np.asarray(self.num_steps), "words": self.words_TW, **weights}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> RankingHead:
        """Make it again."""
        weights = {
            name.removeprefix("network."): torch.from_numpy(np.array(value))
            for name, value in arrays.items()
            if name.startswith("network.")
        }
        width, image_width = weights["of_image.weight"].shape
        network = RankingAdapter(image_width, weights["of_text.weight"].shape[1], width)
        try:
            missing, strange = network.load_state_dict(weights, strict=False)
        except RuntimeError as e:
            raise MedclipError(Reason.PACK_INVALID, "the weights of its ranking adapter do not fit.") from e
        if strange or any(name in network.kept() for name in missing):
            raise KeyError((*strange, *missing)[0])
        mean, spread, slope = (float(arrays[name]) for name in ("mean", "spread", "slope"))
        words = np.asarray(arrays["words"], np.float32)
        return cls(network.eval(), words, mean, spread, slope, int(arrays["num_steps"]))


def instruction(text: ClassText) -> str:
    """Return the sentence that says what is ranked by.

    Example:
        >>> from medclip.adaptation.data.class_text import class_text
        >>> from medclip.text.vocabulary.load import load_task
        >>> instruction(class_text(load_task("breast_density")))
        'rank by breast density on mammograms, from fatty breast to dense glandular breast'
    """
    lowest, highest = text.phrases[0], text.phrases[-1]
    return f"rank by {text.task.title[:1].lower()}{text.task.title[1:]}, from {lowest} to {highest}"


def fit_ranking(
    base: Model,
    text: ClassText,
    train: Examples,
    val: Examples | None,
    *,
    seed: int,
    width: int = WIDTH,
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int = BATCH,
    ties: Ties = "ignore",
    antisymmetric: bool = True,
) -> Fitted:
    """Train the adapter; the towers stay as they are.

    A step takes a group of shots, one view of each, and compares every pair of it.

    Args:
        base: The base model.
        text: The classes, steps of a scale in their order.
        train: The shots.
        val: Further examples, which choose the rate where none is given; folds of the shots do where there are none.
        seed: Seed of the first weights, of the order and of the views.
        width: Width of tokens inside; a multiple of 8.
        epochs: Passes over the shots; those of `budget.passes` where None.
        lr: Learning rate at the start of the cosine; None: the best of `budget.RATES`.
        batch_size: Shots of a group.
        ties: Meaning of pairs of one step, see `medclip.objectives.ranking`.
        antisymmetric: Whether the pair head is made to say of (j, i) the opposite of (i, j).

    Raises:
        MedclipError: As `ordinal.take_steps`; WRONG_USE for a width that is no multiple of 8.
    """
    check_schedule("ranking", lr, epochs=epochs, batch_size=batch_size, width=width)
    if width % NUM_HEADS:
        raise MedclipError(Reason.WRONG_USE, f"width of ranking is {width}; it takes a multiple of {NUM_HEADS}.")
    check_scale(text)
    sentence = instruction(text)
    words = base.encode_tokens(sentence)
    words_TW = np.ascontiguousarray(words.tokens_BLD[0][words.mask_BL[0]], np.float32)
    shots = take_steps(base, text, train, val)
    num_epochs = passes(len(train)) if epochs is None else epochs
    tokens_of: dict[int, Callable[[], Tokens[NDArray[Any]]]] = {}
    for examples in (train, *([shots.val] if shots.val is not None else [])):
        stored = ShotTokens(base, examples)
        tokens_of |= {id(pixels): partial(stored.__getitem__, n) for n, pixels in enumerate(examples.pixels)}

    def head_of(examples: Examples, rate: float) -> RankingHead:
        group = _Group([tokens_of[id(pixels)] for pixels in examples.pixels], examples.targets, words_TW, seed)
        network = _train(group, width, ties, antisymmetric, lr=rate, epochs=num_epochs, batch_size=batch_size)
        return RankingHead(network, words_TW, group.mean, group.spread, DEFAULT_SLOPE, len(text.names))

    def learn(examples: Examples, rate: float) -> Fitted:
        head = head_of(examples, rate)
        settings = {"lr": rate, "epochs": num_epochs, "images": num_epochs * len(examples), "batch_size": batch_size}
        settings |= {"width": width, "ties": ties, "antisymmetric": antisymmetric, "instruction": sentence}
        return Fitted(head, sum(value.numel() for value in head.network.kept().values()), shots.settings(**settings))

    fitted = learn_at_best_rate(base, shots, "ranking", learn, lr=lr, seed=seed, loss_of=_at_best_slope)
    judge, slope, head = Judge(shots, seed, most_folds=2), DEFAULT_SLOPE, fitted.head
    assert isinstance(head, RankingHead)
    if judge.parts:
        rate = fitted.settings["lr"]
        heads = [head] if judge.how == "val" else [head_of(part.learn, rate) for part in judge.parts]
        places = [
            np.mean(one.place(tokens_of[id(pixels)]()))
            for one, part in zip(heads, judge.parts, strict=True)
            for pixels in part.judge.pixels
        ]
        _, slope = best_slope(np.array(places, np.float64), judge.targets, len(text.names))
    settings = {**fitted.settings, "slope": slope, "slope_fitted_on": judge.how}
    return replace(fitted, head=replace(head, slope=slope), settings=settings)


def _at_best_slope(logits_NK: NDArray[Any], step_N: NDArray[np.int64]) -> float:
    """Return the log loss under the best factor: the slope is fitted when the rate is chosen."""
    return log_loss(temperature(logits_NK, step_N) * logits_NK, step_N)


class _Group:
    """Shots to train on: their tokens, and their steps about the mean, in standard deviations."""

    def __init__(
        self,
        tokens: Sequence[Callable[[], Tokens[NDArray[Any]]]],
        step_N: NDArray[np.int64],
        words_TW: NDArray[np.float32],
        seed: int,
    ) -> None:
        self._tokens, self.seed, self.words_TW = tokens, seed, torch.from_numpy(words_TW)
        self.mean, self.spread = float(step_N.mean()), float(step_N.std())
        self._target_N = torch.from_numpy(((step_N - self.mean) / self.spread).astype(np.float32))
        self._rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self._tokens)

    def draw(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return one view of each: tokens [N, P, E], where they are padding [N, P], and targets [N]."""
        views = []
        for row in rows.tolist():
            tokens_VPE, empty_VP = _inputs(self._tokens[row]())
            one = int(self._rng.integers(len(tokens_VPE)))
            views.append((tokens_VPE[one], empty_VP[one]))
        most = max(len(tokens) for tokens, _ in views)
        tokens_NPE = torch.stack([pad(tokens, (0, 0, 0, most - len(tokens))) for tokens, _ in views])
        empty_NP = torch.stack([pad(empty, (0, most - len(empty)), value=True) for _, empty in views])
        return tokens_NPE, empty_NP, self._target_N[rows]


def _inputs(tokens: Tokens[NDArray[Any]]) -> tuple[Tensor, Tensor]:
    tokens_NPE = torch.from_numpy(np.ascontiguousarray(tokens.tokens_BLD, np.float32))
    return tokens_NPE, torch.from_numpy(~np.asarray(tokens.mask_BL, bool))


def _train(
    group: _Group, width: int, ties: Ties, antisymmetric: bool, *, lr: float, epochs: int, batch_size: int
) -> RankingAdapter:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(group.seed)
        image_width = group.draw(torch.zeros(1, dtype=torch.int64))[0].shape[-1]
        network = RankingAdapter(image_width, group.words_TW.shape[1], width)
        optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=_WEIGHT_DECAY)

        def batch_loss(rows: Tensor) -> Tensor:
            tokens_NPE, empty_NP, target_N = group.draw(rows)
            x_NPD = network.encode(tokens_NPE, empty_NP, group.words_TW)
            pair_NN = network.pairs_of(x_NPD, empty_NP, antisymmetric=antisymmetric)
            return ranking_loss(network.score_of(x_NPD, empty_NP), target_N, pair_NN, ties=ties)

        run_epochs(len(group), optimizer, batch_loss, epochs=epochs, batch_size=batch_size, seed=group.seed)
    return network.eval()
