from __future__ import annotations

import numpy as np
import pytest

from medclip.pairs.words.reports.hard_negatives import (
    Edit,
    edits_of,
    fault_of,
    num_contradicted,
    text_of_labels,
)
from medclip.text.vocabulary.load import load_task

TASK = "chest_xray_findings"
NAMES = [c.name for c in load_task(TASK).classes]


def kinds(text):
    return {(e.kind, e.entity, e.before, e.after) for e in edits_of(text, "xray")}


def test_of_a_thousand_label_vectors_every_change_contradicts_exactly_one_label():
    rng = np.random.default_rng(0)
    num = 0
    for _ in range(1000):
        chosen = rng.permutation(NAMES)[: int(rng.integers(1, len(NAMES)))]
        labels = {TASK: {str(name): int(rng.integers(2)) for name in chosen}}
        text, edits = text_of_labels(labels, rng)
        assert num_contradicted(text, labels) == 0
        for edit in edits:
            negative, start, end = edit.written(text)
            assert negative != text
            assert num_contradicted(negative, labels) == 1
            assert negative[start:end] == edit.new
            assert edit.entity in labels[TASK]
            num += 1
    assert num > 5000


def test_a_label_with_one_answer_is_contradicted_once():
    labels = {"breast_density": load_task("breast_density").classes[0].name}
    text, edits = text_of_labels(labels, np.random.default_rng(0))
    assert num_contradicted(text, labels) == 0
    assert [num_contradicted(e.written(text)[0], labels) for e in edits] == [1]


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        ("Small pleural effusion.", ("presence", "effusion", "present", "absent")),
        ("No pneumothorax.", ("presence", "pneumothorax", "absent", "present")),
        ("No pneumothorax, effusion or consolidation.", ("presence", "effusion", "absent", "present")),
        ("Left pleural effusion.", ("side", "effusion", "left", "right")),
        ("Nodule in the upper lobe.", ("location", "nodule", "upper", "lower")),
        ("Mild cardiomegaly.", ("severity", "cardiomegaly", "mild", "moderate")),
        ("Two nodules in the lung.", ("count", "nodule", "two", "three")),
        ("A pacemaker is seen.", ("device", "pacemaker", "present", "absent")),
    ],
)
def test_each_kind_of_change_is_seen(text, edit):
    assert edit in kinds(text)


def test_what_would_change_more_than_one_thing_or_nothing_that_is_known_is_left():
    assert not {k for k in kinds("Left and right effusions.") if k[0] == "side"}
    assert not {k for k in kinds("Small effusion. Moderate effusion.") if k[0] == "presence"}
    assert not kinds("The aorta is mildly tortuous.")


def test_a_denial_is_taken_out_of_its_list_and_the_others_stay():
    (edit,) = [e for e in edits_of("No pneumothorax, effusion or mass.", "xray") if e.entity == "effusion"]
    assert edit.written("No pneumothorax, effusion or mass.", "Large effusion.") == (
        "No pneumothorax or mass. Large effusion.",
        25,
        40,
    )
    assert edit.lends == "No effusion."


def test_an_edited_text_that_is_no_hard_negative_is_refused_with_its_reason():
    text = "Small effusion. Clear lungs otherwise today here."
    edit = Edit("presence", "effusion", "present", "absent", 0, 15, "Small effusion.")
    assert fault_of(text, text, edit, "xray") == "unchanged"
    assert fault_of(text, "No effusion.", edit, "xray") == "length"
    assert fault_of(text, text.replace("Small", "No"), edit, "xray") is None
    assert fault_of(text, text.replace("Small effusion", "No mass"), edit, "xray") == "not_one_change"
    unknown = Edit("presence", "hernia", "present", "absent", 0, 15, "Small effusion.")
    assert fault_of(text, text.replace("Small", "No"), unknown, "xray") == "unknown_entity"


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


@pytest.mark.parametrize(
    ("clear", "is_offered"),
    [
        ("No acute cardiopulmonary abnormality.", False),
        ("No acute or active cardiac, pulmonary or pleural disease.", False),
        ("The lungs are clear.", False),
        ("Heart size is within normal limits.", True),
        ("No pneumothorax.", True),
    ],
)
def test_a_finding_is_put_in_only_where_no_sentence_says_that_nothing_is_wrong(clear, is_offered):
    assert (("presence", "effusion", "absent", "present") in kinds(f"No effusion. {clear}")) is is_offered
    assert ("presence", "effusion", "present", "absent") in kinds(f"Small effusion. {clear}")
