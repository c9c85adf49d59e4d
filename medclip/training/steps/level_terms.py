"""The terms of the loss `levels`: a row of `medclip.training.losses`. See `medclip.objectives.levels`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, affine_grid, grid_sample, normalize

from medclip.errors import MedclipError, Reason
from medclip.models.towers.tokens import image_tokens
from medclip.objectives.levels import level_weights, levels_loss
from medclip.training.recipe.text_losses import Levels
from medclip.training.steps.loss_terms import Start, Step, Terms
from medclip.training.steps.text_terms import of_single_images, pairs_of_texts
from medclip.training.steps.towers import Seen

_ROLES = {"S": "summary", "T": "long", "A": "attributes"}
_HEADS = 4
_ASPECT = 4 / 3
"""Longest side of a local view over its shortest, in shares of the image."""


class LevelViews(nn.Module):
    """A local view of each image, and what a small transformer makes of the regions of its map.

    Regions are the cells of a grid over the tower's last feature map of the local view, each with its place in the
    whole image: they cost no further pass. The transformer is learned beside the towers and stays behind.

    Args:
        width: Channels of the map.
        dim: Length of features, D.
        settings: Section of the recipe.
    """

    def __init__(self, width: int, dim: int, settings: Levels) -> None:
        super().__init__()
        self.settings = settings
        if not settings.regions:
            return
        hidden = -(-dim // _HEADS) * _HEADS
        layer = nn.TransformerEncoderLayer(hidden, _HEADS, 4 * hidden, dropout=0.0, batch_first=True, norm_first=True)
        self.enter = nn.Linear(width + 4, hidden)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.leave = nn.Linear(hidden, dim)

    def crop(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Cut a part out of each image; return them, as large as the images, and x0, y0, x1, y1 as shares, [B, 4]."""
        least, most = self.settings.local_crop
        drawn_B4 = torch.rand(len(images_BCHW), 4, device=images_BCHW.device)
        area_B = least + (most - least) * drawn_B4[:, 0]
        stretch_B = _ASPECT ** (drawn_B4[:, 1] - 0.5)
        # The stretch never asks for more than the image has: a side of 1 leaves the area to the other.
        width_B = (area_B.sqrt() * stretch_B).clamp_max(1)
        height_B = (area_B / width_B).clamp_max(1)
        width_B = area_B / height_B
        size_B2 = torch.stack([width_B, height_B], 1)
        start_B2 = drawn_B4[:, 2:] * (1 - size_B2)
        theta_B23 = torch.diag_embed(size_B2)
        theta_B23 = torch.cat([theta_B23, (2 * start_B2 + size_B2 - 1)[:, :, None]], dim=2)
        grid = affine_grid(theta_B23, list(images_BCHW.shape), align_corners=False)
        cut = grid_sample(images_BCHW.float(), grid, padding_mode="border", align_corners=False)
        return cut.to(images_BCHW.dtype), torch.cat([start_B2, start_B2 + size_B2], 1)

    def forward(self, seen: Seen) -> Tensor:
        """Return the features of local view and regions of each image side by side, float32 [B, 2 * D] or [B, D]."""
        cut_BCHW, box_B4 = self.crop(seen.images)
        tokens = image_tokens(seen.model.visual, cut_BCHW)
        local_BD = normalize(tokens.pooled_BD.float(), dim=-1)
        if not self.settings.regions:
            return local_BD
        assert tokens.grid is not None  # begin_levels has looked
        map_BCHW = tokens.tokens_BLD.transpose(1, 2).unflatten(2, tokens.grid)
        with torch.autocast(map_BCHW.device.type, enabled=False):
            region_BKC = adaptive_avg_pool2d(map_BCHW.float(), self.settings.grid).flatten(2).transpose(1, 2)
            rows_BKW = self.enter(torch.cat([region_BKC, self._places(box_B4)], dim=2))
            region_BD = normalize(self.leave(self.blocks(rows_BKW).mean(1)), dim=-1)
        return torch.cat([local_BD, region_BD], dim=1)

    def _places(self, box_B4: Tensor) -> Tensor:
        """Return x0, y0, x1, y1 of each cell in shares of the whole image, [B, K, 4]."""
        side = self.settings.grid
        cell_K = torch.arange(side * side, device=box_B4.device)
        low_K2 = torch.stack([cell_K % side, cell_K // side], 1) / side
        cells_K22 = torch.stack([low_K2, low_K2 + 1 / side], 1)
        start_B2, size_B2 = box_B4[:, :2], box_B4[:, 2:] - box_B4[:, :2]
        return (start_B2[:, None, None] + cells_K22 * size_B2[:, None, None]).flatten(2)


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
        return LevelViews(0, start.dim, settings)
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
    return LevelViews(tokens.tokens_BLD.shape[2], start.dim, settings)


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
