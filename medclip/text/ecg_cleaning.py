"""Reports of electrocardiograms as text to learn from: statements joined, boilerplate and later edits taken out.

Follows MERL's rules for the machine statements of MIMIC-IV-ECG: joined by ". ", lower case, "ekg" as "ecg", no
asterisks or equals signs, nothing of fewer than four words (Liu et al., ICML 2024). The reports of PTB-XL are German,
English and Swedish; three German words can be a whole report ("sinusrhythmus normales ekg"), so two are enough there,
and "ekg" stays, which is their own word. What is taken
out besides says nothing of the record, or too much: the cart and its version, "unbestätigter bericht", "unconfirmed",
who confirmed it, drugs and doses as far as they are known, and what PTB-XL's editors appended ("Edit: LVH 100"): that
is the label itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

ENGLISH, GERMAN, SWEDISH = "en", "de", "sv"
LANGUAGES = (ENGLISH, GERMAN, SWEDISH)
MIN_WORDS = {ENGLISH: 4, GERMAN: 2, SWEDISH: 2}
EMPTY, SHORT, NO_READING = "no report", "too short", "no reading of the record"

_WORDS = {
    ENGLISH: "rhythm|ecg|atrial|bundle|branch|left|right|axis|waves?|with|the|and|or|are|is|leads|of|premature|infarct"
    "|tachycardia|bradycardia|flutter|deviation|paced",
    GERMAN: "sinusrhythmus|vorhof\\w*|normales|linkstyp|rechtstyp|lagetyp|unauffälliges|und|oder|mit|sonst|der|bei"
    "|wahrscheinlich|möglich|alter|infarkt|ischämie|verdacht|ventrikuläre|schrittmacher\\w*|frequenz|arrhythmie"
    "|\\w*extrasystolen?|pacemaker ekg|\\w*schenkelblock|\\w*rhythmus|\\w*hypertrophie|\\w*bradykardie|\\w*tachykardie",
    SWEDISH: "sinusrytm|förmaks\\w*|normalt|vänster|höger\\w*|skänkelblock|och|eller|ej|såsom|vid|el-axel|avvikande"
    "|eljest|ålder|\\w*förändring\\w*|sinusbradykardi|sinustakykardi|sannolikt|\\w*extrasystoli",
}
_SPEAKS = {language: re.compile(rf"\b(?:{words})\b") for language, words in _WORDS.items()}
_EDIT = re.compile(r"\bedit\s*:.*", re.S)
_UNCONFIRMED = re.compile(
    r"(?:\b\d\.\d{2}\s+)?\bunbestä\w*(?:\s+beri\w*)?|\s\d\.\d{2}\s*$"
    r"|\bobekräftad\w*(?:\s+rapport)?"
    r"|\bunconfirmed(?:\s+(?:report|diagnosis|analysis|interpretation|ecg))?"
    r"|\b(?:confirmed|reviewed|edited|overread|interpreted|signed|referred|ordered|requested)\s+by\b"
    r"[:\s]*(?:dr\.?\s|prof\.?\s|[a-z]\.\s?)*(?:m\.\s?d\.|[^.])*"
    r"|\b(?:bestätigt|befundet|freigegeben)\s+(?:von|durch)\b\s*(?:dr\.?\s|prof\.?\s|med\.?\s|[a-z]\.\s?)*[^.]*"
    r"|\b(?:befund(?:er|et)?:?\s+)?(?:(?:dr|prof)\.\s?)+(?:med\.\s?|[a-z]\.\s?)*[^\W\d_][\w-]*"
    r"|\b(?:technician|physician|arzt|ärztin|mta)\s*:[^.]*"
)
"""Also cut off in the middle, as reports of a fixed length are: "4.46   unbestäti"; and names of people."""
_BOILERPLATE = re.compile(
    r"(?:report|interpretation) (?:is )?made without (?:knowing|knowledge of) (?:the )?patient'?s? \w+(?:[/ ]\w+)?"
    r"|warning[: ]+data quality may affect interpretation"
    r"|(?:suggest )?clinical correlation(?: is)?(?: suggested| advised)?"
    r"|compared (?:to|with) (?:the )?(?:previous|prior) (?:tracing|ecg|study)[^.]*"
    r"|since (?:the )?(?:previous|last) (?:tracing|ecg)[^.]*|klinisch korrelieren"
)
_DEVICE = re.compile(
    r"\b(?:cs-?12|cs-?100|cs\s?12\s?e|at-\d+\w*|at-60 ?\d?|mac ?\d{3,4}\w*|cardiovit\S*|cardiofax\S*|megacart\S*"
    r"|12sl(?:tm)?|marquette|schiller|hellige|mortara|burdick|siemens)\b"
)
_DRUGS = re.compile(
    r"(?:\bunter\s+)?(?:\d\s?x\s?\d\s+)?\b(?:cordichin|chinidin|novodigal|novod\.?|tensobon|isoptin|tromcardin|ass"
    r"|lanitop|lanicor|beloc|sotalex|tambocor|rytmonorm|cordarex|marcumar|lasix|nitrolingual|adalat|verapamil)\b\s*:?"
    r"|\b\d\s?x\s?\d+(?:[.,/]\d+)?|\b\d+(?:[.,]\d+)?\s?(?:mg|amp)\b|\b\d-\d-\d\b"
)
"""Names and doses as the notes of PTB-XL have them; digitalis stays, the record shows it."""
_NO_READING = re.compile(r"^(?:trace only requested|all 12 leads are missing|no ecg analysis[^.]*|---.*---)\.?$")
_EKG = re.compile(r"\bekg(s?)\b")


@dataclass(frozen=True)
class CleanedReport:
    """A report that may be learned from, or why it may not."""

    text: str
    """In lower case; empty where it is left out."""
    language: str
    """en, de or sv; empty where that cannot be told."""
    left_out: str = ""
    """Why; empty for a text that stays."""
    had_edit: bool = False
    """Whether an editor's labels stood at its end."""


