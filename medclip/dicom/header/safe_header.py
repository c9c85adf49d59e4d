"""The header values that may leave a file: one table, each with the reason why it names nobody.

Everything else stays inside: names, numbers, dates, UIDs, and all free text, since people write names into it. That
is an allow-list, not de-identification of pixels: see `burned_in`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from medclip.dicom.codecs.transfer_syntax import SYNTAXES
from medclip.dicom.header.read import DicomHeader
from medclip.sample import modality_of_code

_OTHER_MODALITIES = """
AR AS ASMT AU BDUS BI BMD CD CF CP CS CTPROTOCOL DD DF DG DM DOC DS EC EEG EMG EOG EPS FA FID FS HC HD IO IOL IVOCT
KER KO LEN LP LS M3D MA MS NM OAM OPM OPR OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RG RTDOSE RTIMAGE
RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SC SEG SMR SR SRF ST STAIN TEXTUREMAP TG VA VF XA XAPROTOCOL XC XRF
"""
OTHER_MODALITIES = frozenset(_OTHER_MODALITIES.split())
"""Modality codes, also the retired ones (PS3.3, C.7.3.1.1.1), that no row of `medclip.modalities` has."""
_IMAGE_TYPES = """
ORIGINAL DERIVED PRIMARY SECONDARY AXIAL LOCALIZER SCOUT MOSAIC VOLUME LABEL OVERVIEW THUMBNAIL NONE OTHER MPR
PROJECTION MIP REFORMATTED ADC FA TRACEW M P R I ND NORM DIS2D DIS3D FM FS T1 T2 DIFFUSION PERFUSION RESAMPLED
SINGLEPLANE BIPLANE STATIC DYNAMIC GATED TOMO WHOLE BODY EMISSION TRANSMISSION LEFT RIGHT CORONAL SAGITTAL FREQUENCY
TEE STRESS POST_PROCESSED POST_CONTRAST SUBTRACTION COLOR
"""
IMAGE_TYPES = frozenset(_IMAGE_TYPES.split())
"""Values of ImageType that are let through; what else a maker writes there may be anything."""
_PARTS = """
ABDOMEN ABDOMENPELVIS ANKLE AORTA ARM BRAIN BREAST CALF CAROTID CERVIX CHEST CHESTABDOMEN CHESTABDPELVIS CLAVICLE
COCCYX CSPINE EAR ELBOW ESOPHAGUS EXTREMITY EYE FACE FEMUR FINGER FOOT FOREARM GALLBLADDER HAND HEAD HEADNECK HEART
HIP HUMERUS IAC JAW KIDNEY KNEE LEG LIVER LSPINE LUNG MANDIBLE MAXILLA MEDIASTINUM MOUTH NECK NOSE ORBIT OVARY
PANCREAS PELVIS PROSTATE RECTUM RETINA RIB SACRUM SCALP SHOULDER SINUS SKIN SKULL SPINE SPLEEN SSPINE STERNUM STOMACH
TESTIS THIGH THORAX THYMUS THYROID TLSPINE TMJ TOE TSPINE UTERUS WHOLEBODY WRIST ZYGOMA RIBCAGE
"""
PARTS = frozenset(_PARTS.split())
"""Body parts (PS3.16, annex L): many sites write free text into this element, so only the terms themselves pass."""
_VIEWS = """
AP PA LL RL LAT LATERAL LLD RLD LLO RLO LAO RAO LPO RPO OBLIQUE AXIAL CC MLO ML LM LMO XCC XCCL XCCM CCID MLOID FB SIO
ISO CV AT
"""
VIEWS = frozenset(_VIEWS.split())
"""Views of projection X-ray and mammography; ViewPosition is free text on some devices."""
PHOTOMETRIC = frozenset(
    {
        "MONOCHROME1",
        "MONOCHROME2",
        "PALETTE COLOR",
        "RGB",
        "YBR_FULL",
        "YBR_FULL_422",
        "YBR_PARTIAL_422",
        "YBR_PARTIAL_420",
        "YBR_ICT",
        "YBR_RCT",
    }
)
MAKERS: Mapping[str, tuple[str, ...]] = {
    "GE": ("ge", "g e medical", "general electric"),
    "Siemens": ("siemens",),
    "Philips": ("philips", "marconi", "picker", "adac"),
    "Canon": ("canon", "toshiba"),
    "Fujifilm": ("fuji", "fujifilm", "sonosite", "hitachi", "aloka"),
    "Hologic": ("hologic", "lorad"),
    "Agfa": ("agfa",),
    "Carestream": ("carestream", "kodak", "trex"),
    "Konica Minolta": ("konica", "minolta"),
    "Samsung": ("samsung", "medison"),
    "Mindray": ("mindray",),
    "Shimadzu": ("shimadzu",),
    "United Imaging": ("united imaging", "uih"),
    "Esaote": ("esaote", "biosound"),
    "IMS Giotto": ("giotto", "ims"),
    "Planmed": ("planmed", "planmeca"),
    "Sectra": ("sectra",),
    "Varian": ("varian",),
    "Swissray": ("swissray",),
    "Elekta": ("elekta",),
    "Bruker": ("bruker",),
    "Hamamatsu": ("hamamatsu",),
    "Leica": ("leica", "aperio"),
    "3DHISTECH": ("3dhistech",),
    "Roche": ("roche", "ventana"),
    "Zeiss": ("zeiss",),
    "Heidelberg": ("heidelberg",),
    "Topcon": ("topcon",),
    "Nidek": ("nidek",),
    "Olympus": ("olympus",),
    "Pentax": ("pentax", "hoya"),
    "Karl Storz": ("storz",),
    "Mortara": ("mortara",),
    "Nihon Kohden": ("nihon",),
    "Butterfly": ("butterfly",),
    "Supersonic": ("supersonic",),
    "Neusoft": ("neusoft",),
    "Imatron": ("imatron",),
}
"""Makers of devices, and the words by which their names are known. A text that holds none of them is left out: people
write the name of the site, and worse, into this element."""
_MODELS = """
achieva acuson advantx aera affiniti altaira altea amira ampere amulet aperio apex aplio aquilion artis artist as
asteion atomscope avantic avanto axiom biograph brightspeed brilliance bucky carestream centricity ceph cirrus
clinical cr ct cx cxdi definition definity definium digital digitaldiagnost dimensions direct directview discovery dr
drive drx dsa dx echelon edge elan elite elscint emotion epiq espree essenta evolution excel exp express fcr fdr flash
force forte fusion ge gemini gx gyroscan harmony hd hdx hdxt hispeed hitachi ict imager infinia infinix ingenia
ingenuity innova insight inspiration integris intera intevo iq kodak lightspeed lite logic logiq lorad lumify luminos
lumos lunar lx magna magnetom magnum mammodiagnost mammomat max mct medical mg microdose millennium mini mobile
mobilett mr mri mrxperion mtf multiva multix mx nanozoomer nova novation nuance oasis one openspeed optima orian
orthopantomograph panorama performance performix pixel planmed plaza plus portable precise precision premium prime
prisma pristina pro prospeed pulsera quantum regius resona revelation revolution rt s scan scanscope scenaria scope
selenia senographe sensation sequoia signa silent skyra sola somatom sonata sonos spectra spectralis speed spirit st
supria symbia symphony system titan tomo tomosynthesis toshiba trio triotim turbo twin ultimate ultra unit univision
vantage varian vct venue vereos verio versa vida virtual visage vision vista vivid volume voluson wave wireless x
xario xograph xp xpress xr xt xtend ysio zen zonare
"""
MODELS = frozenset(_MODELS.split())
"""Words of which names of devices are made. ManufacturerModelName is a text, and some devices let the site write it."""
INTENTS = frozenset({"FOR PRESENTATION", "FOR PROCESSING"})


MAX_LENGTH = 64
MAX_AGE_YEARS = 90.0
"""Older people are few, so that the number would name them; HIPAA's safe harbour makes them one group as well."""
_PLAIN = re.compile(r"[\x20-\x7e]+")
_CODE = re.compile(r"[A-Z]{1,10}")
"""Codes of one word: a modality, a side, a sex."""
_SEQUENCE = re.compile(r"\*?[a-z]{2,5}[123]d\d{0,2}(_\d{1,3}[a-z]{0,2})?")
"""Names such as *tse2d1_11 and ep2d: a kind of echo, 1 to 3 dimensions, echoes. No name of a person looks like it."""
_UID = re.compile(r"1\.2\.840\.10008\.[0-9.]+")


