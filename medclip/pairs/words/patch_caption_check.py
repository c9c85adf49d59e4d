"""Check a caption of a patch before it becomes a record: its length, its claims, and the words that duplicates share.

Claims are told by word lists, no model: strict rather than clever. A claim counts whether it is affirmed or denied ("no
necrosis" states that somebody looked for it). What the slide's own report finds may be claimed by agents that see the
image, since the patch was chosen by it; the measuring agent may claim what it measures and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from medclip.text.checks.closed_words import HEDGES

KINDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "diagnosis": (
            *("adenoma", "benign", "blastoma", "cancer", "carcino", "chordoma", "cyst", "dysplas", "gleason", "glioma"),
            *("grade", "hamartoma", "hyperplas", "in situ", "leukaem", "leukem", "lymphoma", "malignan", "melanoma"),
            *("mesothelioma", "metaplas", "metasta", "myeloma", "naev", "neoplas", "nevus", "polyp", "sarcoma"),
            *("seminoma", "stage", "teratoma", "thymoma", "tumor", "tumour", "hepatitis", "cirrho", "colitis"),
            *("nephritis", "gastritis", "crohn", "tubercul", "disease", "syndrome", "papilloma", "fibroma", "atypia"),
            *("atypical", "astrocyt", "cytoma", "premalign", "pre-malign", "normal", "healthy", "abnormal", "patholog"),
        ),
        "process": (
            *("apopto", "amyloid", "calcif", "congest", "desmoplas", "edema", "oedema", "emboli", "erosion", "exud"),
            *("fibros", "fibrot", "granulom", "haemorrhag", "hemorrhag", "hyalin", "infarct", "infect", "infiltrat"),
            *("inflam", "invas", "ischaem", "ischem", "mitos", "mitot", "necro", "regenerat", "scar", "scler"),
            *("steato", "thromb", "ulcer", "vacuol", "elastosis", "debris", "differentiat", "prolifer"),
        ),
        "structure": (
            *("acin", "adipo", "alveol", "arter", "axon", "bile", "bone", "bronch", "capillar", "cartilag", "collagen"),
            *("cribriform", "crypt", "duct", "endotheli", "epiderm", "epitheli", "follic", "germinal", "gland"),
            *("glomerul", "islet", "keratin", "lamina", "lobul", "lume", "mucin", "mucosa", "mucus", "muscle", "nerve"),
            *("papill", "parenchym", "pearl", "portal", "sinus", "stroma", "trabecul", "tubul", "urotheli", "vascul"),
            *("vein", "vessel", "villi", "villous", "submucos", "serosa", "septa", "nests", "cords", "sheets"),
        ),
        "cell": (
            *("basophil", "chondrocyt", "enterocyt", "eosinophils", "erythrocyt", "fibroblast", "goblet", "granulocyt"),
            *(
                "hepatocyt",
                "histiocyt",
                "immune cell",
                "keratinocyt",
                "leukocyt",
                "lymphocyt",
                "lymphoid",
                "macrophage",
            ),
            *("mast cell", "melanocyt", "monocyt", "myocyt", "myofibro", "neuron", "neutrophil", "osteo", "pericyt"),
            *("plasma cell", "red blood", "red cell", "signet", "spindle", "squamous", "glandular", "columnar"),
            *("cuboidal", "giant cell", "clear cell", "small cell"),
        ),
        "nucleus": ("nucle", "chromatin", "hyperchrom", "pleomorph", "anisokaryo"),
        "marker": (
            *("immunohisto", "immunostain", "ki-67", "ki67", "her2", "her-2", "positive for", "negative for", "pd-l1"),
            *("mutation", "amplification", "wild-type", "wild type", "receptor", "cytokeratin", "fluoresc"),
        ),
        "patient": (
            *(
                "year-old",
                "year old",
                "years old",
                "male",
                "female",
                "patient",
                "woman",
                "women",
                "child",
            ),
            *(
                "history",
                "symptom",
                "treatment",
                "therapy",
                "prognos",
                "surviv",
                "biopsy",
                "resection",
                "surg",
                "clinic",
            ),
            *("diagnos", "recommend", "surgeon", "pathologist"),
        ),
        "source": (
            *(
                "report",
                "caption",
                "according to",
                "as mentioned",
                "as stated",
                "provided text",
                "provided description",
            ),
            *("given information", "given text", "supplied", "as described", "original description", "the prompt"),
            *("as an ai", "i cannot", "i can't", "sorry", "the user", "the image you"),
        ),
    }
)
"""Beginnings of words, by kind. `source` is talk about other texts, or about itself."""
NEVER = frozenset({"marker", "patient", "source"})
"""Kinds that no agent may claim: an H&E patch shows none of it."""


@dataclass(frozen=True)
class Claim:
    """One thing that a text speaks of."""

    kind: str
    stem: str
    word: str
    """As the text has it, in small letters."""


@dataclass(frozen=True)
class AllowedClaims:
    """What an agent may claim."""

    kinds: frozenset[str]
    stems: frozenset[str] = frozenset()
    """Further stems, of kinds that are not among `kinds`."""

    def with_texts(self, texts: Iterable[str]) -> AllowedClaims:
        """Return this list with all that some texts affirm; but not the kinds that nobody may."""
        stems = {claim.stem for text in texts for claim in claims_of(affirmed(text)) if claim.kind not in NEVER}
        return AllowedClaims(self.kinds, self.stems | stems)

    def refused(self, text: str) -> tuple[Claim, ...]:
        """Return the claims of a text that are not allowed."""
        return tuple(c for c in claims_of(text) if c.kind not in self.kinds and c.stem not in self.stems)


_ENDS = re.compile(r"[.;\n]|\b(?:but|however|although)\b")
_DENIED_BEHIND = re.compile(r"\b(?:no|without|neither|nor|none|absence|lack|lacks|lacking|free of|negative for)\b")
_DENIED_BEFORE = re.compile(r"\b(?:not|never|absent)\b|n't\b")


def affirmed(text: str) -> str:
    """Return what a finding says that there is, in small letters: without what it denies or leaves open.

    Strict rather than clever: a denial reaches to the end of its sentence, a doubt over all of it.

    Example:
        >>> affirmed("Mucinous carcinoma without necrosis, no lymphoma. Metastasis not seen. Possible sarcoma.")
        'mucinous carcinoma'
    """
    kept = []
    for clause in _ENDS.split(text.lower()):
        if HEDGES.search(clause):
            continue
        if match := _DENIED_BEFORE.search(clause):
            clause = clause[: match.start()].rpartition(",")[0]
        if match := _DENIED_BEHIND.search(clause):
            clause = clause[: match.start()]
        kept.append(clause.strip())
    return ". ".join(clause for clause in kept if clause)


@cache
def _pattern() -> re.Pattern[str]:
    stems = sorted((re.escape(stem) for stems in KINDS.values() for stem in stems), key=len, reverse=True)
    return re.compile(rf"\b(?:[a-z]+-)?(?P<stem>{'|'.join(stems)})[a-z-]*|(?P<inner>[a-z]{{3,}}(?:carcinoma|oma)s?)\b")


@cache
def _kind_of() -> Mapping[str, str]:
    return {stem: kind for kind, stems in KINDS.items() for stem in stems}


_NO_DIAGNOSIS = frozenset({"stroma", "aroma", "soma", "chroma", "coma"})


def claims_of(text: str) -> tuple[Claim, ...]:
    """Return what a text speaks of, each once.

    Example:
        >>> [(claim.kind, claim.word) for claim in claims_of("Crowded nuclei, no necrosis; an adenocarcinoma.")]
        [('nucleus', 'nuclei'), ('process', 'necrosis'), ('diagnosis', 'adenocarcinoma')]
    """
    claims: dict[str, Claim] = {}
    for match in _pattern().finditer(text.lower()):
        word = match[0].strip()
        if match["inner"] and word in _NO_DIAGNOSIS:
            continue
        # Of words that end as tumours do, carcinomas count as one with their stem.
        stem = match["stem"] or ("carcino" if "carcinoma" in word else word)
        claims.setdefault(stem, Claim(_kind_of().get(stem, "diagnosis"), stem, word))
    return tuple(claims.values())


PROBLEMS = ("empty", "too_long", "too_short", "not_english", "hedge", "claim", "duplicate", "refused")
"""Why a caption is rejected; `refused` is an agent's that had none."""
LEAST_WORDS = 4
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Room:
    """How long a caption may be."""

    most: int
    """Tokens, begin and end included: what the text tower takes."""
    count: Callable[[str], int]
    """Counts the tokens of a text, begin and end included, without cutting it."""

    def fits(self, text: str) -> bool:
        """Return whether a text is short enough."""
        return self.count(text) <= self.most


