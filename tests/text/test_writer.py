from __future__ import annotations

import pytest

from medclip.errors import MedclipError, Reason
from medclip.sample import Modality
from medclip.text.record import CaptionRecord
from medclip.text.writer import facts_of, load_writer


def test_facts_are_plain_words_and_nothing_of_the_patient():
    record = CaptionRecord(
        Modality.XRAY,
        age_years=61.0,
        sex="M",
        labels={"chest_xray_view": "ap", "chest_xray_findings": {"effusion": 1, "mass": 0}},
        texts=("Secret words.",),
    )
    facts = facts_of(record)
    assert (facts.modality, facts.image, facts.view) == ("X-ray", "chest X-ray", "AP view")
    assert (facts.present, facts.absent) == (("pleural effusion",), ("a lung mass",))
    assert "61" not in repr(facts)
    assert "Secret" not in repr(facts)
    assert facts_of(CaptionRecord(None)).modality == ""


def test_a_writer_is_found_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "writer_of_a_test.py").write_text("def write(facts, n):\n    return ['x'] * n\n")
    monkeypatch.chdir(tmp_path)
    assert list(load_writer("writer_of_a_test:write")(facts_of(CaptionRecord(None)), 2)) == ["x", "x"]


@pytest.mark.parametrize("name", ["", "json", ":dumps", "no_such_module_here:f", "json:no_such", "json:__doc__"])
def test_a_writer_that_is_not_there_is_wrong_use(name):
    with pytest.raises(MedclipError) as caught:
        load_writer(name)
    assert caught.value.reason is Reason.WRONG_USE
