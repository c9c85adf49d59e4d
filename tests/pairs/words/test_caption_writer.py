from __future__ import annotations

import pytest

from medclip.errors import MedclipError, Reason
from medclip.pairs.words.caption_writer import ask_writer, facts_of, load_writer
from medclip.sample import Modality
from medclip.text.captions.record import CaptionRecord


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


@pytest.mark.parametrize("text", ["raise ValueError('no key')", "import sys; sys.exit(3)", "def write(: pass"])
def test_a_module_that_fails_is_wrong_use_and_named(tmp_path, monkeypatch, text):
    name = f"failing_writer_{len(text)}"
    (tmp_path / f"{name}.py").write_text(text + "\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MedclipError, match=f"{name}:write.*(ValueError|SystemExit|SyntaxError)") as caught:
        load_writer(f"{name}:write")
    assert caught.value.reason is Reason.WRONG_USE


@pytest.mark.parametrize(
    ("given", "kind"),
    [("One long text.", "TypeError"), (None, "TypeError"), ([b"x"], "TypeError"), (ValueError("x"), "ValueError")],
)
def test_a_writer_gives_a_list_of_texts_or_is_named_in_an_error(given, kind):
    def writer(facts, n):
        if isinstance(given, Exception):
            raise given
        return given

    with pytest.raises(MedclipError, match=f"test_caption_writer:.*writer.*{kind}") as caught:
        ask_writer(writer, facts_of(CaptionRecord(None)), 2)
    assert caught.value.reason is Reason.WRONG_USE


def test_what_a_writer_prints_goes_to_standard_error(capsys):
    def writer(facts, n):
        print("thinking")
        return (f"caption {i}" for i in (1, 1, 2, 3))

    assert ask_writer(writer, facts_of(CaptionRecord(None)), 2) == ("caption 1", "caption 2")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "thinking\n")
