"""Towers of ECGs by name and size, in the place of an image tower: `vision_cfg.signal` of a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from medclip.errors import MedclipError, Reason
from medclip.models.inputs.signal_input import KEY, SIZES, TOWER_KEYS, TOWERS
from medclip.models.towers.signals import signal_resnet, signal_vit
from medclip.models.towers.signals.signal_resnet import SignalResNet
from medclip.models.towers.signals.signal_vit import SignalViT
from medclip.models.towers.tokens import Tokens, refuse_projection


class SignalTower(nn.Module):
    """A tower of ECGs and what projects its features, as open_clip's wrapper of timm's towers has it.

    Args:
        trunk: The tower.
        dim: Numbers of a vector; None leaves features as they are.
    """

    def __init__(self, trunk: SignalViT | SignalResNet, dim: int | None) -> None:
        super().__init__()
        self.trunk: Any = trunk
        self.head: nn.Module = nn.Identity()
        if dim is not None:
            self.head = nn.Sequential()
            self.head.add_module("proj", nn.Linear(trunk.num_features, dim, bias=False))
        self.dim = dim or trunk.num_features

    def forward(self, records_B1LT: Tensor) -> Tensor:
        """Return the features of ECGs [B, 1, 12, T], [B, D]; they are not normalised."""
        return self.head(self.trunk(records_B1LT))

    def encode_tokens(self, batch: Tensor, *, project: bool = False, pool: bool = True) -> Tokens[Tensor]:
        """Return the tokens of ECGs: of a residual network the moments of its last feature map."""
        trunk = self.trunk
        if isinstance(trunk, SignalViT):
            tokens_BLD, present_BL, grid = (
                trunk.forward_features(batch),
                trunk.present(batch),
                trunk.patch_embed.grid_size,
            )
            pooled, why_not = lambda: trunk.pool_present(tokens_BLD, present_BL), ""
        else:
            map_BDT = trunk.feature_map(batch)
            tokens_BLD, present_BL, grid = map_BDT.transpose(1, 2), None, (1, map_BDT.shape[2])
            pooled, why_not = lambda: trunk.attn_pool(map_BDT), "it pools by attention"
        pooled_BD = self.head(pooled()) if pool else tokens_BLD.new_zeros(len(batch), 0)
        mask_BL = torch.ones_like(tokens_BLD[..., 0], dtype=torch.bool) if present_BL is None else present_BL
        if project:
            refuse_projection(why_not or ("it projects nothing" if isinstance(self.head, nn.Identity) else ""))
            tokens_BLD = self.head(trunk.fc_norm(tokens_BLD))
        return Tokens(tokens_BLD, mask_BL, tokens_BLD[:, :0], (tuple(grid),) * len(batch), pooled_BD)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep no activations inside blocks; a ResNet keeps them, for it has few."""
        if isinstance(self.trunk, SignalViT):
            self.trunk.set_grad_checkpointing(enable)


def build_section(section: Mapping[str, Any], dim: int | None) -> SignalTower:
    """Build the tower of ECGs that a `vision_cfg` names."""
    return build_signal_tower(section[KEY], dim)


def build_signal_tower(values: Mapping[str, Any], dim: int | None = None) -> SignalTower:
    """Build a tower of ECGs with random weights.

    Args:
        values: `vision_cfg.signal`: tower, size, patch (samples of a token) and samples (of a lead).
        dim: Numbers of a vector; None leaves features as they are.

    Raises:
        MedclipError: PACK_INVALID for a tower that is not known, or sizes that do not go together.
    """
    name, size, patch, samples = (values.get(key) for key in TOWER_KEYS)
    if name not in TOWERS or size not in SIZES or set(values) - set(TOWER_KEYS):
        raise _refused(
            f"it is {dict(values)}; it takes {', '.join(TOWER_KEYS)}, the tower one of {', '.join(TOWERS)} and the "
            f"size one of {', '.join(SIZES)}"
        )
    if type(samples) is not int or samples < 2:
        raise _refused(f"a lead has {samples!r} samples")
    if name == "resnet1d":
        width, blocks = signal_resnet.SHAPES[size]
        return SignalTower(SignalResNet(samples, width, blocks), dim)
    if type(patch) is not int or patch < 1 or samples % patch:
        raise _refused(f"its leads of {samples:,} samples cannot be cut into patches of {patch!r}")
    width, depth, heads = signal_vit.SHAPES[size]
    trunk = SignalViT(samples, patch, by_lead=name == "lead_patch", width=width, depth=depth, heads=heads)
    return SignalTower(trunk, dim)


def _refused(why: str) -> MedclipError:
    return MedclipError(
        Reason.PACK_INVALID,
        f"the config's vision_cfg.{KEY} cannot be built: {why}.",
        hint="Choose a patch that divides sampling_hz x seconds, and a tower and size that are known.",
    )
