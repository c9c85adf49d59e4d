from __future__ import annotations

import pytest

from medclip.pairs.words.hard_negatives import edits_of


@pytest.mark.parametrize(
    "text",
    [
        "Mild left effusion. Clear apices. Left effusion.",
        "Nodule in the upper lobe. Upper lobe nodule.",
        "Two nodules in the lung. Small nodules.",
    ],
)
def test_no_word_is_swapped_of_a_finding_that_another_sentence_names(text):
    assert not edits_of(text, "xray")
    first = text.split(". ")[0] + "."
    assert edits_of(first, "xray"), "alone it has a change"
