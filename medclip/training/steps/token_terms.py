"""The terms of the losses that read single tokens: rows of `medclip.training.losses`. After LightCLIP; no code of it
was found, so both are a reconstruction.

`token_alignment` matches patches with words. `masked_words` sends each caption through the text tower a second time,
some of its tokens masked, with the image's feature added at some layers, and guesses what was masked. A causal tower
sees the whole caption in that pass: the words behind a mask say as much as those in front of it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, normalize, pad
from torch.utils.checkpoint import checkpoint

from medclip.objectives.ranks import sum_values
from medclip.objectives.token_alignment import token_alignment_loss
from medclip.text.checks.matching import match_texts
from medclip.text.checks.metadata import built_in_metadata
from medclip.text.tokenizers.tokenizer import Tokenizer
from medclip.training.batches.loader import Batch
from medclip.training.recipe.text_losses import MaskedWords, TokenAlignment
from medclip.training.steps.loss_terms import Start, Step, Terms, image_weights, weighted
from medclip.training.steps.text_terms import of_single_images, refused_loss
from medclip.training.steps.towers import Seen

_JOINING = """
a an the and or of in on at to for from by with as is are was were be been being has have had this that these those
there it its
"""
STOP_WORDS = frozenset(_JOINING.split())
"""Words that no patch shows. Sides, places and denials are none of them."""
_STREAM = 17
_SMALLEST = 0.07
"""Temperature that the scale of token scores begins with: CLIP's."""
_LARGEST = 100.0


def seen_by(part: nn.Module, seen: Seen) -> Tensor:
    """Return what a module that learns beside the towers makes of what they see."""
    with torch.autocast(seen.image_BD.device.type, enabled=False):
        return part(seen)


class TokenHeads(nn.Module):
    """Projects patches and words to unit tokens of one space, side by side in a row for each sample.

    Args:
        widths: Widths of the image tower's tokens and of the text tower's.
        dim: Width of the space, D.
        is_word_V: bool, by id: whether a token is a word that is matched.
        context_length: Tokens of a caption, L.
        num_patches: Most patches of an image, P.
    """

    def __init__(
        self, widths: tuple[int, int], dim: int, is_word_V: Tensor, context_length: int, num_patches: int
    ) -> None:
        super().__init__()
        self.image, self.text = (nn.Linear(width, dim) for width in widths)
        self.log_scale = nn.Parameter(torch.tensor([math.log(1 / _SMALLEST)]))  # one axis: sharded ranks want it
        self.is_word_V: Tensor
        self.register_buffer("is_word_V", is_word_V, persistent=False)
        self.context_length, self.num_patches, self.dim = context_length, num_patches, dim

    def forward(self, seen: Seen) -> Tensor:
        """Return scale, words and patches, float32 [B, 1 + L * D + P * D]; zeros for what is no word and no patch."""
        tokens = seen.image_tokens()
        patches_BPE, mask_BP = tokens.tokens_BLD.float(), tokens.mask_BL
        if patches_BPE.shape[1] > self.num_patches:
            norm_BP = patches_BPE.detach().norm(dim=2).masked_fill(~mask_BP, -1)
            kept_BP = norm_BP.topk(self.num_patches).indices
            patches_BPE = patches_BPE.gather(1, kept_BP[:, :, None].expand(-1, -1, patches_BPE.shape[2]))
            mask_BP = mask_BP.gather(1, kept_BP)
        assert seen.tokens_BL is not None
        assert seen.words_BLW is not None  # refused at the begin
        is_word_BL = self.is_word_V[seen.tokens_BL[:, : seen.words_BLW.shape[1]]]
        patches_BPD = normalize(self.image(patches_BPE), dim=2) * mask_BP[:, :, None]
        words_BLD = normalize(self.text(seen.words_BLW.float()), dim=2) * is_word_BL[:, :, None]
        words_BLD = pad(words_BLD, (0, 0, 0, self.context_length - words_BLD.shape[1]))
        # The scale goes along: a parameter that only the loss used would be missed by chunks and by ranks.
        scale_B1 = self.log_scale.exp().clamp_max(_LARGEST).expand(len(words_BLD), 1)
        return torch.cat([scale_B1, words_BLD.flatten(1), patches_BPD.flatten(1)], dim=1)


