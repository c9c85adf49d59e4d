"""The contrastive loss against golden vectors, closed forms and a dense float64 form."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medclip.errors import MedclipError, Reason
from medclip.objectives.contrastive import clip_loss
from medclip.objectives.pairs import Pairs, keys_of
from tests.kits.objectives import (
    assert_equal_gradients,
    batches,
    check_golden,
    check_golden_gradient,
    dense_clip,
    leaves,
    unit,
)

CORE = "core_clip_siglip_losses.npz"


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_identical_features_give_the_logarithm_of_the_batch_size(size: int) -> None:
    same = torch.nn.functional.normalize(torch.ones(size, 5), dim=1)
    assert float(clip_loss(same, same, 14.0)) == pytest.approx(math.log(size), abs=1e-5)


def test_orthonormal_matched_pairs_give_the_closed_form() -> None:
    eye = torch.eye(3)
    assert float(clip_loss(eye, eye, 10.0)) == pytest.approx(math.log(1 + 2 * math.exp(-10)), rel=1e-3)
    assert float(clip_loss(eye.double(), eye.double(), 10.0)) == pytest.approx(9.0796e-5, rel=1e-3)


@given(n=st.integers(2, 9), seed=st.integers(0, 10_000))
def test_the_loss_is_symmetric_and_does_not_depend_on_the_order_of_pairs(n: int, seed: int) -> None:
    image, text = unit(n, 6, seed), unit(n, 6, seed + 1)
    loss = clip_loss(image, text, 5.0)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(clip_loss(text, image, 5.0), loss)
    torch.testing.assert_close(clip_loss(image[order], text[order], 5.0), loss)


@given(batch=batches(some_valid=False, of_texts=True), seed=st.integers(0, 10_000), scale=st.floats(0.1, 60))
def test_loss_and_gradients_equal_the_dense_form(
    batch: tuple[int, int, Pairs | None, int], seed: int, scale: float
) -> None:
    size, width, pairs, chunk = batch
    values = (unit(size, width, seed), unit(size, width, seed + 1), scale)
    ours, dense = leaves(*values), leaves(*values, dtype=torch.float64)
    loss = clip_loss(*ours, pairs, chunk=chunk)
    expected = dense_clip(*dense, pairs)
    (3 * loss).backward()
    (3 * expected).backward()
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=1e-4)
    assert_equal_gradients(ours, dense, atol=3e-5)


def test_each_gradient_is_right_when_it_alone_is_wanted() -> None:
    values = (unit(5, 4, 0), unit(5, 4, 1), torch.tensor(7.0))
    whole = leaves(*values)
    clip_loss(*whole).backward()
    for wanted in range(3):
        some = [v.clone().requires_grad_(i == wanted) for i, v in enumerate(values)]
        clip_loss(*some, chunk=2).backward()
        assert [x.grad is not None for x in some] == [i == wanted for i in range(3)]
        torch.testing.assert_close(some[wanted].grad, whole[wanted].grad)


def test_a_sample_that_takes_no_part_may_hold_anything() -> None:
    image, text = unit(4, 3, 0), unit(4, 3, 1)
    valid = torch.tensor([True, False, True, True])
    image[1], text[1] = torch.nan, torch.inf
    image.requires_grad_()
    loss = clip_loss(image, text, 10.0, Pairs(valid_B=valid))
    loss.backward()
    torch.testing.assert_close(loss, clip_loss(image.detach()[valid], text[valid], 10.0))
    assert image.grad[1].tolist() == [0, 0, 0]
    assert bool(image.grad[valid].abs().sum() > 0)


@pytest.mark.parametrize("pairs", [Pairs(valid_B=torch.zeros(3, dtype=torch.bool)), Pairs(weights_B=torch.zeros(3))])
def test_without_any_sample_the_loss_and_its_gradients_are_zero(pairs: Pairs) -> None:
    given_ = leaves(unit(3, 4, 0), unit(3, 4, 1), 10.0)
    loss = clip_loss(*given_, pairs)
    loss.backward()
    assert loss.item() == 0
    assert all(x.grad.abs().sum().item() == 0 for x in given_)


def test_a_batch_of_one_meaning_has_no_negatives_to_push_away() -> None:
    image = torch.eye(4).requires_grad_()
    text = torch.nn.functional.normalize(torch.ones(4, 4), dim=1)
    clip_loss(image, text, 10.0, Pairs(positive_BK=keys_of(["same"] * 4))).backward()
    assert float(image.grad.abs().max()) < 1e-6


def test_two_images_of_one_study_are_not_negatives_of_each_other() -> None:
    studies = keys_of(["s1", "s1", "s2"])
    pulls = []
    for pairs in (None, Pairs(ignored_BK=studies), Pairs(positive_BK=studies)):
        image, text = unit(3, 8, 0).requires_grad_(), torch.eye(8)[:3]
        clip_loss(image, text, 5.0, pairs).backward()
        pulls.append(float(-image.grad[0] @ text[1]))  # how a step moves image 0 towards the text of image 1
    assert pulls[0] < -0.01
    assert abs(pulls[1]) < 1e-6
    assert pulls[2] > 0.01


def test_half_precision_features_are_computed_in_float32_also_under_autocast() -> None:
    image, text = unit(4, 8, 0).bfloat16().requires_grad_(), unit(4, 8, 1).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = clip_loss(image, text, 100.0)
    loss.backward()
    assert loss.dtype == torch.float32
    assert image.grad.dtype == torch.bfloat16
    wide = image.detach().float().requires_grad_()
    expected = clip_loss(wide, text.float(), 100.0)
    expected.backward()
    torch.testing.assert_close(loss, expected, atol=0, rtol=0)
    torch.testing.assert_close(image.grad, wide.grad.bfloat16(), atol=0, rtol=0)


def test_the_scale_may_be_a_parameter_of_one_element_and_gets_its_gradient_in_that_shape() -> None:
    log_scale = torch.nn.Parameter(torch.tensor([2.0]))
    clip_loss(unit(4, 8, 0), unit(4, 8, 1), log_scale.exp()).backward()
    assert log_scale.grad.shape == (1,)
    assert float(log_scale.grad.abs()) > 0


def test_nothing_is_kept_for_a_backward_pass_that_cannot_come() -> None:
    image = unit(4, 8, 0).requires_grad_()
    with torch.no_grad():
        assert clip_loss(image, unit(4, 8, 1), 10.0).grad_fn is None
    assert clip_loss(image.detach(), unit(4, 8, 1), 10.0).grad_fn is None


def test_a_second_derivative_is_refused_rather_than_wrong() -> None:
    image = unit(4, 8, 0).requires_grad_()
    (first,) = torch.autograd.grad(clip_loss(image, unit(4, 8, 1), 10.0), image, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        first.sum().backward()


def test_features_of_different_sizes_and_a_chunk_of_no_rows_are_refused() -> None:
    eye = torch.eye(3)
    for image, text, chunk in ((eye, torch.eye(4), 8), (eye[0], eye[0], 8), (eye, eye, 0)):
        with pytest.raises(MedclipError) as caught:
            clip_loss(image, text, 1.0, chunk=chunk)
        assert caught.value.reason is Reason.WRONG_USE


@pytest.mark.golden
@pytest.mark.parametrize("chunk", [1, 3, 1024])
def test_the_loss_and_its_gradients_equal_the_golden_vectors(golden: Path, chunk: int) -> None:
    stored = np.load(golden / CORE, allow_pickle=False)
    cases = sorted({key.split("/")[1] for key in stored if key.startswith("clip/")})
    assert cases
    for case in cases:
        names = ("image", "text", "scale")
        given_ = leaves(*(torch.tensor(stored[f"clip/{case}/{name}"]) for name in names))
        loss = clip_loss(*given_, chunk=chunk)
        loss.backward()
        check_golden(loss, stored[f"clip/{case}/loss"])
        for tensor, name in zip(given_, names, strict=True):
            check_golden_gradient(tensor, stored[f"clip/{case}/grad_{name}"])


@pytest.mark.golden
def test_the_loss_of_the_whole_batch_equals_the_mean_of_the_golden_ranks(golden: Path) -> None:
    stored = np.load(golden / CORE, allow_pickle=False)
    loss = clip_loss(*(torch.tensor(stored[f"sharded/{k}"]) for k in ("image", "text", "scale")), chunk=3)
    check_golden(loss, stored["sharded/full"])
    check_golden(loss, stored["sharded/local"].mean())


@pytest.mark.golden
def test_the_contrastive_part_of_coca_equals_the_golden_vectors(golden: Path) -> None:
    stored = np.load(golden / "clip_coca_loss.npz", allow_pickle=False)
    image, text = leaves(torch.tensor(stored["image_features"]), torch.tensor(stored["text_features"]))
    loss = clip_loss(image, text, float(stored["logit_scale"]), chunk=5)
    loss.backward()
    check_golden(loss, stored["clip_loss"])
    check_golden(loss, stored["coca_contrastive"])
    check_golden_gradient(image, stored["clip_grad_image"])


@pytest.mark.golden
def test_the_summed_loss_of_merl_equals_the_golden_vector(golden: Path) -> None:
    stored = np.load(golden / "ecg_vit1d_and_loss.npz", allow_pickle=False)
    ecg, report = (torch.nn.functional.normalize(torch.tensor(stored[f"loss_{k}"]), dim=1) for k in "ab")
    check_golden(2 * clip_loss(ecg, report, 1 / 0.07), stored["merl_clip_loss"])


def test_a_feature_of_the_source_alone_gets_no_gradient_where_other_sources_are_no_negatives() -> None:
    """Films of two sites, ill and well at both; images and texts tell nothing but the site apart."""
    sites = torch.tensor([0, 0, 1, 1])
    image, text = (torch.nn.functional.one_hot(sites, 3).float().requires_grad_() for _ in range(2))
    films = keys_of(["xray"] * 4, ["here", "here", "there", "there"])
    scale = torch.tensor(5.0, requires_grad=True)
    loss = clip_loss(image, text, scale, Pairs(sources_B2=films))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(2)), "of two films of a site nobody knows whose text is whose"
    assert float(scale.grad) == pytest.approx(0, abs=1e-7)
    # A step along the site's own direction, which would make sites easier to tell apart, changes nothing.
    along_the_site = (image.grad * torch.nn.functional.one_hot(sites, 3)).sum(1)
    assert along_the_site.tolist() == pytest.approx([0] * 4, abs=1e-7)
    same = torch.nn.functional.normalize(torch.ones(4, 3), dim=1)
    paid = [float(clip_loss(x, x, 5.0)) for x in (same, image.detach())]
    assert paid == pytest.approx([math.log(4), math.log(2)], abs=0.01), "with negatives of the other site the site pays"
    assert float(clip_loss(same, same, 5.0, Pairs(sources_B2=films))) == pytest.approx(math.log(2))


def test_images_of_another_kind_are_negatives_whatever_their_source() -> None:
    eye = torch.eye(2)
    apart = Pairs(sources_B2=keys_of(["xray", "mri"], ["here", "there"]))
    assert float(clip_loss(eye, eye, 5.0, apart)) == float(clip_loss(eye, eye, 5.0))
    unknown = Pairs(sources_B2=keys_of(["xray", ""], ["here", "there"]))
    assert float(clip_loss(eye, eye, 5.0, unknown)) == pytest.approx(0, abs=1e-6)


def test_a_positive_of_another_source_stays_one() -> None:
    image, text = unit(4, 6, 0), unit(4, 6, 1)
    ill = keys_of(["ill", "well", "ill", "well"])
    sources = keys_of(["xray"] * 4, ["here", "here", "there", "there"])
    both = clip_loss(image, text, 5.0, Pairs(positive_BK=ill, sources_B2=sources))
    torch.testing.assert_close(
        both.double(),
        dense_clip(
            image.double(), text.double(), torch.tensor(5.0).double(), Pairs(positive_BK=ill, sources_B2=sources)
        ),
    )
    assert float(both) != pytest.approx(float(clip_loss(image, text, 5.0, Pairs(sources_B2=sources))))


def test_a_quoted_text_is_no_positive_of_other_images_with_its_labels_and_a_stated_one_is() -> None:
    """Two ill patients: the caption of the first says so, that of the second is the words of her own report."""
    image, text = unit(2, 6, 0), unit(2, 6, 1)
    pairs = Pairs(positive_BK=keys_of(["ill", "ill"]), text_positive_BK=keys_of(["ill", ""]))
    logits = 5 * image @ text.T
    both, own = logits.logsumexp(1), logits[0, 0]
    of_images = ((both[0] - own) + (both[1] - logits[1].mean())) / 2
    columns = logits.logsumexp(0)
    of_texts = ((columns[0] - logits[:, 0].mean()) + (columns[1] - logits[1, 1])) / 2
    torch.testing.assert_close(clip_loss(image, text, 5.0, pairs), (of_images + of_texts) / 2)
