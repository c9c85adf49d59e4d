"""Views of one thing drawn to their centre, by the worst of them alone (Omniview tuning).

A centre is a mean of the views in which a view with few alike has more weight, so that it is not that of the commonest
view. The views farthest from it are the hard ones; only those pull. Centres are constants of the loss.

Reference: Ruan et al. 2024, Omniview-Tuning. Centres, hard views and both forms equal the released code, but for
objects of fewer than six views (it needs six: here a view has as many neighbours as there are others) and statistics
in float32 (there in float16).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Form = Literal["pull", "triplet"]


def view_centre(feature_VD: Tensor, neighbours: int = 5) -> Tensor:
    """Return the centre of an object's views, of shape (D,), float32 and not of unit length.

    A view weighs one over its mean cosine with its nearest others.

    Args:
        feature_VD: Features of unit length, one row a view. A row of zeros is padding.
        neighbours: Other views that count; all of them where there are fewer.

    Examples:
        >>> view_centre(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        tensor([1., 0.])
    """
    view_VD = feature_VD.float()
    view_VD = view_VD[view_VD.abs().sum(dim=1) > 0]
    if len(view_VD) < 2:
        return view_VD.sum(dim=0)
    cosine_VV = view_VD @ view_VD.T
    # The nearest of all is the view itself, and is dropped.
    nearest_V = cosine_VV.topk(min(neighbours, len(view_VD) - 1) + 1, dim=1).values[:, 1:].mean(dim=1)
    weight_V = torch.where(nearest_V == 0, 0.0, 1 / (nearest_V + 1e-8))
    total = weight_V.sum()
    if total == 0:
        return view_VD.mean(dim=0)
    return (weight_V / total) @ view_VD


def similarity_to_centre(feature_ND: Tensor, centre_ND: Tensor) -> Tensor:
    """Return the cosine of each view with the centre of its object, of shape (N,), float32."""
    return functional.cosine_similarity(feature_ND.float(), centre_ND.float(), dim=1)


def num_hard_views(num_views: int, hard: float) -> int:
    """Return how many of an object's views are hard: a share of them, one at least; or `hard` itself from 1 on."""
    return int(hard) if hard >= 1 else max(1, math.ceil(hard * num_views))


def hard_views(similarity_V: Tensor, num_hard: int) -> Tensor:
    """Return the places of the views least like the centre, the worst first, of shape (min(num_hard, V),), int64.

    Of equal ones the first is taken first, on every device.
    """
    return torch.argsort(similarity_V, stable=True)[:num_hard]


def view_loss(
    feature_BD: Tensor, object_B: Tensor, centre_OD: Tensor, *, form: Form = "pull", margin: float = 0.3
) -> Tensor:
    """Return the mean of the terms of hard views that are not zero; 0 where there is none.

    Args:
        feature_BD: Features of unit length of the hard views of a batch, which have the gradient.
        object_B: Row of `centre_OD` of each view's object, int64.
        centre_OD: Centres of the objects.
        form: `pull` takes one minus the cosine with the view's centre plus the margin, whose gradient knows no
            margin; `triplet` compares with the nearest centre of another object.
        margin: Distance by which the object's centre is to be nearer than another's, in `triplet`.

    Returns:
        A scalar, float32.

    Examples:
        >>> view_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([0]), torch.tensor([[1.0, 0.0]]))
        tensor(0.3000)
    """
    term_B = view_terms(feature_BD, object_B, centre_OD, form=form, margin=margin)
    return term_B.sum() / (term_B > 0).sum().clamp(min=1)


def view_terms(feature_BD: Tensor, object_B: Tensor, centre_OD: Tensor, *, form: Form, margin: float) -> Tensor:
    """Return the term of each view, of shape (B,), float32: see `view_loss`, which is their mean over those above 0."""
    view_BD, centre_OD = feature_BD.float(), centre_OD.float()
    near_B = 1 - similarity_to_centre(view_BD, centre_OD[object_B])
    if form == "pull":
        return functional.relu(near_B + margin)
    if len(centre_OD) < 2:
        return near_B.sum() * torch.zeros_like(near_B)
    far_B = 1 - similarity_to_centre(view_BD, centre_OD[nearest_other_centre(view_BD, object_B, centre_OD)])
    return functional.relu(near_B - far_B + margin)


def nearest_other_centre(feature_BD: Tensor, object_B: Tensor, centre_OD: Tensor) -> Tensor:
    """Return which centre of another object has the highest dot product with each view, of shape (B,), int64."""
    dot_BO = (feature_BD.float() @ centre_OD.float().T).detach()
    return dot_BO.scatter(1, object_B[:, None], -torch.inf).argmax(dim=1)
