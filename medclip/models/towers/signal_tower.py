"""Towers of ECGs by name and size, in the place of an image tower: `vision_cfg.signal` of a config.

`joint_patch` and `lead_patch` are vision transformers of timm over an "image" of one channel, 12 rows and T columns, so
that masked autoencoders, layer-wise rates and freezing work as with images. `joint_patch` is that of MERL (Liu et al.,
ICML 2024): one token for each stretch of time, over all leads. `lead_patch` has one for each lead and stretch of time;
those of missing leads take no part. `resnet1d` is MERL's residual network with attention pooling.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medclip.errors import MedclipError, Reason
from medclip.models.inputs.signal_input import KEY, SIZES, TOWER_KEYS, TOWERS
from medclip.models.towers.tokens import Tokens, refuse_projection

NUM_LEADS = 12
VIT_SHAPES = {"test": (24, 2, 2), "tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}
"""Width, blocks and heads of the sizes; `test` is for tests."""


class SignalViT(VisionTransformer):
    """A transformer over ECGs [B, 1, 12, T]; a lead of zeros alone is one that is missing.

    Args:
        num_samples: Samples of a lead, T.
        patch: Samples of a token.
        by_lead: Whether each lead has tokens of its own.
        width: Width of a token, D.
        depth: Blocks.
        heads: Attention heads.
        mlp_ratio: Width of the hidden layer, relative to D.
    """

    def __init__(
        self, num_samples: int, patch: int, *, by_lead: bool, width: int, depth: int, heads: int, mlp_ratio: float = 4.0
    ) -> None:
        rows = 1 if by_lead else NUM_LEADS
        size: Any = (NUM_LEADS, num_samples)
        super().__init__(
            img_size=size,
            patch_size=(rows, patch),
            in_chans=1,
            num_classes=0,
            global_pool="avg",  # type: ignore
            class_token=False,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            mlp_ratio=mlp_ratio,
            norm_layer=nn.LayerNorm,  # with torch's epsilon, as MERL's
        )
        self.by_lead = by_lead
        self.patch_embed.proj = nn.Conv2d(1, width, (rows, patch), stride=(rows, patch), bias=False)
        leads, times = self.patch_embed.grid_size
        with torch.no_grad():  # of lead and time, together N(0, 1)
            positions_LTD = torch.randn(leads, 1, width) + torch.randn(1, times, width) if by_lead else None
            table_LTD = torch.randn(leads, times, width) if positions_LTD is None else positions_LTD / 2**0.5
            self.pos_embed = nn.Parameter(table_LTD.flatten(0, 1)[None].clone())

    def present(self, records_B1LT: Tensor) -> Tensor | None:
        """Return which tokens are of leads that are there.

        Returns:
            bool [B, L]; None where every token is of all leads. A record without any lead counts as complete, so that
            an empty row of a batch gives numbers.
        """
        if not self.by_lead:
            return None
        there_BL = (records_B1LT[:, 0] != 0).any(-1)
        there_BL = there_BL | ~there_BL.any(1, keepdim=True)
        return there_BL.repeat_interleave(self.patch_embed.grid_size[1], dim=1)

    def run_blocks(self, tokens_BND: Tensor, present_BN: Tensor | None) -> Tensor:
        """Run the blocks; tokens that are not present are looked at by none."""
        mask = None
        if present_BN is not None:  # a masked record may show missing leads alone: then they are looked at
            mask = (present_BN | ~present_BN.any(1, keepdim=True))[:, None, None, :]
        recompute = self.grad_checkpointing and torch.is_grad_enabled()
        for block in self.blocks.children():
            if recompute:
                tokens_BND = checkpoint(block, tokens_BND, mask, use_reentrant=False)  # type: ignore[assignment]
            else:
                tokens_BND = block(tokens_BND, attn_mask=mask)
        return tokens_BND

    def forward_features(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Return the tokens [B, L, D] before pooling and norm."""
        assert attn_mask is None
        assert not is_causal
        return self.norm(self.run_blocks(self._pos_embed(self.patch_embed(x)), self.present(x)))

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Return features [B, D]: the norm of the mean of the tokens that are present."""
        return self.pool_present(self.forward_features(x, attn_mask, is_causal), self.present(x))

    def pool_present(self, tokens_BLD: Tensor, present_BL: Tensor | None) -> Tensor:
        """Return the norm of the mean of the tokens that are present, [B, D]."""
        if present_BL is None:
            return self.fc_norm(tokens_BLD.mean(1))
        sum_BD = tokens_BLD.masked_fill(~present_BL[:, :, None], 0).sum(1)
        return self.fc_norm(sum_BD / present_BL.sum(1, keepdim=True).to(sum_BD.dtype))


RESNET_SHAPES = {
    "test": (8, (1, 1, 1, 1)),
    "tiny": (32, (2, 2, 2, 2)),
    "small": (64, (2, 2, 2, 2)),
    "base": (64, (3, 4, 6, 3)),
}
"""Channels of the first stage and blocks of the four stages; `small` is MERL's ResNet-18, `test` is for tests."""
_HEADS = 4


