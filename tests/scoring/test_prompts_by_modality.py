"""A bare prompt is put into the sentences of a modality, and one modality's vectors are never those of another."""

from __future__ import annotations

import numpy as np

from medclip.models.packs.pack import load_model
from medclip.sample import Modality
from medclip.scoring.tasks import AskedTask, Scorer
from medclip.text.vocabulary.own_words import ad_hoc_task, read_prompts


def test_each_modality_has_its_own_class_vectors_in_whatever_order_they_are_asked() -> None:
    model = load_model("medclip-mini")
    prompts = read_prompts("pneumonia")
    asked = AskedTask(ad_hoc_task(prompts), None, None, False, prompts, True, chosen=True)
    both = (Modality.XRAY, Modality.CT)
    alone = {modality: Scorer(model).vectors(asked, modality).positive for modality in both}
    assert not np.allclose(alone[Modality.XRAY], alone[Modality.CT])
    scorer = Scorer(model)
    for modality in (*both, *both):
        np.testing.assert_array_equal(scorer.vectors(asked, modality).positive, alone[modality])
    spreads = {modality: scorer.spreads(np.ones((1, 1, model.dim), np.float32), asked, modality) for modality in both}
    assert not np.array_equal(spreads[Modality.XRAY][0][0], spreads[Modality.CT][0][0])
