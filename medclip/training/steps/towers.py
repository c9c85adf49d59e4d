"""The two towers as one module: what data-parallel wrappers wrap, and what a step calls."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from medclip.models.towers.tokens import Tokens, image_tokens, timm_tokens, wrapped_head
from medclip.training.steps.fast_towers import FrozenPrefix, encode_short, word_states
from medclip.training.steps.masked_pixels import MaskedPart
from medclip.training.steps.supervised import RiskHead, SupervisedHead


class UnimodalViews(nn.Module):
    """The second term of MERL: two views of one image's or ECG's pooled feature, two linear maps of it with drop-out.

    They belong together and to no other. Nothing is changed anew for them, so that the term costs two products of small
    matrices. They are learned beside the towers and left behind when a pack is written.

    Reference: Liu et al., Zero-shot ECG classification with multimodal learning and test-time clinical knowledge
    enhancement (MERL), ICML 2024.

    Args:
        dim: Width of the pooled feature, D.
        dropout: Share of values that are left out.
    """

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = (nn.Linear(dim, dim, bias=False) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, pooled_BD: Tensor) -> Tensor:
        """Return both views side by side, float32 [B, 2 * D], each of unit norm."""
        with torch.autocast(pooled_BD.device.type, enabled=False):
            views = [self.dropout(map_(pooled_BD.float())) for map_ in (self.first, self.second)]
            return torch.cat([normalize(view_BD, dim=-1) for view_BD in views], dim=-1)


def pooled_dim(visual: Any, dim: int) -> int:
    """Return the length of what a tower pools: what its projection takes.

    Args:
        visual: The tower.
        dim: Length of the tower's features, for a tower without a projection.
    """
    layers = getattr(visual, "head", nn.Identity()).modules()
    return next((layer.in_features for layer in layers if isinstance(layer, nn.Linear)), dim)


@contextmanager
def pooled(visual: Any) -> Iterator[list[Tensor]]:
    """Note what a tower pools while it is called: a list that then has one entry, or none without a projection."""
    seen: list[Tensor] = []
    head = getattr(visual, "head", None)
    if head is None:
        yield seen
        return
    handle = head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def last_states(visual: Any) -> Iterator[list[Any]]:
    """Note what a trunk of timm gives its head while a tower is called, tokens or a map; nothing of other towers."""
    states: list[Any] = []
    trunk = getattr(visual, "trunk", None)
    head = getattr(trunk, "forward_head", None)
    if trunk is None or head is None:
        yield states
        return

    def noting(*of: Any, **named: Any) -> Any:
        states.append(named if "patches" in named else of[0])
        return head(*of, **named)

    trunk.forward_head = noting  # in front of the class's: it is a method, which no hook of torch reaches
    try:
        yield states
    finally:
        del trunk.forward_head


LOSS_PARAMETERS = ("logit_scale", "logit_bias")
"""Parameters of the loss: outside the wrapped module, because cached gradients reach them once and not per chunk."""


class TowerOutputs(NamedTuple):
    """What the towers return of a batch: rows of one sample lie together; no columns in a part that is not asked."""

    image_BD: Tensor
    """float32, of unit norm: V rows for each sample, zeros where an examination has no such view."""
    text_BD: Tensor
    """float32, of unit norm: T rows for each sample; no columns without words."""
    errors_B2: Tensor
    """float32, a row for each image: sum of the mean squared errors of hidden patches, and how many count; 0 where none
    are hidden."""
    logits_BC: Tensor
    """float32, a row for each image, or each examination: of the classes of all heads, one head after the other."""
    fused_BD: Tensor
    """float32, of unit norm, a row for each examination; no columns where samples are single images."""
    extra: Mapping[str, Tensor] = {}
    """What single losses need, by their names: `medclip.training.losses`."""
    texts: Mapping[str, Tensor] = {}
    """Texts beside the captions, by their role, in training: float32 [B, K, D], of unit norm, zeros where a sample has
    no such text."""

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all of them, those of single losses and of further texts last."""
        return (*self[:5], *self.extra.values(), *self.texts.values())

    def with_tensors(self, tensors: Iterable[Tensor]) -> TowerOutputs:
        """Return others with the names of these."""
        image_BD, text_BD, errors_B2, logits_BC, fused_BD, *others = tensors
        extra = dict(zip(self.extra, others, strict=False))
        texts = dict(zip(self.texts, others[len(extra) :], strict=True))
        return TowerOutputs(image_BD, text_BD, errors_B2, logits_BC, fused_BD, extra, texts)

    def each(self, change: Callable[[Tensor], Tensor]) -> TowerOutputs:
        """Return them with each tensor changed."""
        return self.with_tensors(change(x) for x in self.tensors())


