"""Losses of a batch, to be computed by one process or by several ranks; run as a module it is one rank."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from medclip.objectives.contrastive import clip_loss
from medclip.objectives.distill import relational_loss
from medclip.objectives.edit_pairs import edit_pair_loss
from medclip.objectives.hard_negatives import pairwise_loss, row_loss
from medclip.objectives.levels import level_weights, levels_loss
from medclip.objectives.masked import masked_pixel_loss
from medclip.objectives.multi_view import ExamKeys, multi_view_clip_loss
from medclip.objectives.pairs import Pairs
from medclip.objectives.reinforced import reinforced_loss
from medclip.objectives.replay import replay_loss
from medclip.objectives.sigmoid import siglip_loss
from medclip.objectives.softened import softened_loss
from medclip.objectives.token_alignment import token_alignment_loss
from medclip.training.steps.step import cached_backward
from tests.kits.objectives import part_of, unit

SIZE, WIDTH = 12, 6
WEIGHTS = torch.tensor([1.0, 0, 3, 1, 2, 1, 1, 0.5, 1, 1, 4, 1])
POSITIVE = torch.tensor(
    [[0, -1], [1, 5], [2, 5], [3, -1], [0, 7], [1, 7], [9, -1], [9, 5], [4, -1], [4, 4], [6, 4], [2, 4]]
)
IGNORED = torch.tensor([[1], [1], [1], [2], [2], [3], [3], [3], [-1], [-1], [1], [1]])
VALID = torch.tensor([False, False, False, True, False, True, True, True, True, False, True, True])  # none of 4's first
BREASTS = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 1], [1, 0, -1, 0], [1, 1, 1, -1]]).repeat(3, 1)
PAIRS = {
    "plain": None,
    "positives": Pairs(positive_BK=POSITIVE),
    "ignored": Pairs(ignored_BK=IGNORED),
    "weights": Pairs(weights_B=WEIGHTS),
    "valid": Pairs(valid_B=VALID),
    "all": Pairs(POSITIVE, IGNORED, WEIGHTS, VALID),
    "nobody": Pairs(valid_B=torch.zeros(SIZE, dtype=torch.bool)),
}

Case = Callable[[list[Tensor], Tensor, Tensor, slice, dist.ProcessGroup | None], Tensor]


def cases() -> dict[str, Case]:
    """Losses by name. Called with four features of some rows, scale, bias, which rows they are, and a group."""
    there = torch.arange(2 * SIZE).view(SIZE, 2) % 5 != 0
    mask = torch.arange(4 * SIZE).view(SIZE, 4) % 3 == 0
    images = torch.randn(SIZE, 1, 4, 4, generator=torch.Generator().manual_seed(9))
    found: dict[str, Case] = {}
    for name, pairs in PAIRS.items():
        found |= {
            f"clip {name}": lambda f, s, b, rows, group, pairs=pairs: clip_loss(
                f[0], f[1], s, part_of(pairs, rows), group=group, chunk=4
            ),
            f"siglip {name}": lambda f, s, b, rows, group, pairs=pairs: siglip_loss(
                f[0], f[1], s, b, part_of(pairs, rows), group=group, chunk=4
            ),
        }
    for name in ("plain", "all"):
        found[f"views {name}"] = lambda f, s, b, rows, group, pairs=PAIRS[name]: multi_view_clip_loss(
            f[:2],
            f[2:],
            s,
            w_vv=1.0,
            w_tt=0.5,
            w_joint=0.7,
            exams=ExamKeys(image_there_BV=there[rows], image_part_BV=BREASTS[rows, :2], text_part_BT=BREASTS[rows, 2:]),
            pairs=part_of(pairs, rows),
            group=group,
        )
    for name, weights in (("all", None), ("some", WEIGHTS * VALID)):
        found[f"replay {name}"] = lambda f, s, b, rows, group, weights=weights: replay_loss(
            f[0],
            f[1].detach(),
            unit(7, WIDTH, 8),
            8.0,
            symmetric=True,
            group=group,
            weights_B=None if weights is None else weights[rows],
        )
    false = torch.arange(2 * SIZE).view(SIZE, 2) % 3 != 0
    false[::4] = False
    found["false texts pairwise"] = lambda f, s, b, rows, group: pairwise_loss(
        f[0], f[1], torch.stack(f[2:], 1), false[rows], s, weights_B=(WEIGHTS * VALID)[rows], group=group
    )
    for name in ("plain", "all", "nobody"):
        found[f"softened {name}"] = lambda f, s, b, rows, group, pairs=PAIRS[name]: softened_loss(
            f[0], f[1], s, 0.3, pairs=part_of(pairs, rows), group=group
        )
        found[f"levels {name}"] = lambda f, s, b, rows, group, pairs=PAIRS[name]: levels_loss(
            {"G": f[0], "L": f[1], "R": f[2]},
            {"S": f[3], "T": f[0].flip(1), "A": f[1].flip(1)},
            *(s, 0.2, level_weights(0.3, 0.2)),
            pairs=dict.fromkeys("STA", part_of(pairs, rows)),
            group=group,
        )
        found[f"false texts row {name}"] = lambda f, s, b, rows, group, pairs=PAIRS[name]: row_loss(
            f[0], f[1], torch.stack(f[2:], 1), false[rows], s, part_of(pairs, rows), group=group, chunk=4
        )
    for name in ("plain", "all", "nobody"):
        for hardest in (None, 3):
            found[f"tokens {name} {hardest}"] = lambda f, s, b, rows, group, pairs=PAIRS[name], num=hardest: (
                token_alignment_loss(
                    *(torch.stack(f[:3], 1), torch.stack(f[2:], 1), s),
                    cap=2,
                    hardest=num,
                    image_BD=f[0],
                    text_BD=f[3],
                    pairs=part_of(pairs, rows),
                    group=group,
                )
            )
        for form in ("average", "sigmoid"):
            found[f"stored teachers {form} {name}"] = lambda f, s, b, rows, group, pairs=PAIRS[name], form=form: (
                reinforced_loss(
                    *f[:2],
                    s,
                    *f[2:],
                    dims=[2, 4],
                    scales=[9, 5],
                    bias=b,
                    form=form,
                    pairs=part_of(pairs, rows),
                    group=group,
                )
            )
    # Partners on one rank and on two, three of one pair, and two whose texts are equal.
    pair = torch.tensor([1, 2, 3, 1, 4, 4, -1, 2, -1, 3, 3, 9])[:, None]
    same = torch.tensor([-1, -1, -1, -1, 7, 7, -1, -1, -1, -1, -1, -1])[:, None]
    found["edit pairs"] = lambda f, s, b, rows, group: edit_pair_loss(
        f[0], f[1], pair[rows], s, same_BK=same[rows], weights_B=(WEIGHTS * VALID)[rows], group=group, chunk=2
    )
    found |= {
        "relations": lambda f, s, b, rows, group: relational_loss(
            f[0], f[1].detach(), 0.3, valid_B=VALID[rows], group=group, chunk=2
        ),
        "pixels": lambda f, s, b, rows, group: masked_pixel_loss(
            f[0][:, :4, None] * torch.ones(4), images[rows], mask[rows], 2, weights_B=WEIGHTS[rows], group=group
        ),
    }
    return found


def run_cases(rows: slice, group: dist.ProcessGroup | None) -> dict[str, np.ndarray]:
    """Loss and gradients of every case for some rows of the batch."""
    out: dict[str, np.ndarray] = {}
    for name, case in cases().items():
        features = [unit(SIZE, WIDTH, seed)[rows].clone().requires_grad_() for seed in range(4)]
        scale, bias = torch.tensor(8.0, requires_grad=True), torch.tensor(-4.0, requires_grad=True)
        loss = case(features, scale, bias, rows, group)
        (2 * loss).backward()
        out[f"{name}/loss"] = loss.detach().numpy()
        for i, tensor in enumerate([*features, scale, bias]):
            out[f"{name}/{i}"] = (torch.zeros_like(tensor) if tensor.grad is None else tensor.grad).numpy()
    return out


class Towers(nn.Module):
    """Two towers and a scale that only the loss uses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.image, self.text = nn.Linear(WIDTH, 5), nn.Linear(WIDTH, 5)
        self.log_scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        made = (torch.tanh(tower(x)) for tower, x in ((self.image, image), (self.text, text)))
        return tuple(nn.functional.normalize(x, dim=1) for x in made)  # type: ignore[return-value]


