"""A loaded model: pixels and sentences in, unit vectors out. Knows nothing of tasks or training."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medclip.errors import MedclipError, Reason
from medclip.models.devices import default_batch
from medclip.models.inputs.normalise import normalise_with
from medclip.models.inputs.preprocess import Preprocess
from medclip.models.packs.card import Card
from medclip.models.packs.words import no_words
from medclip.models.towers.depths import level_tokens, stage_maps
from medclip.models.towers.layers import fold_batch_norm
from medclip.models.towers.tokens import Patches, Tokens, image_tokens, joined, text_tokens, unpack_batch
from medclip.progress import Progress, Silent

if TYPE_CHECKING:
    from medclip.models.encoding.embed_images import OnError
    from medclip.models.inputs.preprocess import Images
    from medclip.models.towers.view_fusion import ViewFusion
    from medclip.sample import Modality, ViewType
    from medclip.settings import Settings
    from medclip.text.tokenizers.tokenizer import Tokenizer

TEXT_BATCH = 64
NO_SCALE = 1.0
"""`logit_scale` of an image tower alone: nothing is compared with words."""
TEXTS_AT_ONCE = 16 * TEXT_BATCH
"""Texts between two steps of progress."""


def _moved(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return images on a device; to a card they go through pinned memory, while it still computes the batch before."""
    if device.type != "cuda":
        return images.to(device)
    return images.pin_memory().to(device, non_blocking=True)


def _tower(clip: nn.Module) -> str:
    """Name an image tower: timm's architecture, else the class that it is built of."""
    visual: Any = clip.visual
    trunk = getattr(visual, "trunk", visual)
    pretrained_cfg = getattr(trunk, "pretrained_cfg", None) or {}
    return pretrained_cfg.get("architecture") or type(trunk).__name__