def token_heads(start: Start, settings: TokenAlignment) -> TokenHeads:
    """Make the heads.

    Raises:
        MedclipError: RECIPE_INVALID where samples have several images, the image tower has no map or the text tower no
            states of words.
    """
    of_single_images(start, settings)
    visual, words = start.model.visual, start.tokenizer
    if hasattr(getattr(visual, "trunk", None), "num_features") and start.recipe.model.lens is None:
        width = int(visual.trunk.num_features)
    elif hasattr(visual, "conv1") and hasattr(visual, "transformer"):
        width = int(visual.transformer.width)
    else:
        cause = f"it matches patches, and an image tower of the class {type(visual).__name__} gives none here"
        raise refused_loss("token_alignment", cause, "Leave it out, or train a tower of timm or a ViT of open_clip.")
    text = _text_tower("token_alignment", start)
    assert words is not None  # a loss that reads texts needs words
    vocabulary = (words.decode([i]).strip().lower() for i in range(words.vocab_size))
    is_word = [any(c.isalnum() for c in token) and token not in STOP_WORDS for token in vocabulary]
    is_word_V = torch.tensor(is_word).index_fill(0, torch.tensor(sorted(words.special_ids)), False)
    widths = width, int(text.ln_final.normalized_shape[0])
    return TokenHeads(widths, start.dim, is_word_V, words.context_length, settings.patches)


def aligned(step: Step, settings: TokenAlignment, heads: TokenHeads) -> Terms:
    """Contrast images and captions by their matched tokens."""
    out, words = step.outputs, heads.context_length * heads.dim
    rows = out.extra["token_alignment"]
    yield (
        settings.weight,
        token_alignment_loss(
            rows[:, 1 + words :].unflatten(1, (-1, heads.dim)),
            rows[:, 1 : 1 + words].unflatten(1, (-1, heads.dim)),
            rows[:, 0].mean(),
            mode=settings.mode,
            cap=settings.cap,
            hardest=settings.hardest,
            image_BD=out.image_BD,
            text_BD=out.text_BD,
            pairs=step.inputs.pairs,
            group=step.world.group,
        ),
    )