@dataclass(frozen=True)
class Allowed:
    """One value that may leave."""

    name: str
    get: Callable[[DicomHeader], Any]
    reason: str
    pattern: re.Pattern[str] = _CODE


def _known(words: frozenset[str], values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(value for value in values if value in words)


def _modality(header: DicomHeader) -> str:
    code = header.modality
    return code if code in OTHER_MODALITIES or modality_of_code(code) is not None else ""


def _term(words: frozenset[str], value: str) -> str:
    return value if value in words else ""


def _sequence(header: DicomHeader) -> str:
    """Return ScanningSequence codes, and a SequenceName in the form that scanners make; others are free text."""
    codes = {"SE", "IR", "GR", "EP", "RM"}
    return " ".join(word for word in header.sequence.split() if word in codes or _SEQUENCE.fullmatch(word))


def stated_view(header: DicomHeader) -> str:
    """Return the view that ViewCodeSequence or ViewPosition states, if it is one of the list; "" for all else."""
    return header.view_code or _term(VIEWS, header.view_position)


@lru_cache(maxsize=1024)
def _maker(text: str) -> str:
    """Return the maker's name as our list has it; "" for one that is not on it."""
    words = " ".join(re.findall(r"[a-z0-9]+", text.lower()))
    return next((name for name, keys in MAKERS.items() if any(f" {k} " in f" {words} " for k in keys)), "")


@lru_cache(maxsize=1024)
def _model(maker: str, model: str) -> str:
    """Return the known words and numbers of a device's model, only beside a maker that is known."""
    if not _maker(maker):
        return ""
    words = [word for word in re.findall(r"[A-Za-z0-9]+", model) if _of_device(word.lower())]
    numbers = [word for word in words if word.isdigit()]
    # Several numbers are a date, or a patient's number in parts.
    return " ".join(word for word in words if len(numbers) < 2 or not word.isdigit())


def _of_device(word: str) -> bool:
    """Return whether a word is one of our list, or a number of at most three digits with letters that name nobody.

    Four digits may be a year, and three letters a name.
    """
    numbered = re.search(r"[0-9]", word) and len(re.findall(r"[0-9]", word)) <= 3
    letters = re.findall(r"[a-z]+", word)
    return word in MODELS or bool(numbered and all(part in MODELS or len(part) <= 2 for part in letters))


@lru_cache(maxsize=1024)
def _standard_uid(uid: str) -> str:
    """Return a UID that the standard itself registers; those of makers and patients are not among them."""
    from pydicom.uid import UID

    # One that is not registered is its own name.
    is_registered = _UID.fullmatch(uid) is not None and UID(uid).name != uid
    return uid if is_registered else ""


def _number(digits: int, most: float, get: Callable[[DicomHeader], float | None]) -> Callable[[DicomHeader], Any]:
    """Round, so that no long number stays; None for what cannot be measured and so may be anything."""

    def rounded(header: DicomHeader) -> float | None:
        value = get(header)
        return None if value is None or not 0 <= value <= most else round(float(value), digits)

    return rounded


ALLOWED: tuple[Allowed, ...] = (
    Allowed("modality", _modality, "kind of device; a code of the standard"),
    Allowed("sop_class", lambda h: _standard_uid(h.sop_class), "kind of object; a UID of the standard", _UID),
    Allowed(
        "transfer_syntax",
        lambda h: _term(SYNTAXES, h.transfer_syntax),
        "how pixels are stored; a UID of the standard",
        _UID,
    ),
    Allowed("photometric", lambda h: _term(PHOTOMETRIC, h.photometric), "how pixels are stored", _PLAIN),
    Allowed("rows", lambda h: h.rows or None, "size of the image"),
    Allowed("columns", lambda h: h.columns or None, "size of the image"),
    Allowed("frames", lambda h: h.frames, "size of the object"),
    Allowed("bits_stored", lambda h: h.bits_stored or None, "how pixels are stored"),
    Allowed("view", stated_view, "a view of our own list"),
    Allowed("view_modifiers", lambda h: h.view_modifiers, "how the image was taken; our own words", _PLAIN),
    Allowed("exam_kind", lambda h: h.exam_kind, "how a mammogram was made; our own words", _PLAIN),
    Allowed(
        "instance_number", lambda h: None, "of mammograms: which of two images of a view came first; a small number"
    ),
    Allowed("sides_contradict", lambda h: None, "header, table and file name differ; what the reader of a file found"),
    Allowed("laterality", lambda h: h.laterality if h.laterality in ("L", "R", "B") else "", "side; one letter"),
    Allowed("intent", lambda h: _term(INTENTS, h.presentation_intent), "raw or processed; a code", _PLAIN),
    Allowed("burned_in", lambda h: h.burned_in, "warns of text in the pixels"),
    Allowed("body_part", lambda h: _term(PARTS, h.body_part), "a term of the standard's own list"),
    Allowed("image_type", lambda h: _known(IMAGE_TYPES, h.image_type), "terms of the standard's own list", _PLAIN),
    Allowed("sequence", _sequence, "MR sequence; codes of the standard", _PLAIN),
    Allowed("manufacturer", lambda h: _maker(h.manufacturer), "maker, one of our list; thousands share it", _PLAIN),
    Allowed("device_model", lambda h: _model(h.manufacturer, h.device_model), "model, in words of our list", _PLAIN),
    Allowed("slice_thickness_mm", _number(3, 1000, lambda h: h.slice_thickness_mm), "geometry"),
    Allowed("spacing_mm", lambda h: h.spacing_mm, "geometry"),
    Allowed("kvp", _number(1, 1000, lambda h: h.kvp), "exposure; a few values are in use"),
    Allowed("field_strength_t", _number(2, 30, lambda h: h.field_strength_t), "magnet; a few values are in use"),
    Allowed("echo_time_ms", _number(2, 10_000, lambda h: h.echo_time_ms), "MR sequence"),
    Allowed("repetition_time_ms", _number(1, 100_000, lambda h: h.repetition_time_ms), "MR sequence"),
    Allowed("b_value", _number(0, 100_000, lambda h: h.b_value), "MR sequence"),
    Allowed("frame_time_ms", _number(2, 100_000, lambda h: h.frame_time_ms), "speed of a loop"),
    Allowed("sex", lambda h: h.sex, "half of all people share it"),
    Allowed("age_years", _number(2, MAX_AGE_YEARS, lambda h: h.age_years), "90 and above are one group"),
    Allowed("breast_implant", lambda h: h.breast_implant, "changes how a mammogram is read"),
    Allowed("stored_hz", lambda h: None, "of an ECG: its sampling rate; what the reader of a file found"),
    Allowed("duration_s", lambda h: None, "of an ECG: its length"),
    Allowed("derived_leads", lambda h: None, "of an ECG: leads of our own list that were computed"),
    Allowed("missing_leads", lambda h: None, "of an ECG: leads of our own list"),
    Allowed("ecg_flags", lambda h: None, "of an ECG: what is wrong with it, in words of our own list"),
    Allowed("heart_rate_bpm", lambda h: None, "of an ECG; a small number that thousands share"),
    Allowed("week", lambda h: None, "ISO week of the examination; only of a run that is asked for it (--weeks)"),
    Allowed("device", lambda h: None, "keyed hash of the device's serial number or station name; with --weeks only"),
    Allowed("site", lambda h: None, "keyed hash of the institution's name; with --weeks only"),
    Allowed("protocol", lambda h: None, "keyed hash of the protocol's name; with --weeks only"),
    Allowed("lossy", lambda h: h.lossy or None, "whether pixels were compressed with loss"),
)


def public_values(header: DicomHeader) -> Mapping[str, Any]:
    """Return the header values that may be written into results.

    Returns:
        Name -> text, number, truth value or tuple of them, in the order of `ALLOWED`. Left out is what the header does
        not state, texts longer than 64 characters, and texts with other characters than their pattern allows.
    """
    values = {entry.name: _clean(entry.get(header), entry.pattern) for entry in ALLOWED}
    return {name: value for name, value in values.items() if value is not None}


def _clean(value: Any, pattern: re.Pattern[str]) -> Any:
    if isinstance(value, tuple):
        cleaned = tuple(item for item in (_clean(item, pattern) for item in value) if item is not None)
        return cleaned or None
    if not isinstance(value, str):
        return value
    good = 0 < len(value) <= MAX_LENGTH and pattern.fullmatch(value)
    return value if good else None