class Model:
    """A dual encoder, or an image tower alone, ready to embed and to score with.

    Args:
        clip: open_clip model with its weights, or `medclip.models.towers.timm_tower.ImageOnly`; float32. Put into eval
            mode.
        tokenizer: The pack's tokenizer; None for an image tower alone.
        preprocess: Input size and normalisation.
        card: The pack's card.
        name: Name of the pack.
        path: Folder of the pack.
        device: Torch device.
        batch_size: Images in one forward pass; see `default_batch` where None. Shorter ones are filled up with black,
            so that a result never depends on how many images came along.
        sentences: Vectors of sentences that are not encoded, float32 [D] of unit norm: those of the pack.
    """

    def __init__(
        self,
        clip: nn.Module,
        tokenizer: Tokenizer | None,
        preprocess: Preprocess,
        card: Card,
        *,
        name: str,
        path: Path,
        device: str = "cpu",
        batch_size: int | None = None,
        sentences: Mapping[str, NDArray[np.float32]] = MappingProxyType({}),
    ) -> None:
        self.clip = clip.eval().requires_grad_(False).to(device)
        self._tokenizer = tokenizer
        self.preprocess = preprocess
        self.card = card
        self.name = name
        self.path = path
        self.device = torch.device(device)
        self.batch_size = batch_size or default_batch(device)
        self.logit_scale = math.exp(float(clip.logit_scale)) if self.has_text else NO_SCALE  # type: ignore[arg-type]
        self._mean = torch.tensor(preprocess.mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocess.std, device=self.device).view(1, 3, 1, 1)
        self._texts: dict[str, NDArray[np.float32]] = dict(sentences)
        self._tower = self._fast_visual()
        self._visual: Callable[[Any], torch.Tensor] = self._tower
        self.dim = int(self.encode_text([""]).shape[1]) if self.has_text else int(clip.visual.dim)  # type: ignore

    @property
    def has_text(self) -> bool:
        """Whether it understands words; False for an image tower alone."""
        return self._tokenizer is not None

    @property
    def tokenizer(self) -> Tokenizer:
        """The pack's tokenizer.

        Raises:
            MedclipError: WRONG_USE for an image tower alone.
        """
        if self._tokenizer is None:
            raise no_words(self.name)
        return self._tokenizer

    @property
    def fusion(self) -> ViewFusion | None:
        """What makes one vector of the views of an examination; None for a model that knows single images only."""
        return getattr(self.clip, "fusion", None)

    def __repr__(self) -> str:
        """Return name, tower, sizes, whether it knows words, and device in one line."""
        pixels = self.preprocess
        clip = "" if pixels.volume is None else f"{pixels.volume.num_frames} x "
        size = f"{pixels.budget or f'{clip}{pixels.size_px} px'}"
        if pixels.signal is not None:
            size = f"12 leads x {pixels.signal.num_samples:,} samples"
        sizes = f"{size}, vectors of {self.dim}"
        words = f"{pixels.takes} and words" if self.has_text else f"{pixels.takes} alone"
        return f"Model({self.name} {self.card.version}, {_tower(self.clip)}, {sizes}, {words}, {self.device})"

    def without_sentences(self) -> Model:
        """Return this model with no text encoded yet, nor any vector of its pack."""
        model = copy.copy(self)
        model._texts = {}
        return model

    def with_towers(self, clip: nn.Module) -> Model:
        """Return a model with other towers and all else of this one."""
        return Model(
            clip,
            self._tokenizer,
            self.preprocess,
            self.card,
            name=self.name,
            path=self.path,
            device=str(self.device),
            batch_size=self.batch_size,
        )

    @property
    def image_tower(self) -> nn.Module:
        """What computes images in float32: the pack's tower, or a copy with its batch normalisation folded."""
        return self._tower

    def with_image_tower(self, encode: Callable[[Any], torch.Tensor]) -> Model:
        """Return this model with its image tower computed by something else: see `medclip.models.backends`.

        Args:
            encode: Function from what `normalise` returned to features, float32 [B, D], of any norm; called from
                several threads at once.
        """
        model = copy.copy(self)
        model._visual = encode
        return model

    def encode_image(self, images: Images, *, batch_size: int | None = None) -> NDArray[np.float32]:
        """Encode images.

        Every forward pass has the same shape, [batch_size, 3, S, S] or so many patches: the last one is filled up with
        black images whose results are dropped. The vector of an image therefore depends neither on its neighbours nor
        on their number (in towers with squeeze-excitation its place in a batch may show in the last bit;
        EfficientNet-Lite0 has none).

        Args:
            images: Images from `preprocess.to_array`: uint8 [N, S, S, 3]; N images [H, W, 3] for a model that takes
                native aspect ratios; N clips [N, T, S, S, C] for one that takes volumes; int16 [N, 12, T] for ECGs.
            batch_size: Images in one forward pass, in place of the model's own; another size may change the last bits.

        Returns:
            float32 [N, D] of unit norm.

        Raises:
            MedclipError: WRONG_USE for another shape or dtype.
        """
        parts = [np.zeros((0, self.dim), np.float32)]
        parts += [self.encode_tensor(batch)[:num] for batch, num in self._batches(images, batch_size, "encode_image")]
        return np.concatenate(parts)

    def encode_tokens(
        self,
        inputs: Images | str | Sequence[str],
        *,
        project: bool = False,
        batch_size: int | None = None,
        levels: bool = False,
    ) -> Tokens[NDArray[Any]]:
        """Encode images into the tokens of their patches, or sentences into those of their words.

        They are what the pooling of the tower reads, behind its last norm (where a tower has it before the pooling), in
        its own space; see `medclip.models.towers.tokens.Tokens`. Of 1,000 images a ViT-B/16 at 224 px has 600 MB of
        them: ask for a part at a time.

        Args:
            inputs: Images as `encode_image` takes them; or sentences, one string or several.
            project: Whether each token is projected into the shared space, as if it had been pooled alone, so that it
                can be compared with words. Class and register tokens are, too.
            batch_size: Images in one forward pass, in place of the model's own; another size may change the last bits.
            levels: Whether tokens of images are what the tower sees of each place at several depths
                (`medclip.models.towers.depths.level_tokens`), in the place of the last.

        Returns:
            Tokens of N inputs, float32, with their mask and grids, and the vectors of unit norm that `encode_image`
            gives, to the bit, or `encode_text` of the same sentences.

        Raises:
            MedclipError: WRONG_USE for what `encode_image` and `encode_text` refuse, for a projection where the tower
                has no linear one or pools by attention, and for a back-end that gives vectors alone; NOT_SUPPORTED_YET
                for a tower without tokens.

        Example:
            >>> import medclip, numpy
            >>> model = medclip.models.load("medclip-mini")
            >>> seen = model.encode_tokens(numpy.zeros((2, 192, 192, 3), numpy.uint8))
            >>> seen.grid, seen.tokens_BLD.shape
            ((6, 6), (2, 36, 1280))
        """
        items: Any = [inputs] if isinstance(inputs, str) else inputs
        if isinstance(items, list | tuple) and any(isinstance(item, str) for item in items):
            return self._word_tokens(items, project)
        visual = self._tower_of_tokens()
        parts = []
        for batch, num in self._batches(items, batch_size, "encode_tokens"):
            with torch.inference_mode():
                seen = level_tokens(visual, batch) if levels else image_tokens(visual, batch, project=project)
            parts.append(self._arrays(seen, num))
        if not parts:
            raise MedclipError(Reason.WRONG_USE, "encode_tokens was given no image and no text.")
        return joined(parts, np.concatenate)

    def encode_maps(
        self, images: Images, *, strides: Sequence[int] | None = None, batch_size: int | None = None
    ) -> dict[int, NDArray[np.float32]]:
        """Encode images into the feature maps of the tower's stages, fine ones of early layers and the coarse last.

        Args:
            images: Images as `encode_image` takes them.
            strides: Pixels of the image along a side of a cell, of the maps that are wanted; all where None.
            batch_size: Images in one forward pass, in place of the model's own.

        Returns:
            Maps by stride, float32 [N, C, rows, columns], the finest first: 2, 4, 8 and 16 of ViTamin.

        Raises:
            MedclipError: WRONG_USE for what `encode_image` refuses, no image, a stride that the tower does not have,
                and a back-end that gives vectors alone; NOT_SUPPORTED_YET for a tower without stages.

        Example:
            >>> import medclip, numpy
            >>> model = medclip.models.load("medclip-mini")
            >>> maps = model.encode_maps(numpy.zeros((1, 192, 192, 3), numpy.uint8), strides=[8, 16])
            >>> {stride: each.shape for stride, each in maps.items()}
            {8: (1, 40, 24, 24), 16: (1, 112, 12, 12)}
        """
        visual = self._tower_of_tokens()
        parts: list[dict[int, NDArray[np.float32]]] = []
        for batch, num in self._batches(images, batch_size, "encode_maps"):
            with torch.inference_mode():
                maps = stage_maps(visual, batch, strides)
            parts.append({stride: each.float()[:num].cpu().numpy() for stride, each in maps.items()})
        if not parts:
            raise MedclipError(Reason.WRONG_USE, "encode_maps was given no image.")
        return {stride: np.concatenate([part[stride] for part in parts]) for stride in parts[0]}

    def _tower_of_tokens(self) -> nn.Module:
        visual: Any = self._visual
        if not isinstance(visual, nn.Module):
            raise MedclipError(
                Reason.WRONG_USE,
                f"the model {self.name} is computed by a back-end that gives vectors alone, and no tokens.",
                hint="Load it without a back-end.",
            )
        return visual

    def _word_tokens(self, texts: Sequence[str], project: bool) -> Tokens[NDArray[Any]]:
        parts = []
        for start in range(0, len(texts), TEXT_BATCH):
            chunk = self._texts_alone(texts[start : start + TEXT_BATCH])
            ids = torch.from_numpy(self.tokenizer.encode(chunk)).to(self.device)
            with torch.inference_mode():
                seen = text_tokens(self.clip, ids, self.tokenizer.pad_id, project=project)
            parts.append(self._arrays(seen, len(chunk)))
        return joined(parts, np.concatenate)

    @staticmethod
    def _arrays(seen: Tokens[torch.Tensor], num: int) -> Tokens[NDArray[Any]]:
        """Return the first so many of a batch as arrays, their vectors of unit norm."""
        with torch.inference_mode():
            unit = replace(seen, pooled_BD=nn.functional.normalize(seen.pooled_BD.float(), dim=-1))
        grids = None if seen.grids is None else seen.grids[:num]
        return replace(unit, grids=grids).map_arrays(
            lambda x: (x if x.dtype == torch.bool else x.float())[:num].cpu().numpy()
        )

    def _batches(self, images: Images, batch_size: int | None, verb: str) -> Iterator[tuple[Any, int]]:
        """Yield what the tower takes, filled up with black images, and how many of it are images.

        Raises:
            MedclipError: WRONG_USE for another shape or dtype.
        """
        budget, shape, dtype = self.preprocess.budget, self.preprocess.image_shape, self.preprocess.image_dtype
        for image in images:
            if image.dtype != dtype or not self._takes(image.shape):
                square = f"{dtype} [N, {', '.join(map(str, shape))}]"
                kind = square if budget is None else f"uint8 images [H, W, 3] within {budget}"
                given = images if isinstance(images, np.ndarray) else image
                stated = f"{given.dtype} {list(given.shape)}{' for an image' if given is image else ''}"
                raise MedclipError(
                    Reason.WRONG_USE,
                    f"{verb} was given {stated}; it takes {kind}.",
                    hint="This is one image: say image[None]."
                    if given.dtype == dtype and self._takes(given.shape)
                    else "Make it with medclip.models.inputs.read_pixels.pixels_of(sample, model.preprocess)."
                    if self.preprocess.volume or self.preprocess.signal
                    else "Make it with model.preprocess.to_array(view).",
                )
        step = batch_size or self.batch_size
        black = np.zeros(shape if budget is None else (budget.patch_px, budget.patch_px, 3), dtype)
        for start in range(0, len(images), step):
            chunk = list(images[start : start + step])
            yield self.normalise([*chunk, *[black] * (step - len(chunk))]), len(chunk)

    def _takes(self, shape: tuple[int, ...]) -> bool:
        budget = self.preprocess.budget
        if budget is None:
            return shape == self.preprocess.image_shape
        return len(shape) == 3 and shape[2] == 3 and budget.holds(*shape[:2])

    def normalise(self, images: Images) -> Any:
        """Return what the image tower takes.

        Args:
            images: Images as `encode_image` takes them.

        Returns:
            float32 [N, 3, S, S] (channels last in memory); for a model that takes native aspect ratios patches with
            their places, see `medclip.models.towers.native_aspect`; for one that takes volumes [N, C, T, S, S]; for
            one of ECGs [N, 1, 12, T].
        """
        budget = self.preprocess.budget
        if budget is not None:
            packed_BMP = _moved(torch.from_numpy(np.stack([budget.pack(image) for image in images])), self.device)
            return unpack_batch(packed_BMP, self._mean, self._std)
        stacked = np.require(images, requirements=["C", "W"])  # torch wants memory it may write to
        return normalise_with(self.preprocess, _moved(torch.from_numpy(stacked), self.device), self._mean, self._std)

    def encode_tensor(self, batch: torch.Tensor | Patches) -> NDArray[np.float32]:
        """Encode what `normalise` returned, as it is; float32 [B, D] of unit norm."""
        with torch.inference_mode():
            features = self._visual(batch)
            return nn.functional.normalize(features.float(), dim=-1).cpu().numpy()

    def encode_text(self, texts: str | Sequence[str]) -> NDArray[np.float32]:
        """Encode sentences; each one is computed once and remembered.

        Args:
            texts: N sentences; one string is one sentence. Longer ones than the context are cut.

        Returns:
            float32 [N, D] of unit norm.

        Raises:
            MedclipError: WRONG_USE for an image tower alone, and for anything but strings.
        """
        tokenizer = self.tokenizer
        texts = self._texts_alone([texts] if isinstance(texts, str) else list(texts))
        missing = [t for t in dict.fromkeys(texts) if t not in self._texts]
        for start in range(0, len(missing), TEXT_BATCH):
            chunk = missing[start : start + TEXT_BATCH]
            padded = chunk + [""] * (TEXT_BATCH - len(chunk)) if len(missing) > TEXT_BATCH else chunk
            tokens = torch.from_numpy(tokenizer.encode(padded)).to(self.device)
            with torch.inference_mode():
                vectors = self.clip.encode_text(tokens, normalize=True)  # type: ignore[operator]
            self._texts.update(zip(chunk, vectors.float().cpu().numpy(), strict=False))
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        return np.stack([self._texts[t] for t in texts])

    @staticmethod
    def _texts_alone(texts: Sequence[Any]) -> list[str]:
        """Return texts as they are, and refuse what is none."""
        for text in texts:
            if not isinstance(text, str):
                raise MedclipError(Reason.WRONG_USE, f"a text is a string; this is of the type {type(text).__name__}.")
        return list(texts)

    def fuse(
        self, features_VD: NDArray[np.float32], types: Sequence[ViewType]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Make one vector of the views of an examination, or of a breast.

        The order of the views does not matter, to the last bit.

        Args:
            features_VD: float32, unit vectors from `encode_image` or from a store of them; one view or more.
            types: View types, what each of the views shows.

        Returns:
            float32 [D] of unit norm; float32 [V], each view's share in it (they add up to 1).

        Raises:
            MedclipError: WRONG_USE for a model without `fusion`, no view, or another number of types than of views.

        Example:
            >>> import medclip
            >>> model = medclip.models.load("medclip-mini")
            >>> model.fusion is None
            True
        """
        if self.fusion is None:
            raise MedclipError(
                Reason.WRONG_USE,
                f"the model {self.name} knows single images only; it has nothing that fuses the views of an exam.",
                hint="Train one with objective.views in a recipe, or take the mean of the vectors.",
            )
        if features_VD.ndim != 2 or not len(features_VD) or len(features_VD) != len(types):
            raise MedclipError(
                Reason.WRONG_USE, f"{list(features_VD.shape)} vectors and {len(types)} types; expected [V, D] and V."
            )
        order = sorted(range(len(types)), key=lambda v: (types[v].hanging, features_VD[v].tobytes()))
        vectors_VD = torch.from_numpy(np.ascontiguousarray(features_VD[order], np.float32)).to(self.device)
        there_1V = torch.ones(1, len(order), dtype=torch.bool, device=self.device)
        with torch.inference_mode():
            type_1V3 = self.fusion.types([types[v] for v in order])[None].to(self.device)
            fused_1D, share_1V = self.fusion(vectors_VD[None], type_1V3, there_1V)
        share_V = np.empty(len(order), np.float32)
        share_V[order] = share_1V[0].cpu().numpy()
        return fused_1D[0].cpu().numpy(), share_V

    def embed_images(
        self,
        images: Any,
        *,
        modality: Modality | str | None = None,
        batch_size: int | None = None,
        errors: OnError = "raise",
        settings: Settings | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Embed images of any form, through the adapters and reading processes that scoring has.

        Args:
            images: Paths (a folder is one series, slide or record), arrays (H x W or H x W x 3; uint8 as it is, other
                types stretched as deep image files are), views, samples, opened studies (one vector each), or a data
                frame with the columns `file` and perhaps `modality`; one of them or several, mixed as one likes. An
                array [N, H, W, C] is N images.
            modality: Modality of arrays, and of files that neither the data frame nor their header names; the pack's
                only one where None.
            batch_size: Images in one forward pass; the model's own where None. Another size may change the last bits.
            errors: Treatment of what cannot be read: "raise" its reason, or leave a row of "nan".
            settings: Limits and number of reading processes.
            progress: Progress bar of the images.

        Returns:
            float32 [N, D] of unit norm, one row for each input in the order given. The row of an input of several views
            (a volume, a loop, an ECG, a slide) is the mean of its views' vectors, brought to unit norm.

        Raises:
            MedclipError: The reason why an input cannot be read, naming it; WRONG_USE for what is no image, and for an
                array whose modality nothing says.

        Example:
            >>> import medclip, numpy
            >>> model = medclip.models.load("medclip-mini")
            >>> images = list(numpy.random.default_rng(0).integers(0, 256, (2, 64, 64), dtype=numpy.uint8))
            >>> vectors = model.embed_images(images, modality="xray")
            >>> model.similarity(vectors, ["a chest x-ray", "a fundus photograph"]).shape
            (2, 2)
        """
        from medclip.models.encoding.embed_images import embed_images

        model = self
        if batch_size is not None:
            model = copy.copy(self)
            model.batch_size = batch_size
        return embed_images(model, images, modality=modality, errors=errors, settings=settings, progress=progress)

    def embed_text(self, texts: str | Sequence[str], *, progress: Progress | None = None) -> NDArray[np.float32]:
        """Embed texts, each as it stands: no template is put around it, and nothing is averaged.

        Args:
            texts: N texts; one string is one text. Longer ones than the context are cut.
            progress: Progress bar of the texts.

        Returns:
            float32 [N, D] of unit norm; [1, D] for one string.

        Raises:
            MedclipError: WRONG_USE for an image tower alone, and for anything but strings.
        """
        several = [texts] if isinstance(texts, str) else list(texts)
        progress = progress or Silent()
        progress.stage("Embedding texts", len(several))
        parts = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(several), TEXTS_AT_ONCE):
            parts.append(self.encode_text(several[start : start + TEXTS_AT_ONCE]))
            progress.step(len(parts[-1]))
        return np.concatenate(parts)

    def similarity(self, images: Any, texts: Any, *, logits: bool = False, **options: Any) -> NDArray[np.float32]:
        """Compare images with texts.

        Args:
            images: Vectors, [N, D] or [D], as `embed_images` returns them; or a list or anything else that it takes,
                which is embedded first.
            texts: Texts, one string or several; or vectors, as `embed_text` returns them.
            logits: Whether the model's own logits, scale x cosine + bias, are returned in place of cosines.
            options: Options of `embed_images`, such as `modality`, where images are embedded first.

        Returns:
            float32 [N, M]: cosine of each image with each text.

        Raises:
            MedclipError: WRONG_USE for vectors of another length than the model's; those of `embed_images` and
                `embed_text`.
        """
        images_ND = self._vectors(images, lambda: self.embed_images(images, **options))
        texts_MD = self._vectors(texts, lambda: self.embed_text(texts))
        cosines_NM = images_ND @ texts_MD.T
        if not logits:
            return cosines_NM
        return cosines_NM * np.float32(self.logit_scale) + np.float32(self.logit_bias)

    @property
    def logit_bias(self) -> float:
        """What is added to scaled cosines (SigLIP); 0 where the model has none."""
        bias = getattr(self.clip, "logit_bias", None)
        return 0.0 if bias is None else float(bias)

    def _vectors(self, given: Any, embed: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        if not isinstance(given, np.ndarray) or given.ndim > 2 or given.dtype.kind != "f":
            return embed()
        vectors_ND = np.atleast_2d(given).astype(np.float32, copy=False)
        if vectors_ND.shape[1] != self.dim:
            raise MedclipError(
                Reason.WRONG_USE,
                f"vectors of this model have {self.dim} numbers; these are {list(given.shape)}.",
                hint="Give an image that is an array as a list of one: [image].",
            )
        return vectors_ND

    def _fast_visual(self) -> nn.Module:
        size = self.preprocess.size_px
        if self.preprocess.volume is not None or self.preprocess.signal is not None:  # nothing that is folded
            return self.clip.visual  # type: ignore[return-value]
        generator = torch.Generator().manual_seed(0)
        example = torch.randn(1, 3, size, size, generator=generator).to(self.device)
        visual: nn.Module = self.clip.visual  # type: ignore[assignment]
        return fold_batch_norm(visual, example).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