def run_towers(rows: slice, group: dist.ProcessGroup | None, cached: bool) -> dict[str, np.ndarray]:
    """Loss and gradients of parameters of some rows, at once or two samples at a time; under DDP where ranks are."""
    towers = Towers()
    model = towers if group is None else nn.parallel.DistributedDataParallel(towers)
    inputs = (unit(SIZE, WIDTH, 5)[rows], unit(SIZE, WIDTH, 6)[rows])
    pairs = part_of(PAIRS["all"], rows)

    def loss(image: Tensor, text: Tensor) -> Tensor:
        return clip_loss(image, text, towers.log_scale.exp(), pairs, group=group)

    if cached:
        chunks = list(zip(*(x.split(2) for x in inputs), strict=True))
        no_sync = nullcontext if group is None else model.no_sync
        value = cached_backward(chunks, lambda c: model(*c), loss, no_sync=no_sync, loss_parameters=[towers.log_scale])
    else:
        value = loss(*model(*inputs))
        value.backward()
    return {"loss": value.detach().numpy()} | {n: p.grad.numpy() for n, p in towers.named_parameters()}


def main(folder: Path, rank: int, ranks: int, golden: str) -> None:
    """Be one rank: write what it found into the folder."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=ranks, timeout=timedelta(seconds=60)
    )
    rows = slice(rank * SIZE // ranks, (rank + 1) * SIZE // ranks)
    group = dist.group.WORLD
    found = run_cases(rows, group)
    for cached in (False, True):
        found |= {f"towers {cached}/{name}": x for name, x in run_towers(rows, group, cached).items()}
    if golden:
        stored = np.load(golden, allow_pickle=False)
        if len(stored["sharded/image"]) % ranks == 0:
            image, text = (torch.tensor(stored[f"sharded/{k}"]).chunk(ranks)[rank] for k in ("image", "text"))
            found["golden"] = clip_loss(image, text, torch.tensor(stored["sharded/scale"]), group=group).numpy()
    np.savez(folder / f"{rank}.npz", **found)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
