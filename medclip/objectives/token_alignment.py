"""InfoNCE over scores of images and texts that come from their tokens: patches are matched with words, pair by pair.

The score of an image and a text is the mean similarity of the pairs of patch and word that a matching takes. Which
pairs it takes has no gradient; the similarities that are averaged have. Tokens that are zero are none: padding would
else steal patches.

Reference: LightCLIP, 2023 (relaxed bipartite matching; no code of it was found, so greedy matching with a capacity is a
reconstruction); Yao et al., FILIP, ICLR 2022 (best patch of each word); Kuhn 1955 (exact assignment, by scipy).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from medclip.errors import MedclipError, Reason
from medclip.objectives.block import make_block, scalar
from medclip.objectives.pairs import Pairs
from medclip.objectives.ranks import gather, gather_pairs, rank_and_size

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Matching = Literal["relaxed", "hungarian", "filip"]
_LOWEST = torch.finfo(torch.float32).min / 4


def token_alignment_loss(
    patches_BPD: Tensor,
    words_BMD: Tensor,
    scale: Tensor | float,
    *,
    mode: Matching = "relaxed",
    cap: int = 3,
    hardest: int | None = None,
    image_BD: Tensor | None = None,
    text_BD: Tensor | None = None,
    pairs: Pairs | None = None,
    group: ProcessGroup | None = None,
) -> Tensor:
    """Return the mean of both directions' cross-entropies over the scores of matched tokens.

    Args:
        patches_BPD: [B, P, D] unit patch tokens, zeros where an image has no such patch.
        words_BMD: [B, M, D] unit word tokens, zeros for what is no word; a text without words takes no part.
        scale: Factor of the scores.
        mode: Name of the matching; see `match_tokens`.
        cap: Most patches of a word in the relaxed matching.
        hardest: Number of other partners that a row is compared with, those whose features are most alike; None: all.
        image_BD: [B, D'] unit features that the hardest partners are chosen by.
        text_BD: [B, D'] unit features of the texts, likewise.
        pairs: Pairs, as in `clip_loss`; among the hardest partners a row has no positive but its own.
        group: Ranks, as in `clip_loss`: the mean over ranks is the loss of the whole batch.

    Returns:
        Scalar float32. Memory is O(b x N x P x M) for b rows and N columns, and O(b x hardest x P x M) with `hardest`.

    Raises:
        MedclipError: WRONG_USE for a cap or number below 1, or hardest partners without features.
    """
    if cap < 1 or (hardest is not None and hardest < 1):
        raise MedclipError(Reason.WRONG_USE, f"cap is {cap} and hardest {hardest}; both are at least 1.")
    if hardest is not None and (image_BD is None or text_BD is None):
        raise MedclipError(Reason.WRONG_USE, "the hardest partners are chosen by features, and there are none.")
    has_B = patches_BPD.ne(0).any(2).any(1) & words_BMD.ne(0).any(2).any(1)
    pairs = pairs or Pairs()
    pairs = replace(pairs, valid_B=has_B if pairs.valid_B is None else pairs.valid_B & has_B)
    turned = replace(pairs, positive_BK=pairs.text_positive_BK, text_positive_BK=pairs.positive_BK)
    turned = pairs if pairs.text_positive_BK is None else turned
    rank, ranks = rank_and_size(group)
    with torch.autocast(patches_BPD.device.type, enabled=False):
        factor = scalar(scale, patches_BPD.device)
        tokens = [torch.where(has_B[:, None, None], x.float(), 0) for x in (patches_BPD, words_BMD)]
        every = [gather(x, group) for x in tokens]
        # A context is mostly padding: of 77 places a caption fills a dozen, and the matching costs as many as stand.
        most = max(1, int(every[1].ne(0).any(2).sum(1).max()))
        tokens[1], every[1] = (_first_words(x, most) for x in (tokens[1], every[1]))
        features = [None if x is None else x.detach().float() for x in (image_BD, text_BD)]
        losses, scores_bN = [], None
        for side, of in enumerate((pairs, turned)):
            block = make_block(gather_pairs(of, group), ranks * len(has_B), rank, ranks, has_B.device)
            rows = slice(0, len(has_B))
            positive_bN = block.positive(rows)
            left_out_bN = block.left_out(rows, positive_bN)
            assert left_out_bN is not None  # the block knows who takes part
            if positive_bN is None:
                positive_bN = torch.zeros_like(left_out_bN).scatter_(1, block.own_b[:, None], True) & ~left_out_bN
            cols = every[1 - side][None]
            if hardest is not None:
                ours, theirs = features[side], features[1 - side]
                assert ours is not None
                assert theirs is not None
                alike_bN = (ours @ gather(theirs, group).T).masked_fill(positive_bN | left_out_bN, _LOWEST)
                alike_bN.scatter_(1, block.own_b[:, None], torch.inf)
                chosen_bK = alike_bN.topk(min(hardest + 1, alike_bN.shape[1])).indices
                others_bK = chosen_bK != block.own_b[:, None]
                left_out_bN = left_out_bN.gather(1, chosen_bK) | (positive_bN.gather(1, chosen_bK) & others_bK)
                positive_bN, cols = positive_bN.gather(1, chosen_bK) & ~others_bK, every[1 - side][chosen_bK]
            if hardest is None and ranks == 1 and scores_bN is not None:
                scores_bN = scores_bN.T
            else:
                both = (tokens[side][:, None], cols)
                patches, words = both if side == 0 else both[::-1]
                scores_bN = token_scores(patches, words, mode, cap)
            logits_bN = (factor * scores_bN).masked_fill(left_out_bN, _LOWEST)
            target_bN = positive_bN / positive_bN.sum(1, keepdim=True).clamp_min(1)
            each_b = -torch.where(positive_bN, target_bN * logits_bN.log_softmax(1), 0).sum(1)
            losses.append(torch.where(block.row_weights_b > 0, each_b * block.row_weights_b, 0).sum())
    return (losses[0] + losses[1]) / 2


def _first_words(words_NMD: Tensor, most: int) -> Tensor:
    """Return the words in front, in their order, and so much of what is none that each text has `most` places."""
    order_NM = words_NMD.eq(0).all(2).int().argsort(dim=1, stable=True)[:, :most]
    return words_NMD.gather(1, order_NM[:, :, None].expand(-1, -1, words_NMD.shape[2]))


def token_scores(patches: Tensor, words: Tensor, mode: Matching = "relaxed", cap: int = 3) -> Tensor:
    """Return the mean similarity of matched patches and words of each image and text; 0 where nothing is matched.

    Args:
        patches: float [..., P, D], zeros for no patch.
        words: float [..., M, D], zeros for no word; leading axes broadcast against those of the patches.
        mode: Name of the matching.
        cap: Most patches of a word in the relaxed matching.

    Example:
        >>> token_scores(torch.eye(3)[None], torch.eye(3)[None, :2]).tolist()
        [0.6666666865348816]
    """
    similarity = patches @ words.transpose(-1, -2)
    allowed = (patches.ne(0).any(-1)[..., :, None] & words.ne(0).any(-1)[..., None, :]).expand(similarity.shape)
    flat_NPM = similarity.detach().reshape(-1, *similarity.shape[-2:])
    matched = match_tokens(flat_NPM, allowed.reshape(flat_NPM.shape), mode, cap).view(similarity.shape)
    return torch.where(matched, similarity, 0).sum((-1, -2)) / matched.sum((-1, -2)).clamp_min(1)


@torch.no_grad()
def match_tokens(similarity_NPM: Tensor, allowed_NPM: Tensor, mode: Matching = "relaxed", cap: int = 3) -> Tensor:
    """Mark the matched pairs of patch and word of N images and texts.

    Args:
        similarity_NPM: float [N, P, M].
        allowed_NPM: bool [N, P, M], the pairs of patches and words that there are: some rows and columns of each.
        mode: "relaxed" visits pairs from the most alike on (of equal ones the lower patch, then the lower word) and
            takes a pair if its patch is free and its word has fewer than `cap`; "hungarian" is the assignment with the
            largest sum, each word and patch once at most; "filip" gives each word its best patch.
        cap: Most patches of a word in the relaxed matching.

    Returns:
        bool [N, P, M].
    """
    num, num_patches, num_words = similarity_NPM.shape
    matched = torch.zeros_like(allowed_NPM)
    if not matched.numel():
        return matched
    if mode == "hungarian":
        values, usable = similarity_NPM.cpu().double().numpy(), allowed_NPM.cpu().numpy()
        for n in range(num):
            patches, words = usable[n].any(1).nonzero()[0], usable[n].any(0).nonzero()[0]
            i, j = linear_sum_assignment(values[n][patches][:, words], maximize=True)
            matched[n, patches[i], words[j]] = True
        return matched
    open_NPM = similarity_NPM.masked_fill(~allowed_NPM, -torch.inf)
    if mode == "filip":
        return matched.scatter_(1, open_NPM.argmax(1, keepdim=True), True) & allowed_NPM
    each_N, load_NM = torch.arange(num, device=matched.device), torch.zeros_like(open_NPM[:, 0])
    for _ in range(min(num_patches, cap * num_words)):
        value_N, place_N = open_NPM.flatten(1).max(1)  # of equal ones the first
        takes_N = value_N > -torch.inf
        patch_N, word_N = place_N // num_words, place_N % num_words
        matched[each_N, patch_N, word_N] |= takes_N
        load_NM[each_N, word_N] += takes_N
        open_NPM[each_N, patch_N] = -torch.inf
        open_NPM[each_N, :, word_N] = open_NPM[each_N, :, word_N].masked_fill(
            (load_NM[each_N, word_N] >= cap)[:, None], -torch.inf
        )
    return matched
