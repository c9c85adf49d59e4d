"""Questions with their answers become statements that say the same, or none."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from medclip.text.captions.quoted_words import statement_of


@pytest.mark.parametrize(
    ("question", "answer", "statement"),
    [
        ("Is the heart enlarged?", "No", "the heart is not enlarged"),
        ("Is the pelvis of the left kidney dilated?", "yes", "the pelvis of the left kidney is dilated"),
        ("Is/Are there a pneumothorax?", "no", "there is no pneumothorax"),
        ("Are there any fractures present in this image?", "No", "there are no fractures present"),
        ("Do you see a pleural effusion?", "Yes", "there is pleural effusion"),
        ("Is this a CT scan of the abdomen?", "no", "this is not a ct scan of the abdomen"),
        ("Is this image abnormal?", "No", "this image is not abnormal"),
        ("Is/Are the mass calcified? -yes/no", "No", "the mass is not calcified"),
        ("What is the shape of the mass?", "Elliptical", "the shape of the mass is elliptical"),
        ("Where is/are the abscess located?", "descending colon", "the abscess is located: descending colon"),
        ("What imaging modality is used?", "CT", "the image is a ct"),
        ("What imaging modality is used?", "MRI", "the image is an mri"),
        ("In what plane was this image taken?", "Axial plane", "the plane is axial"),
    ],
)
def test_a_question_and_its_answer_become_a_statement(question: str, answer: str, statement: str) -> None:
    assert statement_of(question, answer) == statement


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Is there no evidence of blunting of the costophrenic angles?", "yes"),  # a denial of a denial
        ("Is the lesion on the left or the right?", "yes"),
        ("Why is the left hemithorax more lucent?", "decreased muscle bulk"),
        ("Is this patient intubated?", "No"),
        ("What is the most likely diagnosis?", "pneumonia"),
        ("Is anything irregular in this image?", "Yes"),
        ("Is the heart enlarged?", ""),
    ],
)
def test_what_cannot_be_turned_around_is_left_out(question: str, answer: str) -> None:
    assert statement_of(question, answer) is None


@pytest.mark.shared
def test_two_in_three_answers_of_vqa_rad_become_statements_and_no_denial_loses_its_no(shared: Path) -> None:
    with (shared / "data/vqa_rad/qa.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    statements = [(row, statement_of(row["question"], row["answer"])) for row in rows]
    turned = [(row, statement) for row, statement in statements if statement is not None]
    assert len(turned) > len(rows) * 2 / 3
    assert all(len(statement.split()) <= 24 and "?" not in statement for _, statement in turned)
    denied = [statement for row, statement in turned if row["answer"].strip().lower() == "no"]
    assert len(denied) > 400
    assert all({"no", "not"} & set(statement.split()) for statement in denied)