def check_patch_caption(caption: str, room: Room, allowed: AllowedClaims) -> tuple[str, str] | None:
    """Check one caption by itself.

    Returns:
        The first problem, of `PROBLEMS`, and its detail; None for a caption that may be used.
    """
    words = caption.split()
    if not words:
        return ("empty", "the caption has no word")
    if len(words) < LEAST_WORDS:
        return ("too_short", f"{len(words)} words, of {LEAST_WORDS} that are needed")
    tokens = room.count(caption)
    if tokens > room.most:
        return ("too_long", f"{tokens} tokens, of {room.most} that the text tower takes")
    if any(c.isalpha() and ord(c) > 0x24F and c != "µ" for c in caption):
        return ("not_english", "letters that are not Latin")
    if match := HEDGES.search(caption.lower()):
        return ("hedge", f"{match[0]!r} leaves open what is there")
    if refused := allowed.refused(caption):
        named = ", ".join(f"{claim.word} ({claim.kind})" for claim in refused[:3])
        return ("claim", f"not in the agent's list: {named}")
    return None


def words_of(caption: str) -> str:
    """Return a caption as duplicates are told by: its words and numbers in small letters.

    Example:
        >>> words_of("Round  nuclei, 33 µm².") == words_of("round nuclei 33 µm²")
        True
    """
    return " ".join(_WORD.findall(caption.lower()))
