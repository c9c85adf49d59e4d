"""What ECG reports and codes state: the 71 SCP-ECG statements of PTB-XL, and reports cleaned to learn from.

The benchmark of PTB-XL has five levels: all (71), diagnostic (44), subclass (23), superclass (5), form (19) and rhythm
(12); four diagnoses are forms as well. English wordings, SCP and SNOMED CT codes are those of the vocabulary (task
`ecg_all`); the German ones are here. Statements of other sets (PhysioNet/CinC 2020 and 2021: CPSC2018, Georgia,
Chapman-Shaoxing, Ningbo) are SNOMED CT codes, which `code_of_snomed` turns into these.

Grouping: Wagner et al., PTB-XL, Sci Data 2020;7:154. Codes: Perez Alday et al., Physiol Meas 2020;41:124003.

Cleaning follows MERL's rules for the machine statements of MIMIC-IV-ECG: joined by ". ", lower case, "ekg" as "ecg", no
asterisks or equals signs, nothing of fewer than four words (Liu et al., ICML 2024). The reports of PTB-XL are German,
English and Swedish; three German words can be a whole report ("sinusrhythmus normales ekg"), so two are enough there,
and "ekg" stays, which is their own word. What is taken out besides says nothing of the record, or too much: the cart
and its version, "unbestätigter bericht", "unconfirmed", who confirmed it, drugs and doses as far as they are known, and
what PTB-XL's editors appended ("Edit: LVH 100"): that is the label itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from medclip.text.vocabulary.load import load_task
from medclip.text.vocabulary.task import TaskClass

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


TASKS = ("ecg_all", "ecg_diagnostic", "ecg_subclass", "ecg_superclass", "ecg_form", "ecg_rhythm")
"""Tasks of the vocabulary that are labelled with these statements."""
_GROUPED = ("ecg_subclass", "ecg_superclass")


@dataclass(frozen=True)
class Statement:
    """One SCP-ECG statement as PTB-XL uses it."""

    code: str
    superclass: str = ""
    """NORM, MI, STTC, CD or HYP; empty where it is no diagnosis."""
    subclass: str = ""
    form: bool = False
    rhythm: bool = False
    german: tuple[str, ...] = ()
    """Ways to say it in a German report."""

    @property
    def diagnostic(self) -> bool:
        """Whether it is one of the 44 diagnoses."""
        return bool(self.superclass)

    @property
    def vocabulary(self) -> TaskClass:
        """Its class of the task `ecg_all`: name, title, English wordings and codes."""
        return _classes("ecg_all")[self.code]

    @property
    def english(self) -> tuple[str, ...]:
        """Ways to say it in an English report, with their articles."""
        return self.vocabulary.nouns


_TABLE = """
NORM|NORM|NORM||normales EKG; unauffälliges EKG; EKG im Normbereich
NDT|STTC|STTC|form|T-Wellen-Veränderung ohne diagnostischen Wert; unspezifisch veränderte T-Wellen
NST_|STTC|NST_|form|unspezifische ST-Veränderungen; geringe ST-Veränderungen
DIG|STTC|STTC|form|Digitaliseffekt; ST-Veränderungen wie unter Digitalis
LNGQT|STTC|STTC|form|verlängertes QT-Intervall; QT-Verlängerung; lange QT-Zeit
IMI|MI|IMI||inferiorer Infarkt; Hinterwandinfarkt; Infarkt der inferioren Wand
ASMI|MI|AMI||anteroseptaler Infarkt; Vorderwandinfarkt mit Beteiligung des Septums
LVH|HYP|LVH||linksventrikuläre Hypertrophie; Linkshypertrophie
LAFB|CD|LAFB/LPFB||linksanteriorer Hemiblock; linksanteriorer Faszikelblock
ISC_|STTC|ISC_||ischämische ST-T-Veränderungen; Zeichen der Myokardischämie
IRBBB|CD|IRBBB||inkompletter Rechtsschenkelblock; unvollständiger Rechtsschenkelblock
1AVB|CD|_AVB||AV-Block I. Grades; AV-Block ersten Grades
IVCD|CD|IVCD||unspezifische intraventrikuläre Leitungsstörung; intraventrikulärer Block
ISCAL|STTC|ISCA||anterolaterale Ischämie; Ischämie anterolateral
CRBBB|CD|CRBBB||kompletter Rechtsschenkelblock; vollständiger Rechtsschenkelblock
CLBBB|CD|CLBBB||kompletter Linksschenkelblock; vollständiger Linksschenkelblock
ILMI|MI|IMI||inferolateraler Infarkt; Infarkt der inferioren und lateralen Wand
LAO/LAE|HYP|LAO/LAE||Belastung des linken Vorhofs; P mitrale
AMI|MI|AMI||Vorderwandinfarkt; anteriorer Infarkt
ALMI|MI|AMI||anterolateraler Infarkt; Vorderseitenwandinfarkt
ISCIN|STTC|ISCI||inferiore Ischämie; Ischämie der Hinterwand
INJAS|MI|AMI||subendokardiale Schädigung anteroseptal; anteroseptaler Innenschichtschaden
LMI|MI|LMI||Seitenwandinfarkt; lateraler Infarkt
ISCIL|STTC|ISCI||inferolaterale Ischämie; Ischämie inferolateral
LPFB|CD|LAFB/LPFB||linksposteriorer Hemiblock; linksposteriorer Faszikelblock
ISCAS|STTC|ISCA||anteroseptale Ischämie; Ischämie anteroseptal
INJAL|MI|AMI||subendokardiale Schädigung anterolateral; anterolateraler Innenschichtschaden
ISCLA|STTC|ISCA||laterale Ischämie; Ischämie der Seitenwand
RVH|HYP|RVH||rechtsventrikuläre Hypertrophie; Rechtshypertrophie
ANEUR|STTC|STTC||ST-T-Veränderungen wie bei Herzwandaneurysma; Hinweis auf Ventrikelaneurysma
RAO/RAE|HYP|RAO/RAE||Belastung des rechten Vorhofs; P pulmonale
EL|STTC|STTC||Veränderungen wie bei Elektrolytstörung; Elektrolyt- oder Medikamentenwirkung
WPW|CD|WPW||WPW-Syndrom; Präexzitation; Wolff-Parkinson-White-Muster
ILBBB|CD|ILBBB||inkompletter Linksschenkelblock; unvollständiger Linksschenkelblock
IPLMI|MI|IMI||inferoposterolateraler Infarkt; Infarkt inferior, posterior und lateral
ISCAN|STTC|ISCA||anteriore Ischämie; Ischämie der Vorderwand
IPMI|MI|IMI||inferoposteriorer Infarkt; Infarkt inferior und posterior
SEHYP|HYP|SEHYP||Septumhypertrophie; Hypertrophie des Septums
INJIN|MI|IMI||subendokardiale Schädigung inferior; inferiorer Innenschichtschaden
INJLA|MI|AMI||subendokardiale Schädigung lateral; lateraler Innenschichtschaden
PMI|MI|PMI||posteriorer Infarkt; streng posteriorer Infarkt
3AVB|CD|_AVB||AV-Block III. Grades; totaler AV-Block
INJIL|MI|IMI||subendokardiale Schädigung inferolateral; inferolateraler Innenschichtschaden
2AVB|CD|_AVB||AV-Block II. Grades; AV-Block zweiten Grades
ABQRS|||form|abnormer QRS-Komplex; auffällige QRS-Form
PVC|||form|ventrikuläre Extrasystole; ventrikuläre Extrasystolen
STD_|||form|ST-Senkung; gesenkte ST-Strecke
VCLVH|||form|Voltage-Kriterien für linksventrikuläre Hypertrophie; Sokolow-Index für Linkshypertrophie positiv
QWAVE|||form|Q-Zacken; pathologische Q-Zacken
LOWT|||form|niedrige T-Wellen; flache T-Wellen
NT_|||form|unspezifische T-Wellen-Veränderungen; geringe T-Wellen-Veränderungen
PAC|||form|supraventrikuläre Extrasystole; supraventrikuläre Extrasystolen
LPR|||form|verlängerte PQ-Zeit; lange PQ-Zeit
INVT|||form|T-Negativierung; negative T-Wellen
LVOLT|||form|periphere und zentrale Niedervoltage; Niedervoltage
HVOLT|||form|hohe QRS-Voltage; hohe QRS-Amplituden
TAB_|||form|abnorme T-Wellen; auffällige T-Wellen
STE_|||form|ST-Hebung; angehobene ST-Strecke
PRC(S)|||form|Extrasystolen; vorzeitige Schläge
SR|||rhythm|Sinusrhythmus; regelmäßiger Sinusrhythmus
AFIB|||rhythm|Vorhofflimmern; absolute Arrhythmie bei Vorhofflimmern
STACH|||rhythm|Sinustachykardie; schneller Sinusrhythmus
SARRH|||rhythm|Sinusarrhythmie; respiratorische Sinusarrhythmie
SBRAD|||rhythm|Sinusbradykardie; langsamer Sinusrhythmus
PACE|||rhythm|Schrittmacherrhythmus; Schrittmacher-EKG
SVARR|||rhythm|supraventrikuläre Arrhythmie; supraventrikuläre Rhythmusstörung
BIGU|||rhythm|Bigeminus; Bigeminie
AFLT|||rhythm|Vorhofflattern; typisches Vorhofflattern
SVTAC|||rhythm|supraventrikuläre Tachykardie; Schmalkomplextachykardie
PSVT|||rhythm|paroxysmale supraventrikuläre Tachykardie; Anfall von supraventrikulärer Tachykardie
TRIGU|||rhythm|Trigeminus; Trigeminie
"""

_OTHER_SNOMED = {
    "164909002": "CLBBB",
    "59118001": "CRBBB",
    "17338001": "PVC",
    "63593006": "PAC",
    "164884008": "PVC",
    "11157007": "BIGU",
    "251173003": "BIGU",
    "251168009": "BIGU",
    "251180001": "TRIGU",
    "10370003": "PACE",
    "251266004": "PACE",
    "251268003": "PACE",
    "54016002": "2AVB",
    "426183003": "2AVB",
    "54329005": "AMI",
    "195060002": "WPW",
    "253352002": "LAO/LAE",
    "446813000": "LAO/LAE",
    "253339007": "RAO/RAE",
    "713422000": "SVTAC",
    "251166008": "SVTAC",
    "233897008": "SVTAC",
}
"""Codes of the challenge that say what a statement says, besides the statement's own. The challenge scores the first
four as one with it. It writes the code of an acute anterior infarction for anterior ones of any age: read as one, that
is right; as the code of the class it would say more than the class does. Its nonspecific ST-T abnormality is none of
the 71: it says neither which of ST and T is changed nor how."""


@cache
def statements() -> Mapping[str, Statement]:
    """Return all 71 by their codes, in the order of PTB-XL's table."""
    rows = {}
    for line in _TABLE.strip().splitlines():
        code, superclass, subclass, kind, german = line.split("|")
        words = tuple(w.strip() for w in german.split(";"))
        rows[code] = Statement(code, superclass, subclass, kind == "form", kind == "rhythm", words)
    return MappingProxyType(rows)