class SignalResNet(nn.Module):
    """A ResNet of one dimension: stem of 7 samples and stride 2, no pooling before the last, 4 stages.

    Args:
        num_samples: Samples of a lead, T.
        width: Channels of the first stage; each further one has twice as many.
        blocks: Blocks of each stage.
    """

    def __init__(self, num_samples: int, width: int, blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(12, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm1d(width)
        stages, channels, self.num_features = [], width, width * 2 ** (len(blocks) - 1)
        for n, depth in enumerate(blocks):
            out = width * 2**n
            stages.append(
                nn.Sequential(
                    *(_Block(channels if i == 0 else out, out, 2 if i == 0 and n else 1) for i in range(depth))
                )
            )
            channels = out
        self.layers = nn.ModuleList(stages)
        self.attn_pool = AttentionPool(-(-num_samples // 2 ** len(blocks)), channels, _HEADS)

    def feature_map(self, records_B1LT: Tensor) -> Tensor:
        """Return the last feature map [B, C, T / 16], rounded up."""
        map_BCT = self.bn1(self.conv1(records_B1LT.squeeze(1))).relu()
        for stage in self.layers:
            map_BCT = stage(map_BCT)
        return map_BCT

    def forward(self, records_B1LT: Tensor) -> Tensor:
        """Return the features of ECGs [B, 1, 12, T], [B, D]."""
        return self.attn_pool(self.feature_map(records_B1LT))


class _Block(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(channels, out, 3, stride=stride, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm1d(out), nn.BatchNorm1d(out)
        self.conv2 = nn.Conv1d(out, out, 3, padding=1, bias=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv1d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm1d(out))

    def forward(self, map_BCT: Tensor) -> Tensor:
        inner_BCT = self.bn2(self.conv2(self.bn1(self.conv1(map_BCT)).relu()))
        return (inner_BCT + self.shortcut(map_BCT)).relu()


class AttentionPool(nn.Module):
    """A learned query looks at all moments.

    Args:
        length: Moments of a feature map.
        width: Channels of the feature map, D.
        heads: Attention heads.
    """

    def __init__(self, length: int, width: int, heads: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) / width**0.5)
        self.positional_embedding = nn.Parameter(torch.randn(1, length + 1, width) / width**0.5)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, map_BDT: Tensor) -> Tensor:
        """Return one vector for each map [B, D, T], [B, D]."""
        query_B1D = self.cls_token.expand(len(map_BDT), -1, -1)
        tokens_BND = torch.cat([query_B1D, map_BDT.transpose(1, 2)], dim=1) + self.positional_embedding
        return self.attention(tokens_BND[:, :1], tokens_BND, tokens_BND, need_weights=False)[0][:, 0]


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
        width, blocks = RESNET_SHAPES[size]
        return SignalTower(SignalResNet(samples, width, blocks), dim)
    if type(patch) is not int or patch < 1 or samples % patch:
        raise _refused(f"its leads of {samples:,} samples cannot be cut into patches of {patch!r}")
    width, depth, heads = VIT_SHAPES[size]
    trunk = SignalViT(samples, patch, by_lead=name == "lead_patch", width=width, depth=depth, heads=heads)
    return SignalTower(trunk, dim)


def _refused(why: str) -> MedclipError:
    return MedclipError(
        Reason.PACK_INVALID,
        f"the config's vision_cfg.{KEY} cannot be built: {why}.",
        hint="Choose a patch that divides sampling_hz x seconds, and a tower and size that are known.",
    )