def joined(parts: Sequence[TowerOutputs], join: Callable[[tuple[Tensor, ...]], Tensor] = torch.cat) -> TowerOutputs:
    """Return the outputs of parts of a batch, or of a split, as one."""
    return parts[0].with_tensors(join(rows) for rows in zip(*(part.tensors() for part in parts), strict=True))


class Seen(NamedTuple):
    """What the towers have seen of images in training, for losses that look at more than features."""

    model: Any
    """The dual encoder, or the image tower alone."""
    images: Any
    """Normalised images, or patches with their places."""
    pooled_BD: Tensor
    """What the tower pools, in front of its projection."""
    image_BD: Tensor
    """float32 features of unit norm."""
    tokens_BL: Tensor | None = None
    """int64 token ids of the captions; None without words."""
    words_BLW: Tensor | None = None
    """What the text tower makes of each of their first tokens, up to the longest caption, behind its last norm; None
    for towers that have none, such as BERT's."""
    state: Any = None
    """What a trunk of timm gave its head, tokens or the last map; None of other towers."""
    prepared: Mapping[str, Mapping[str, Tensor]] = {}
    """What losses made ahead of the step of these samples, by their names: `Loss.sees`."""

    def image_tokens(self) -> Tokens[Tensor]:
        """Return the tokens of the images; towers that are none of timm's are asked once more for them."""
        visual = self.model.visual
        if self.state is None:
            return image_tokens(visual, self.images, pool=False)
        return timm_tokens(visual.trunk, self.images, wrapped_head(visual), pool=False, state=self.state)