def clean_report(report: str | Sequence[str]) -> CleanedReport:
    """Clean a report.

    Args:
        report: The text, or the statements of a machine in their order.

    Example:
        >>> clean_report(["Sinus rhythm", "*** Left axis deviation ***", "", "Abnormal EKG"]).text
        'sinus rhythm. left axis deviation. abnormal ecg'
        >>> clean_report("sinusrhythmus normales ekg    4.46      unbestÄtigter bericht").text
        'sinusrhythmus normales ekg'
        >>> clean_report("Sinus rhythm.").left_out
        'too short'
    """
    text = report if isinstance(report, str) else ". ".join(s.strip(" .") for s in report if s.strip(" ."))
    text = re.sub(r"[*=]+", " ", text.lower())
    had_edit = bool(_EDIT.search(text))
    for pattern in (_EDIT, _BOILERPLATE, _UNCONFIRMED, _DEVICE, _DRUGS):
        text = pattern.sub(" ", text)
    text = _tidy(text)
    language = language_of(text)
    if language not in (GERMAN, SWEDISH):
        text = _EKG.sub(r"ecg\1", text)
    left_out = _reason(text, language)
    return CleanedReport("" if left_out else text, language, left_out, had_edit)


def language_of(text: str) -> str:
    """Return the language of a report, by its words: en, de, sv, or "" where none is known.

    Example:
        >>> language_of("vorhofflimmern, linkstyp"), language_of("sinusrytm normalt ekg"), language_of("12345")
        ('de', 'sv', '')
    """
    counts = {language: len(pattern.findall(text.lower())) for language, pattern in _SPEAKS.items()}
    language = max(counts, key=lambda name: counts[name])
    return language if counts[language] else ""


def _tidy(text: str) -> str:
    """Close the gaps that were cut: no run of blanks, no statement without a word, no full stop at the ends."""
    text = re.sub(r"\s+([.,;])", r"\1", " ".join(text.split()))
    sentences = [s.strip(" .,;-") for s in re.split(r"\.\s+|\.$", text)]
    return ". ".join(s for s in sentences if re.search(r"[^\W\d_]{2}|^\d", s) and s)


def _reason(text: str, language: str) -> str:
    if not re.search(r"[^\W\d_]", text):
        return EMPTY
    if _NO_READING.match(text):
        return NO_READING
    return SHORT if len(text.split()) < MIN_WORDS.get(language, MIN_WORDS[ENGLISH]) else ""
