"""A residual network over ECGs with attention pooling, as MERL has it (Liu et al., ICML 2024)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SHAPES = {
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