def labels_of(codes: Iterable[str], tasks: Iterable[str] = TASKS) -> dict[str, dict[str, int]]:
    """Label a record with all classes of tasks.

    Args:
        codes: SCP-ECG statements of the record; others than the 71 are passed over.
        tasks: Tasks of the vocabulary.

    Returns:
        0 or 1 by task and class: a statement that is not listed is absent, as the benchmark of PTB-XL has it.

    Example:
        >>> labels_of(["IMI", "SR"], ["ecg_superclass"])
        {'ecg_superclass': {'norm': 0, 'mi': 1, 'sttc': 0, 'cd': 0, 'hyp': 0}}
    """
    stated = [statements()[c] for c in codes if c in statements()]
    listed = {s.code for s in stated}
    groups = {"ecg_superclass": {s.superclass for s in stated}, "ecg_subclass": {s.subclass for s in stated}}
    return {
        task: {c.name: int(code in groups.get(task, listed)) for code, c in _classes(task).items()} for task in tasks
    }


def labels_of_list(codes: Iterable[str], listed: Iterable[str]) -> dict[str, dict[str, int]]:
    """Label a record of which only the statements of a list were looked for.

    Args:
        codes: SCP-ECG statements of the record.
        listed: Statements that were looked for.

    Returns:
        0 or 1 by task and class for the statements of the list; nothing for others, nor for their groups.
    """
    looked_for, present = set(listed), set(codes)
    tasks = {
        task: {code: c.name for code, c in _classes(task).items() if code in looked_for}
        for task in TASKS
        if task not in _GROUPED
    }
    return {
        task: {name: int(code in present) for code, name in names.items()} for task, names in tasks.items() if names
    }


def code_of_snomed(snomed: str) -> str | None:
    """Return the statement that a SNOMED CT code of the PhysioNet/CinC challenges means; None where it is none of them.

    Example:
        >>> code_of_snomed("164889003"), code_of_snomed("164909002"), code_of_snomed("39732003")
        ('AFIB', 'CLBBB', None)
    """
    return _by_snomed().get(snomed.strip())


@cache
def _by_snomed() -> Mapping[str, str]:
    codes = {c.codes["sct"]: code for code, c in _classes("ecg_all").items() if "sct" in c.codes}
    return codes | _OTHER_SNOMED


@cache
def _classes(task: str) -> Mapping[str, TaskClass]:
    """Return the classes of a task by the SCP-ECG code of each."""
    return {c.codes["scp"]: c for c in load_task(task).classes}
