"""A frozen Hugging Face sentence encoder from a folder: mean pooling over tokens, unit norm."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medclip.errors import MedclipError, Reason


class SentenceTeacher:
    """Turns sentences into unit vectors; never trained and never shipped.

    Args:
        folder: config.json, model.safetensors and tokenizer files.
        device: Torch device.
        max_tokens: Number of tokens that longer sentences are cut to.

    Raises:
        MedclipError: READ_ERROR when the folder does not hold such a model; UNSAFE_WEIGHTS when it has only pickled
            weights.
    """

    def __init__(self, folder: Path, device: str = "cpu", max_tokens: int = 64) -> None:
        if not (folder / "model.safetensors").is_file():
            raise MedclipError(
                Reason.UNSAFE_WEIGHTS,
                "there is no model.safetensors here; pickled weights are not loaded.",
                where=folder,
            )
        with _offline():
            transformers: Any = import_module("transformers")  # its types take a type checker a minute
            import_module("transformers.utils.logging").disable_progress_bar()  # 0.1 s of loading needs none

            try:
                self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
                self._model = transformers.AutoModel.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True
                )
            except (OSError, ValueError) as e:
                raise MedclipError(Reason.READ_ERROR, "this is not a sentence encoder.", where=folder) from e
        self._model.eval().requires_grad_(False).to(device)
        self._device = device
        self._max_tokens = max_tokens
        # A frozen teacher loses nothing that matters in bf16, and is five times faster where the CPU multiplies it.
        self._bf16 = device == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())

    def tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return what the encoder reads of B sentences, on the CPU."""
        return dict(
            self._tokenizer(
                list(texts), padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
            )
        )

    @torch.no_grad()
    def __call__(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Encode tokens of B sentences, on the encoder's device, into float32 [B, E] of unit norm.

        Nothing is remembered between calls: the same batch gives the same bits before and after a resume.
        """
        with torch.autocast(self._device.split(":")[0], torch.bfloat16, enabled=self._bf16):
            hidden_BLD = self._model(**tokens).last_hidden_state.float()
        mask_BL1 = tokens["attention_mask"].unsqueeze(-1).to(hidden_BLD.dtype)
        mean_BD = (hidden_BLD * mask_BL1).sum(1) / mask_BL1.sum(1).clamp_min(1e-9)
        return torch.nn.functional.normalize(mean_BD.float(), dim=-1)


@contextmanager
def _offline() -> Iterator[None]:
    before = {k: os.environ.get(k) for k in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    os.environ.update(dict.fromkeys(before, "1"))
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
