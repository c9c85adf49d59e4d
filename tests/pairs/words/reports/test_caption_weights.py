from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from medclip.pairs.words.reports.caption_weights import (
    Boilerplate,
    caption_weights,
    polarity_fault,
    restored_normals,
    standardised,
    thresholds,
)


def test_weights_are_those_of_the_specification():
    weights = caption_weights(np.array([1.0, 0.0]), np.array([1.0, 0.0]), threshold=-1, temperature=1)
    np.testing.assert_allclose(weights, [0.844638, 0.155362], atol=1e-6)


@given(st.lists(st.floats(-40, 40), min_size=1, max_size=6), st.floats(-3, 3))
def test_weights_sum_to_one_or_are_all_zero(alignment, threshold):
    alignment_K = np.array(alignment)
    weights = caption_weights(alignment_K, np.full(len(alignment), 0.5), threshold=threshold)
    assert np.isclose(weights.sum(), 1.0 if (alignment_K >= threshold).any() else 0.0)
    assert not weights[alignment_K < threshold].any()


def test_a_monotone_change_of_one_modality_leaves_the_scores_of_others():
    cosine, names = np.array([0.1, 0.3, 0.2, 0.6]), ["xray", "xray", "ct", "ct"]
    changed = np.where(np.array(names) == "ct", cosine**3, cosine)
    np.testing.assert_array_equal(standardised(cosine, names)[:2], standardised(changed, names)[:2])
    assert (
        thresholds(standardised(cosine, names), names, 50)["xray"]
        == thresholds(standardised(changed, names), names, 50)["xray"]
    )


def test_a_caption_that_affirms_what_the_report_denies_is_a_conflict():
    assert polarity_fault("Large pneumothorax.", "There is no pneumothorax.", "xray") == "polarity_conflict"
    assert polarity_fault("Large pneumothorax.", "Large left pneumothorax.", "xray") == ""
    assert polarity_fault("Effusion.", "Clear.", "xray", {"effusion": False}) == "polarity_conflict"


def test_what_many_documents_say_is_no_information():
    standard = "the heart and the mediastinum are of a normal size today"
    boilerplate = Boilerplate([standard] * 10 + ["Effusion."])
    assert boilerplate.share(standard) == 1
    assert boilerplate.information("Effusion and pneumothorax.", "xray") == 0.5
    assert boilerplate.information("Effusion, mass, nodule, hernia and edema.", "xray") == 1


def test_normal_rows_come_back_until_their_share_is_within_five_points():
    normal = np.array([True] * 5 + [False] * 5)
    rewritten = np.array([False] * 5 + [True] * 5)
    rows = restored_normals(rewritten, normal)
    rewritten[rows] = True
    assert (rewritten & normal).sum() / rewritten.sum() >= 0.45
    assert rows.tolist() == [0, 1, 2, 3, 4]
    assert not len(restored_normals(np.ones(10, bool), normal))
