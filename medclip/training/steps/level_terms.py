"""The terms of the loss `levels`: a row of `medclip.training.losses`. See `medclip.objectives.levels`."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample, normalize

from medclip.errors import MedclipError, Reason
from medclip.models.towers.tokens import image_tokens
from medclip.objectives.levels import level_weights, levels_loss
from medclip.text.captions.record import MAX_REGIONS
from medclip.training.batches.loader import Batch
from medclip.training.recipe.text_losses import Levels
from medclip.training.steps.loss_terms import Start, Step, Terms
from medclip.training.steps.text_terms import of_single_images, pairs_of_texts
from medclip.training.steps.towers import Seen

_ROLES = {"S": "summary", "T": "long", "A": "attributes"}
_HEADS = 4
_STREAM = 7
"""Of the chance that local views come of."""
_ASPECT = 4 / 3
"""Longest side of a local view over its shortest, in shares of the image."""


class LevelViews(nn.Module):
    """A local view of each image, and what a small transformer makes of the regions of its map.

    Regions are the boxes that a sample's table names, or else the cells of a grid over the local view. Each is the mean
    of the tower's last feature map over it, weighed by what the cells of the map share with it, with its place in the
    whole image: they cost no further pass. The transformer is learned beside the towers and stays behind.

    Args:
        width: Channels of the map.
        dim: Length of features, D.
        settings: Section of the recipe.
        seed: Seed of the run.
    """

    def __init__(self, width: int, dim: int, settings: Levels, seed: int = 0) -> None:
        super().__init__()
        self.settings, self.seed = settings, seed
        if not settings.regions:
            return
        hidden = -(-dim // _HEADS) * _HEADS
        layer = nn.TransformerEncoderLayer(hidden, _HEADS, 4 * hidden, dropout=0.0, batch_first=True, norm_first=True)
        self.enter = nn.Linear(width + 4, hidden)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.leave = nn.Linear(hidden, dim)

    def place_local(self, drawn_B4: Tensor, regions_BK4: Tensor) -> Tensor:
        """Return where the local view of each image lies: x0, y0, x1, y1 as shares, float32 [B, 4].

        Args:
            drawn_B4: Chance from 0 to 1.
            regions_BK4: Regions that the view must contain, as shares of the image; NaN where there is none.
        """
        least, most = self.settings.local_crop
        area_B = least + (most - least) * drawn_B4[:, 0]
        stretch_B = _ASPECT ** (drawn_B4[:, 1] - 0.5)
        # The stretch never asks for more than the image has: a side of 1 leaves the area to the other.
        width_B = (area_B.sqrt() * stretch_B).clamp_max(1)
        height_B = (area_B / width_B).clamp_max(1)
        width_B = area_B / height_B
        low_B2 = regions_BK4[..., :2].nan_to_num(1.0).amin(1)
        high_B2 = regions_BK4[..., 2:].nan_to_num(0.0).amax(1)
        size_B2 = torch.maximum(torch.stack([width_B, height_B], 1), high_B2 - low_B2)
        first_B2 = (high_B2 - size_B2).clamp_min(0)
        last_B2 = torch.minimum(low_B2, 1 - size_B2)
        start_B2 = first_B2 + drawn_B4[:, 2:] * (last_B2 - first_B2).clamp_min(0)
        return torch.cat([start_B2, start_B2 + size_B2], 1)

    def forward(self, seen: Seen) -> Tensor:
        """Return the features of local view and regions of each image side by side, float32 [B, 2 * D] or [B, D]."""
        of = seen.prepared["levels"]
        box_B4, cut_BCHW = of["local_B4"], cut_out(seen.images, of["local_B4"])
        tokens = image_tokens(seen.model.visual, cut_BCHW)
        local_BD = normalize(tokens.pooled_BD.float(), dim=-1)
        if not self.settings.regions:
            return local_BD
        assert tokens.grid is not None  # begin_levels has looked
        map_BCHW = tokens.tokens_BLD.transpose(1, 2).unflatten(2, tokens.grid)
        with torch.autocast(map_BCHW.device.type, enabled=False):
            places_BK4 = self.places(box_B4, of["regions_BK4"])
            absent_BK = places_BK4[..., 0].isnan()
            places_BK4 = places_BK4.nan_to_num(0.0)
            region_BKC = pool_regions(map_BCHW.float(), places_BK4, box_B4)
            rows_BKW = self.enter(torch.cat([region_BKC, places_BK4], dim=2))
            read_BKW = self.blocks(rows_BKW, src_key_padding_mask=absent_BK)
            there_BK1 = (~absent_BK)[..., None].float()
            region_BD = normalize(self.leave((read_BKW * there_BK1).sum(1) / there_BK1.sum(1)), dim=-1)
        return torch.cat([local_BD, region_BD], dim=1)

    def places(self, box_B4: Tensor, regions_BK4: Tensor) -> Tensor:
        """Return x0, y0, x1, y1 of the regions of each image as shares of it: those that are named, or else a grid.

        Args:
            box_B4: Place of the local view.
            regions_BK4: Regions that are named, NaN where there is none.
        """
        side = self.settings.grid
        cell_K = torch.arange(side * side, device=box_B4.device)
        low_K2 = torch.stack([cell_K % side, cell_K // side], 1) / side
        cells_K22 = torch.stack([low_K2, low_K2 + 1 / side], 1)
        start_B2, size_B2 = box_B4[:, :2], box_B4[:, 2:] - box_B4[:, :2]
        grid_BK4 = torch.full_like(regions_BK4, torch.nan)
        grid_BK4[:, : side * side] = (start_B2[:, None, None] + cells_K22 * size_B2[:, None, None]).flatten(2)
        return torch.where(regions_BK4[:, :1, :1].isnan(), grid_BK4, regions_BK4)


def cut_out(images_BCHW: Tensor, box_B4: Tensor) -> Tensor:
    """Return a part of each image, x0, y0, x1, y1 as shares of it, as large as the image."""
    start_B2, size_B2 = box_B4[:, :2], box_B4[:, 2:] - box_B4[:, :2]
    theta_B23 = torch.cat([torch.diag_embed(size_B2), (2 * start_B2 + size_B2 - 1)[:, :, None]], dim=2)
    grid = affine_grid(theta_B23, list(images_BCHW.shape), align_corners=False)
    cut = grid_sample(images_BCHW.float(), grid, padding_mode="border", align_corners=False)
    return cut.to(images_BCHW.dtype)


def pool_regions(map_BCHW: Tensor, places_BK4: Tensor, box_B4: Tensor) -> Tensor:
    """Return the mean of a map over each region, its cells weighed by what they share with the region, [B, K, C].

    Args:
        map_BCHW: Map of the local view, float32.
        places_BK4: Regions as shares of the whole image.
        box_B4: Place of the local view.
    """
    start_B14, size_B12 = box_B4[:, None, [0, 1, 0, 1]], (box_B4[:, 2:] - box_B4[:, :2])[:, None]
    inside_BK4 = (places_BK4 - start_B14) / size_B12.repeat(1, 1, 2)
    weights = []
    for axis, length in ((1, map_BCHW.shape[2]), (0, map_BCHW.shape[3])):
        edge_N = torch.arange(length + 1, device=map_BCHW.device) / length
        low_BK1, high_BK1 = inside_BK4[..., axis, None], inside_BK4[..., axis + 2, None]
        share_BKN = (torch.minimum(high_BK1, edge_N[1:]) - torch.maximum(low_BK1, edge_N[:-1])).clamp_min(0)
        weights.append(share_BKN / share_BKN.sum(2, keepdim=True).clamp_min(1e-6))
    return torch.einsum("bkh,bkw,bchw->bkc", *weights, map_BCHW)


def begin_levels(start: Start, settings: Levels) -> LevelViews:
    """Make what cuts local views and reads regions.

    Raises:
        MedclipError: RECIPE_INVALID where samples are no single square images, the batch is too small for the share,
            or the tower's map has too few cells; NOT_SUPPORTED_YET for a tower without tokens.
    """
    of_single_images(start, settings)
    m, size = start.recipe.model, start.recipe.train.batch_size
    other = [name for name in ("volume", "signal", "lens", "native_aspect") if getattr(m, name)]
    if other:
        cause = f"local views are cut from square images, and the recipe has model.{other[0]}"
        raise _refused(cause, "Leave one of the two out.")
    if settings.share * size >= size - 1:
        cause = f"a share of {settings.share:g} leaves a pair of a batch of {size} no more than any other pair has"
        raise _refused(cause, f"Take a share below {(size - 1) / size:.3g}, or a larger train.batch_size.")
    if not settings.regions:
        return LevelViews(0, start.dim, settings, start.recipe.seed)
    visual: Any = start.model.visual
    side = getattr(visual, "image_size", m.size_px)
    height, width = (side, side) if isinstance(side, int) else side
    was_training, device = visual.training, next(visual.parameters()).device
    with torch.no_grad():
        tokens = image_tokens(visual.eval(), torch.zeros(1, 3, height, width, device=device), pool=False)
    visual.train(was_training)
    if tokens.grid is None or min(tokens.grid) < settings.grid:
        cells = "no grid" if tokens.grid is None else f"{tokens.grid[0]} x {tokens.grid[1]} cells"
        cause = f"a grid of {settings.grid} x {settings.grid} regions does not fit the tower's map, which has {cells}"
        raise _refused(cause, "Take a smaller grid, a larger model.size_px, or regions: 0.")
    return LevelViews(tokens.tokens_BLD.shape[2], start.dim, settings, start.recipe.seed)


def parts_of_batch(views: LevelViews, batch: Batch, step: int) -> Mapping[str, Tensor]:
    """Return place of the local view, and the regions that are named, of each sample.

    What is drawn depends on seed, step and the sample's key alone: it is the same on any number of ranks.
    """
    regions_BK4 = torch.full((len(batch.keys), MAX_REGIONS, 4), torch.nan)
    for row, regions in enumerate(batch.regions):
        if regions:
            regions_BK4[row, : len(regions)] = torch.tensor(regions)
    draws = [
        np.random.default_rng((views.seed, _STREAM, step, zlib.crc32(key.encode()))).random(4) for key in batch.keys
    ]
    local_B4 = views.place_local(torch.from_numpy(np.stack(draws)).float(), regions_BK4)
    return {"local_B4": local_B4, "regions_BK4": regions_BK4}


def local_and_regions(views: LevelViews, seen: Seen) -> Tensor:
    """Return the features of each image's local view and regions, side by side."""
    return views(seen)


def compared_by_level(step: Step, settings: Levels, _: object) -> Terms:
    """Compare each level of images with its levels of texts."""
    out = step.outputs
    images = dict(zip("GLR", (out.image_BD, *out.extra["levels"].split(out.image_BD.shape[1], dim=1)), strict=False))
    texts = {level: out.texts[role][:, 0] for level, role in _ROLES.items()}
    pairs = {level: pairs_of_texts(step, role) for level, role in _ROLES.items()}
    weights = level_weights(settings.regions, settings.attributes)
    value = levels_loss(images, texts, step.scale, settings.share, weights, pairs=pairs, group=step.world.group)
    yield settings.weight, value


def _refused(cause: str, hint: str) -> MedclipError:
    return MedclipError(Reason.RECIPE_INVALID, f"objective.losses.levels: {cause}.", hint=hint)
