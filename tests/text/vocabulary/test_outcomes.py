"""Labels of a risk: months to an event and of follow-up."""

from __future__ import annotations

import numpy as np
import pytest

from medclip.errors import MedclipError, Reason
from medclip.pairs.sources.labels import distinct_sentences
from medclip.pairs.words.caption_writer import facts_of
from medclip.sample import Modality
from medclip.text.captions.draw import draw_caption
from medclip.text.captions.record import CaptionRecord
from medclip.text.checks.caption_check import check_caption
from medclip.text.vocabulary.task import outcome_of, spoken_labels


@pytest.mark.parametrize(
    ("event", "followup", "label"),
    [
        (14, 60, {"event_months": 14, "followup_months": 60}),
        (14, 14, {"event_months": 14, "followup_months": 14}),
        (0, 3, {"event_months": 0, "followup_months": 3}),
        (None, 60, {"followup_months": 60}),
        (None, 0, {"followup_months": 0}),
        (14, None, {"event_months": 14, "followup_months": 14}),
        (None, None, {}),
    ],
)
def test_an_outcome_has_its_event_only_where_one_was_seen(event, followup, label):
    assert outcome_of(event, followup) == label


@pytest.mark.parametrize(("event", "followup"), [(14, 13), (-1, 60), (None, -1), (-3, None), (14, 2000)])
def test_months_that_cannot_be_are_refused(event, followup):
    with pytest.raises(MedclipError) as refused:
        outcome_of(event, followup)
    assert refused.value.reason is Reason.TABLE_INVALID


def test_no_caption_and_no_check_of_one_reads_what_happened_later():
    later = {"breast_cancer_risk": {"event_months": 14, "followup_months": 60}}
    label = {"mammography_findings": {"mass": 0}}
    record, plain = (CaptionRecord(Modality.MAMMOGRAPHY, labels=labels) for labels in (label | later, label))
    assert facts_of(record) == facts_of(plain)
    for seed in range(40):
        rngs = np.random.default_rng(seed), np.random.default_rng(seed)
        assert draw_caption(record, rngs[0]) == draw_caption(plain, rngs[1])
        assert distinct_sentences(record, 3, rngs[0]) == distinct_sentences(plain, 3, rngs[1])
    assert check_caption("Mammogram without a mass.", record) == ()
    assert check_caption("A normal mammogram.", record), "an event that comes later does not make an image normal"
    assert spoken_labels(label) is label