class Towers(nn.Module):
    """Images and tokens to unit features, and to the pixels of hidden patches where that is asked for.

    Holds every parameter of the dual encoder but those of the loss.

    Args:
        clip: open_clip dual encoder, or an image tower alone.
        pad_id: Padding token; None without words: neither captions nor whole images are encoded then.
        masked: Module that predicts hidden pixels; None without masked image modelling.
        heads: Heads that classify whole images, or examinations, by the names of their tasks.
        parts: Modules that learn beside the towers for single losses, by their names.
        looks: Functions that give single losses what they see in training, by the names of the losses.
    """

    def __init__(
        self,
        clip: nn.Module,
        pad_id: int | None,
        masked: MaskedPart | None = None,
        heads: Mapping[str, SupervisedHead | RiskHead] | None = None,
        parts: Mapping[str, nn.Module] | None = None,
        looks: Mapping[str, Callable[[Seen], Tensor]] | None = None,
    ) -> None:
        super().__init__()
        for name, module in clip.named_children():
            self.add_module(name, module)
        for name, p in clip.named_parameters(recurse=False):
            if name not in LOSS_PARAMETERS:
                self.register_parameter(name, p)
        self.masked, self.parts, self.looks = masked, tuple(parts or ()), looks or {}
        for name, part in (parts or {}).items():
            self.add_module(name, part)
        self.supervised = nn.ModuleDict(heads) if heads else None
        self.prefix: list[FrozenPrefix] = []  # a list, so that its copy of frozen weights is no child
        self._clip = [clip]
        self._pad_id = pad_id

    @property
    def clip(self) -> Any:
        """The dual encoder."""
        return self._clip[0]

    def forward(
        self,
        images_BCHW: Any,
        tokens_BL: Tensor,
        mask_BL: Tensor | None = None,
        num_tokens: int | None = None,
        decoded_BL: Tensor | None = None,
        view_types_BV3: Tensor | None = None,
        there_P: Tensor | None = None,
        texts: Mapping[str, tuple[Tensor, Tensor, int]] | None = None,
        prepared: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> TowerOutputs:
        """Encode a batch.

        Args:
            images_BCHW: Normalised images, or patches with their places (`models.towers.native_aspect`).
            tokens_BL: int64 token ids.
            mask_BL: bool, True where a patch is hidden; None without masked image modelling.
            num_tokens: Columns of tokens that the longest caption needs; see `encode_short`.
            decoded_BL: bool, True where a patch is guessed; None: where it is hidden.
            view_types_BV3: int64, of the examinations whose views the images are: numbers of side, position and kind,
                -1 where there is no view. None where samples are single images.
            there_P: int64, of examinations: which of the B x V places each image has.
            texts: Texts beside the captions, by their role: int64 tokens [B, K, L], bool [B, K], which there are, and
                the columns that the longest needs.
            prepared: Tensors that losses made of these samples ahead of the step, by their names.
        """
        clip = self.clip
        prefix = self.prefix[0] if self.prefix and self.training else None
        nothing_B0 = torch.zeros(len(tokens_BL), 0, device=tokens_BL.device)
        image_BD = text_BD = fused_BD = nothing_B0
        words: list[Tensor] = []
        extra: dict[str, Tensor] = {}
        if self._pad_id is not None:
            with word_states(clip) as words:
                text_BD = normalize(encode_short(clip, tokens_BL, self._pad_id, num_tokens).float(), dim=-1)
        further_texts = {role: self._encode_texts(*of) for role, of in (texts or {}).items()}
        looks = self.looks if self.training else {}
        if self._pad_id is not None or self.supervised is not None or looks:
            with pooled(clip.visual) as seen, last_states(clip.visual) as states:
                features_BD = prefix.encode_image(clip, images_BCHW) if prefix else clip.encode_image(images_BCHW)
            image_BD = normalize(features_BD.float(), dim=-1)
            about = Seen(
                *(clip, images_BCHW, seen[0] if seen else features_BD, image_BD),
                tokens_BL=None if self._pad_id is None else tokens_BL,
                words_BLW=words[0] if words else None,
                state=states[0] if states else None,
                prepared=prepared or {},
            )
            extra = {name: look(about) for name, look in looks.items()}
        if view_types_BV3 is not None and there_P is not None:
            every, views = view_types_BV3.shape[:2]
            image_BD = image_BD.new_zeros(every * views, image_BD.shape[1]).index_copy(0, there_P, image_BD)
            is_there_BV = view_types_BV3[:, :, 0] >= 0
            fused_BD, _ = clip.fusion(image_BD.unflatten(0, (every, views)), view_types_BV3, is_there_BV)
        errors_B2 = nothing_B0.new_zeros(len(nothing_B0), 2)
        if self.masked is not None and mask_BL is not None:
            errors_B2 = self.masked(clip, images_BCHW, mask_BL, prefix, decoded_BL)
        logits_BC = nothing_B0
        if self.supervised is not None:
            read_BD = image_BD if view_types_BV3 is None else fused_BD
            logits_BC = torch.cat([head(read_BD) for head in self.supervised.values()], dim=1)
        return TowerOutputs(image_BD, text_BD, errors_B2, logits_BC, fused_BD, extra, further_texts)

    def _encode_texts(self, tokens_BKL: Tensor, mask_BK: Tensor, num_tokens: int) -> Tensor:
        assert self._pad_id is not None  # a loss that reads texts needs words
        features_RD = encode_short(self.clip, tokens_BKL.flatten(0, 1), self._pad_id, num_tokens)
        features_BKD = normalize(features_RD.float(), dim=-1).unflatten(0, mask_BK.shape)
        return torch.where(mask_BK[:, :, None], features_BKD, 0)

    def loss_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters of the loss, which live beside the towers, by name."""
        parameters = {name: getattr(self.clip, name, None) for name in LOSS_PARAMETERS}
        return {name: p for name, p in parameters.items() if isinstance(p, nn.Parameter)}


def weights_of(towers: Towers) -> dict[str, Tensor]:
    """Name every tensor that a checkpoint keeps: parameters and buffers of the towers, parameters of the loss."""
    weights = {**towers.state_dict(), **{name: p.data for name, p in towers.loss_parameters().items()}}
    return {f"model.{name}": value for name, value in weights.items()}


@contextlib.contextmanager
def borrowed(towers: Towers, averaged: dict[str, Tensor] | None) -> Iterator[None]:
    """Have the averaged weights in the towers for a while, where there are any; gives the towers' own back after."""
    if averaged is None:
        yield
        return
    present = _present(towers)
    before = {k: v.detach().clone() for k, v in present.items()}
    _merge(present, averaged)
    try:
        yield
    finally:
        _merge(_present(towers), before)


def _present(towers: Towers) -> dict[str, Tensor]:
    """Name the weights; FSDP first lets go of gathered copies, which a forward pass without a backward one leaves."""
    for module in towers.modules():
        if hasattr(module, "reshard"):
            module.reshard()  # type: ignore[operator]
    return weights_of(towers)


@torch.no_grad()
def _merge(into: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        into[name].copy_(value)
