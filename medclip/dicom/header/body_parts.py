"""Which part of the body a header speaks of: its codes and, in words of four languages, its descriptions.

Many devices leave BodyPartExamined empty, or at what it was set to when they were installed, and the person who made
the image wrote the part into a description. Descriptions may hold names, so nothing leaves this file but terms of the
standard (PS3.16, CID 4 and annex L).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

SAYS_NO_BODY_PART = ("", "UNKNOWN", "OTHER", "NONE", "UNDEFINED")
DESCRIBED = "described as "
"""What stands before the terms of the descriptions, behind BodyPartExamined where it is stated and says otherwise."""

SEEN = "seen as "
"""What stands before the terms of a part that no header names and that the model is sure of."""

_OESOPHAGUS, _AORTA = "o?esophagus o?esophageal speiser[oö]hre [oœ]sophage oesophage es[oó]fago", "aorta aorte"
"""Parts that lie in two regions, so that naming them contradicts neither."""
_REGIONS: Mapping[str, Mapping[str, str]] = {
    "head": {
        "HEAD": "head kopf t[eê]te cabeza cerebral cranial cr[aâ]nien",
        "BRAIN": "brain gehirn hirn cerveau cerebro",
        "SKULL": "skull sch[aä]del schaedel cr[aâ]ne cr[aá]neo",
        "ORBIT": "orbits? orbita",
        "EYE": "eyes? augen? [oœ]eil oeil ojos? ocular",
        "RETINA": "retina retinal",
        "SINUS": "sinus sinuses nasennebenh[oö]hlen",
        "JAW": "jaw kiefer opg panoramic orthopantomogra\\w+",
        "MANDIBLE": "mandible unterkiefer mandibule mand[ií]bula",
    },
    "neck": {
        "NECK": "neck hals cou cuello",
        "THYROID": "thyroid schilddr[uü]se schilddruese thyro[iï]de tiroides thyroidea",
        "CAROTID": "carotids? carotis carotide car[oó]tida",
        "ESOPHAGUS": _OESOPHAGUS,
    },
    "chest": {
        "CHEST": "chest thorax thoracic torax t[oó]rax brustkorb pulmonary cxr",
        "LUNG": "lungs? lunge poumons? pulm[oó]n pulmones",
        "HEART": "heart herz c[oœ]eur corazon coraz[oó]n cardiac echocardiogra\\w+ tte",
        "RIB": "ribs? rippen? c[oô]tes costillas?",
        "MEDIASTINUM": "mediastinum",
        "ESOPHAGUS": _OESOPHAGUS,
        "AORTA": _AORTA,
    },
    "breast": {"BREAST": "breasts? mamma mammo mammogra\\w+ brust seins mama mamas mamaire mammaire"},
    "abdomen": {
        "ABDOMEN": "abdomen abdominal abdomens bauch oberbauch kub",
        "LIVER": "liver leber foie h[ií]gado hepatic",
        "PANCREAS": "pancreas pankreas pancr[eé]as p[aá]ncreas",
        "KIDNEY": "kidneys? nieren? reins ri[nñ][oó]n(es)? renal",
        "SPLEEN": "spleen milz bazo",
        "GALLBLADDER": "gallbladder gallenblase ves[ií]cula",
        "STOMACH": "stomach magen estomac est[oó]mago",
        "AORTA": _AORTA,
    },
    "pelvis": {
        "PELVIS": "pelvis pelvic becken bassin pelviano",
        "UTERUS": "uterus uterine ut[eé]rus [uú]tero geb[aä]rmutter obstetric f(o?)etal f(o?)etus",
        "OVARY": "ovary ovaries ovar ovaire ovario",
        "PROSTATE": "prostate prostata pr[oó]stata",
        "TESTIS": "testis testes testicular scrotum scrotal hoden testicule test[ií]culo",
        "RECTUM": "rectum rectal rektum",
        "HIP": "hip hips h[uü]fte hanche cadera",
    },
    "spine": {
        "SPINE": "spine spinal wirbels[aä]ule rachis columna",
        "CSPINE": "c-?spine hws",
        "TSPINE": "t-?spine bws",
        "LSPINE": "l-?spine lumbar lws lombaire",
    },
    "arm": {
        "SHOULDER": "shoulders? schulter [eé]paule hombro",
        "HUMERUS": "humerus oberarm hum[eé]rus h[uú]mero",
        "ELBOW": "elbows? ellenbogen ellbogen coude codo",
        "FOREARM": "forearm unterarm avant-bras antebrazo",
        "WRIST": "wrists? handgelenk poignet mu[nñ]eca",
        "HAND": "hands? mano",
        "FINGER": "fingers? thumb daumen doigts? dedos?",
    },
    "leg": {
        "FEMUR": "femur oberschenkel f[eé]mur",
        "KNEE": "knees? knie genou rodilla",
        "LEG": "legs? unterschenkel jambe pierna tibia",
        "ANKLE": "ankles? sprunggelenk cheville tobillo",
        "FOOT": "foot fu[sß]s? pied pie",
        "TOE": "toes? zehen? orteils?",
    },
}
"""Of each region its terms, and patterns of whole words that name them. Words that mean something else in another of
the languages are left out, such as the French for hand, spleen, breast ("sein", German "to be") and kidney ("rein")."""
_NO_PART = r"(head|feet|foot)[ -]first|hand[ -]?(held|injection|over)|c-arm|second[ -]hand|head coil|foot pedal"
"""What holds such a word and names no part: how a patient lies, how contrast was given, a coil."""
_CODES: Mapping[str, str] = {
    "BREAST": "76752008 T-04000",
    "HEAD": "69536005 T-D1100",
    "BRAIN": "12738006 T-A0100",
    "NECK": "45048000 T-D1600",
    "THYROID": "69748006 T-B6000",
    "CHEST": "51185008 T-D3000",
    "LUNG": "39607008 T-28000",
    "HEART": "80891009 T-32000",
    "ABDOMEN": "818981001 T-D4000",
    "LIVER": "10200004 T-62000",
    "PANCREAS": "15776009 T-65000",
    "KIDNEY": "64033007 T-71000",
    "SPLEEN": "78961009 T-C3000",
    "GALLBLADDER": "28231008 T-63000",
    "PELVIS": "816092008 T-D6000",
    "UTERUS": "35039007 T-83000",
    "OVARY": "15497006 T-87000",
    "PROSTATE": "41216001 T-92000",
    "TESTIS": "40689003 T-94000",
    "SHOULDER": "16982005 T-D2220",
    "ELBOW": "76248009 T-D8300 127949000",
    "WRIST": "8205005 T-D8700",
    "HAND": "85562004 T-D8800",
    "HIP": "24136001 T-15710",
    "KNEE": "72696002 T-D9200",
    "ANKLE": "344001 T-15750",
    "FOOT": "56459004 T-D9700",
    "SPINE": "421060004 T-D0146",
    "EYE": "81745001 T-AA000",
    "ESOPHAGUS": "32849002 T-56000",
    "CAROTID": "69105007 T-45100",
}
"""Of each term the codes that AnatomicRegionSequence has for it: SNOMED CT, then the older ones (PS3.16, CID 4)."""


def region_of_code(code: str) -> str:
    """Return the term that a code of AnatomicRegionSequence stands for; "" for one that is not in the table."""
    return next((term for term, codes in _CODES.items() if code.strip() in codes.split()), "")


def described_parts(text: str) -> tuple[str, ...]:
    """Return the terms of the standard that a description names, in the order of the table.

    Example:
        >>> described_parts("US Schilddrüse bds."), described_parts("HEAD FIRST SUPINE"), described_parts("R CC")
        (('THYROID',), (), ())
    """
    lower = re.sub(r"[_/.,;:+()\[\]0-9]+", " ", text.lower())
    lower = re.sub(_NO_PART, " ", lower)
    return tuple(term for term, pattern in _patterns().items() if pattern.search(lower))


def stated_part(body_part: str, descriptions: Sequence[str]) -> str:
    """Return what a header states of the body part, its descriptions heard.

    Args:
        body_part: BodyPartExamined in capitals, or the term of its code.
        descriptions: Texts, the one that is nearest to the image first.

    Returns:
        BodyPartExamined where no description says otherwise. Where one does, that and the terms of the descriptions;
        where it says nothing, the terms of the first description that names a part.

    Example:
        >>> stated_part("", ["AP", "XR Elbow"]), stated_part("BREAST", ["Thyroid left"]), stated_part("CHEST", ["Lung"])
        ('described as ELBOW', 'BREAST, described as THYROID', 'CHEST')
    """
    named = [terms for text in descriptions if (terms := described_parts(text))]
    if not named:
        return body_part
    if body_part.strip() in SAYS_NO_BODY_PART:
        return DESCRIBED + " ".join(named[0])
    regions = _regions_of(described_parts(body_part)) | _regions_of([body_part.strip()])
    if not regions or regions & _regions_of(term for terms in named for term in terms):
        return body_part
    return f"{body_part.strip()}, {DESCRIBED}{' '.join(named[0])}"


def _regions_of(terms: Iterable[str]) -> set[str]:
    named = {*terms}
    return {region for region, words in _REGIONS.items() if named & words.keys()}


@cache
def _patterns() -> Mapping[str, re.Pattern[str]]:
    words = {term: text.split() for region in _REGIONS.values() for term, text in region.items()}
    return {term: re.compile(rf"\b(?:{'|'.join(alternatives)})\b") for term, alternatives in words.items()}
