"""The words of open sets that may be captions: what is seen, nothing of where it is from or whose it is."""

from __future__ import annotations

from medclip.text.captions import quoted_words


def test_words_that_betray_a_source_are_found_whatever_their_case() -> None:
    for text in (
        "Case courtesy of Dr A, Radiopaedia.org",
        "the chest film of a NIH patient",
        "MIAS database",
        "DDSM case",
        "scanned on a GE Logiq 7",
        "a film taken at the University Hospital",
        "see Figure 1a",
        "nodule (arrow)",
        "images of MedPix",
        "ISIC archive",
        "returned from Wuhan",
        "http://x.org",
        "Can you detect it",
    ):
        assert quoted_words.betrayal_in(text), text
    for text in ("an oval mass with circumscribed margin", "large enhancing lesion", "no pleural effusion"):
        assert quoted_words.betrayal_in(text) is None, text


def test_sentences_of_people_times_and_other_examinations_are_not_quoted() -> None:
    note = (
        "A 65-year-old man was admitted to hospital. There is consolidation of the right lower lobe. "
        "Case courtesy of Dr A. Since yesterday it has worsened."
    )
    assert list(quoted_words.quotable(note)) == ["There is consolidation of the right lower lobe."]
    case = {
        "modality": "CT",
        "caption": "A mass of the liver.",
        "findings": "Ultrasound: a cyst is seen. A solid mass.",
        "diagnosis": "Hepatocellular Carcinoma",
        "plane": "Axial",
        "region": "Abdomen",
    }
    assert list(quoted_words.of_teaching_file(case)) == [
        "A mass of the liver.",
        "A solid mass.",
        "CT of hepatocellular carcinoma.",
        "Axial CT of the abdomen.",
    ]
    assert list(quoted_words.findings_of("Heterogenously enhancing mass with speculated margin; IMLN")) == [
        "Heterogeneously enhancing mass with spiculated margin.",
        "Intramammary lymph node.",
    ]
