"""A loaded model: pixels and sentences in, unit vectors out. Knows nothing of files, tasks or training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medclip.errors import MedclipError, Reason
from medclip.models.card import Card
from medclip.models.preprocess import Preprocess
from medclip.models.towers.fold_batch_norm import fold_batch_norm

if TYPE_CHECKING:
    from medclip.text.tokenizers.tokenizer import Tokenizer

BATCH = 4
"""Images in one forward pass. Small batches stay in the cache: EfficientNet-Lite0 at 224 px on Zen 4 encodes, with
1 and 2 threads, 79 and 113 images/s one by one, 83 and 152 in fours, 71 and 121 in sixteens, 58 and 104 in 32s."""
TEXT_BATCH = 64


class Model:
    """A dual encoder ready to score with.

    Args:
        clip: open_clip model with its weights, float32. Put into eval mode.
        tokenizer: The pack's tokenizer.
        preprocess: Input size and normalisation.
        card: The pack's card.
        name: Name of the pack.
        path: Folder of the pack.
        device: Torch device.
        batch_size: Images in one forward pass. Shorter batches are filled up with black, so that a result never
            depends on how many images came along.
    """

    def __init__(
        self,
        clip: nn.Module,
        tokenizer: Tokenizer,
        preprocess: Preprocess,
        card: Card,
        *,
        name: str,
        path: Path,
        device: str = "cpu",
        batch_size: int = BATCH,
    ) -> None:
        self.clip = clip.eval().requires_grad_(False).to(device)
        self.tokenizer = tokenizer
        self.preprocess = preprocess
        self.card = card
        self.name = name
        self.path = path
        self.device = torch.device(device)
        self.batch_size = batch_size
        self.logit_scale = math.exp(float(clip.logit_scale))  # type: ignore[arg-type]
        self._mean = torch.tensor(preprocess.mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocess.std, device=self.device).view(1, 3, 1, 1)
        self._texts: dict[str, NDArray[np.float32]] = {}
        self._visual = self._fast_visual()
        self.dim = int(self.encode_text([""]).shape[1])

    def __repr__(self) -> str:
        """Return name, sizes and device in one line."""
        sizes = f"{self.preprocess.size_px} px, vectors of {self.dim}"
        return f"Model({self.name} {self.card.version}, {sizes}, {self.device})"

    def with_towers(self, clip: nn.Module) -> Model:
        """Return a model with other towers and all else of this one."""
        return Model(
            clip, self.tokenizer, self.preprocess, self.card, name=self.name, path=self.path, device=str(self.device),
            batch_size=self.batch_size,
        )  # fmt: skip

    def encode_image(self, images: NDArray[np.uint8], *, batch_size: int | None = None) -> NDArray[np.float32]:
        """Encode images.

        Every forward pass has the same shape [batch_size, 3, S, S]: the last one is filled up with black images whose
        results are dropped. The vector of an image therefore depends neither on its neighbours nor on their number (in
        towers with squeeze-excitation its place in a batch may show in the last bit; EfficientNet-Lite0 has none).

        Args:
            images: uint8 [N, S, S, 3] from `preprocess.to_array`.
            batch_size: Overrides the model's; another size may change the last bits.

        Returns:
            float32 [N, D] of unit norm.

        Raises:
            MedclipError: WRONG_USE for another shape or dtype.
        """
        size = self.preprocess.size_px
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
            raise MedclipError(
                Reason.WRONG_USE,
                f"encode_image was given {images.dtype} {list(images.shape)}; it takes uint8 [N, {size}, {size}, 3].",
                hint="Make it with model.preprocess.to_array(view).",
            )
        step = batch_size or self.batch_size
        parts = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(images), step):
            chunk = images[start : start + step]
            filled = np.zeros((step, size, size, 3), np.uint8)
            filled[: len(chunk)] = chunk
            parts.append(self.encode_tensor(self.normalise(filled))[: len(chunk)])
        return np.concatenate(parts)

    def normalise(self, images: NDArray[np.uint8]) -> torch.Tensor:
        """Return the float32 [N, 3, S, S] tensor (channels last in memory) that the image tower takes."""
        own = np.require(images, requirements=["C", "W"])  # torch wants memory it may write to
        x = torch.from_numpy(own).to(self.device).permute(0, 3, 1, 2)
        return (x.to(torch.float32).div_(255).sub_(self._mean)).div_(self._std)

    def encode_tensor(self, images_BCHW: torch.Tensor) -> NDArray[np.float32]:
        """Encode one normalised batch as it is; float32 [B, D] of unit norm."""
        with torch.inference_mode():
            features = self._visual(images_BCHW)
            return nn.functional.normalize(features.float(), dim=-1).cpu().numpy()

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode sentences; each one is computed once and remembered.

        Args:
            texts: N sentences. Longer ones than the context are cut.

        Returns:
            float32 [N, D] of unit norm.
        """
        missing = [t for t in dict.fromkeys(texts) if t not in self._texts]
        for start in range(0, len(missing), TEXT_BATCH):
            chunk = missing[start : start + TEXT_BATCH]
            padded = chunk + [""] * (TEXT_BATCH - len(chunk)) if len(missing) > TEXT_BATCH else chunk
            tokens = torch.from_numpy(self.tokenizer.encode(padded)).to(self.device)
            with torch.inference_mode():
                vectors = self.clip.encode_text(tokens, normalize=True)  # type: ignore[operator]
            self._texts.update(zip(chunk, vectors.float().cpu().numpy(), strict=False))
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        return np.stack([self._texts[t] for t in texts])

    def _fast_visual(self) -> nn.Module:
        size = self.preprocess.size_px
        generator = torch.Generator().manual_seed(0)
        example = torch.randn(1, 3, size, size, generator=generator).to(self.device)
        visual: nn.Module = self.clip.visual  # type: ignore[assignment]
        return fold_batch_norm(visual, example).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