class WordGuesser(nn.Module):
    """Guesses masked tokens of captions, of which the text tower sees the rest and the image's feature.

    Args:
        text: Text tower.
        tokenizer: Tokenizer of the run.
        dim: Width of the features.
        layers: Text layers that the feature is added in front of.
        share: Share of a caption's tokens that are guessed.
        seed: Seed of what is masked.
    """

    def __init__(
        self, text: Any, tokenizer: Tokenizer, dim: int, layers: tuple[int, ...], share: float, seed: int
    ) -> None:
        super().__init__()
        num_ids, width = text.token_embedding.weight.shape
        self.mask_W = nn.Parameter(torch.randn(width) * 0.02)
        self.norm = nn.LayerNorm(dim) if layers else None
        self.fuse = nn.ModuleDict({str(layer): nn.Linear(dim, width) for layer in layers})
        self.mlp, self.mlp_norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.bias_V = nn.Parameter(torch.zeros(num_ids))
        self.tokenizer, self.share, self.seed = tokenizer, share, seed
        self.special = np.arange(num_ids) >= tokenizer.vocab_size
        self.special[sorted(tokenizer.special_ids)] = True
        self.others = np.flatnonzero(~self.special)

    def forward(self, seen: Seen) -> Tensor:
        """Return the summed cross-entropy of each caption's masked tokens, float32 [B, 1]."""
        of = seen.prepared["masked_words"]
        target_BL = of["target_BL"]
        guessed_BL = target_BL >= 0
        text = getattr(seen.model, "text", seen.model)
        logits_GV = self.logits(text, of["tokens_BL"], of["used_BL"], of["masked_BL"], guessed_BL, seen.image_BD)
        error_G = cross_entropy(logits_GV, target_BL[guessed_BL], reduction="none")
        row_G = guessed_BL.nonzero()[:, 0]
        return error_G.new_zeros(len(target_BL)).index_add(0, row_G, error_G)[:, None]

    def logits(
        self, text: Any, tokens_BL: Tensor, used_BL: Tensor, masked_BL: Tensor, guessed_BL: Tensor, image_BD: Tensor
    ) -> Tensor:
        """Return the logits of all ids at the places that are guessed, float32 [G, V].

        Args:
            text: Text tower.
            tokens_BL: int64 ids; anything where masked.
            used_BL: bool, False for padding.
            masked_BL: bool, where the learned vector stands.
            guessed_BL: bool.
            image_BD: float32 features.
        """
        table_VW = text.token_embedding.weight
        if hasattr(text, "_embeds"):
            x_BLW, _ = text._embeds(tokens_BL)
        else:
            x_BLW = text.token_embedding(tokens_BL) + text.positional_embedding[: tokens_BL.shape[1]]
        x_BLW = torch.where(masked_BL[:, :, None], x_BLW - text.token_embedding(tokens_BL) + self.mask_W, x_BLW)
        blocks = text.transformer.resblocks
        hidden_BLL = torch.zeros_like(used_BL, dtype=x_BLW.dtype).masked_fill(~used_BL, -torch.inf)[:, None]
        hidden_BLL = hidden_BLL.expand(-1, tokens_BL.shape[1], -1)
        mask = hidden_BLL.repeat_interleave(blocks[0].attn.num_heads, dim=0)
        feature_BD = None if self.norm is None else self.norm(image_BD)
        for number, block in enumerate(blocks):
            if str(number) in self.fuse and feature_BD is not None:
                x_BLW = x_BLW + self.fuse[str(number)](feature_BD)[:, None]
            if text.transformer.grad_checkpointing:
                x_BLW = checkpoint(block, x_BLW, None, None, mask, use_reentrant=False)
            else:
                x_BLW = block(x_BLW, attn_mask=mask)
        state_GW = text.ln_final(x_BLW)[guessed_BL]
        return self.mlp_norm(gelu(self.mlp(state_GW))) @ table_VW.T + self.bias_V

    def mask(self, ids_L: NDArray[np.int64], entities: list[str], rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
        """Draw what is masked of a caption: its ids, where the learned vector stands, and the targets, -1 elsewhere."""
        ids_L, target_L = ids_L.copy(), np.full(len(ids_L), -1)
        units = [range(i, i + 1) for i in np.flatnonzero(~self.special[ids_L])]
        wanted = max(1, round(self.share * len(units))) if units else 0
        spans = [span for entity in entities for span in self._places(entity, ids_L)]
        for span in sorted(spans, key=len):  # a longer name takes in the shorter ones that it begins or ends with
            units = [unit for unit in units if not set(unit) & set(span)] + [span]
        masked_L = np.zeros(len(ids_L), bool)
        for number in rng.permutation(len(units)):
            if (target_L >= 0).sum() >= wanted:
                break
            target_L[units[number]] = ids_L[units[number]]
        for i in np.flatnonzero(target_L >= 0):
            chance, other = rng.random(), rng.choice(self.others)
            masked_L[i] = chance < 0.8
            if 0.8 <= chance < 0.9:
                ids_L[i] = other
        return ids_L, masked_L, target_L

    def _places(self, entity: str, ids_L: NDArray[np.int64]) -> Iterator[range]:
        for piece in _pieces(self.tokenizer, entity):
            for i in range(len(ids_L) - len(piece) + 1):
                if piece and tuple(ids_L[i : i + len(piece)]) == piece:
                    yield range(i, i + len(piece))


@cache
def _pieces(tokenizer: Tokenizer, entity: str) -> frozenset[tuple[int, ...]]:
    """Return the ids of a name at the beginning of a text, and behind a word."""
    first, behind, word = (_ids(tokenizer, text) for text in (entity, f"a {entity}", "a"))
    return frozenset({first, behind[len(word) :]} if behind[: len(word)] == word else {first})


def _ids(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    return tuple(i for i in tokenizer.encode([text])[0].tolist() if i not in tokenizer.special_ids)


def word_guesser(start: Start, settings: MaskedWords) -> WordGuesser:
    """Make what guesses.

    Raises:
        MedclipError: RECIPE_INVALID where samples have several images, the text tower is of another form, or a layer
            does not exist.
    """
    of_single_images(start, settings)
    text = _text_tower("masked_words", start)
    num_layers = len(text.transformer.resblocks)
    layers = tuple(dict.fromkeys((0, num_layers // 2) if settings.fuse_layers is None else settings.fuse_layers))
    absent = [layer for layer in layers if not 0 <= layer < num_layers]
    if absent:
        cause = f"there is no text layer {absent[0]} to fuse the image at: the tower has {num_layers}"
        raise refused_loss("masked_words", cause, f"Its layers are 0 to {num_layers - 1}.")
    assert start.tokenizer is not None  # a loss that reads texts needs words
    return WordGuesser(text, start.tokenizer, start.dim, layers, settings.share, start.recipe.seed)


def mask_captions(guesser: WordGuesser, batch: Batch, step: int) -> Mapping[str, Tensor]:
    """Mask the captions of a batch; what is drawn depends on seed, step and the sample's key, which no text shows."""
    tokens_BL = batch.tokens[:, : batch.num_tokens].astype(np.int64)
    metadata, names = built_in_metadata(), [[] for _ in batch.texts]
    for entry, text in match_texts(batch.texts, metadata).index_M2:
        names[text].append(metadata.entries[entry])
    rows: list[tuple[NDArray[Any], ...]] = []
    for ids_L, entities, key, valid in zip(tokens_BL, names, batch.keys, batch.valid, strict=True):
        rng = np.random.default_rng((guesser.seed, _STREAM, step, zlib.crc32(key.encode())))
        nothing = (ids_L, np.zeros(len(ids_L), bool), np.full(len(ids_L), -1))
        rows.append(guesser.mask(ids_L, entities, rng) if valid else nothing)
    ids_BL, masked_BL, target_BL = (torch.from_numpy(np.stack(of)) for of in zip(*rows, strict=True))
    used_BL = torch.from_numpy(_used(tokens_BL, guesser.tokenizer))
    return {"tokens_BL": ids_BL, "used_BL": used_BL, "masked_BL": masked_BL, "target_BL": target_BL}


def _used(tokens_BL: NDArray[np.int64], tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """Return what is no padding: all up to the end; the first token always, so that something is there to see."""
    ends_BL = tokens_BL == tokenizer.eos_id
    last_B = np.where(
        ends_BL.any(1), ends_BL.argmax(1), ((tokens_BL != tokenizer.pad_id) * np.arange(tokens_BL.shape[1])).max(1)
    )
    return np.arange(tokens_BL.shape[1]) <= last_B[:, None]


def guessed(step: Step, settings: MaskedWords, _: object) -> Terms:
    """Average the errors of the masked tokens of the whole batch: the mean over ranks is that."""
    weights_B = image_weights(step.inputs)
    num_B = step.inputs.extra["masked_words"]["target_BL"].ge(0).sum(1).float()
    count = sum_values(weighted(num_B, weights_B).sum(), step.world.group)
    total = weighted(step.outputs.extra["masked_words"][:, 0], step.of_images(weights_B)).sum()
    yield settings.weight, total * (step.world.size / count.clamp_min(1e-30))


def _text_tower(name: str, start: Start) -> Any:
    text = getattr(start.model, "text", start.model)
    if not hasattr(text, "ln_final") or getattr(text, "cls_emb", None) is not None:
        cause = f"it reads the words of open_clip's text transformer, and this tower is a {type(text).__name__}"
        raise refused_loss(name, cause, "Leave it out: towers of BERT and CoCa are not read by it.")
    return text
