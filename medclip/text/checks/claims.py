"""Findings that a text speaks of, beyond the classes of the vocabularies, and whether each is affirmed or denied.

A word list and the endings of medical words: no model, and no understanding. It finds most names of diseases, devices
and signs in English; a description that uses none of them is not seen.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache

from medclip.text.free_text.mentions import denied
from medclip.text.vocabulary.load import load_task, task_names

_STEMS = (
    "abnormal|abscess|adenopath|airspace|aneurysm|angina|anomal|aort|arrhythm|artefact|arthrit|artifact|asbesto"
    "|ascites|asthma|atroph|biops|bleed|blunt|blur|bowel gas|bronchiect|bullae|bullous|calcif|cancer|catheter|cavit"
    "|clip|clot|compress|congest|cough|crowd|cyst|defect|deform|degenerat|deminerali|demyelin|density|deviat|device"
    "|diabet|dilat|disease|dislocat|disorder|displac|dissect|distort|drain|drusen|dysplas|dyspn|ectasi|effus|elevat"
    "|embol|empyema|engorg|enlarg|eventrat|exud|fever|fibrill|fistul|flattened|fluid|foreign body|fractur|free air"
    "|gangren|glauco|goit|granulom|haem|haz|hemat|hemorrh|hernia|hydroceph|hyperexpan|hyperplas|hypertens|hypoinfl"
    "|icter|implant|infarct|infect|inflam|inflated|injur|interstit|intraperiton|ischaem|ischem|lead|lesion|leuk|line"
    "|lucen|lymph|macul|malign|marking|metasta|microaneur|midline|murmur|myop|naev|necro|neoplas|nevus|obstruct"
    "|occlus|opacit|osteo|pacemaker|pain|parkinson|pectus|perforat|plaque|pneumoperiton|polyp|post-?operat|prominen"
    "|prosthe|ptosis|pulmonary vascul|radiodens|radiolucen|reticul|retinopath|ruptur|sarcoid|scar|scolio|screw"
    "|septic|shadow|shunt|silicosis|smok|spur|stenos|stent|sternotomy|stone|stroke|subdiaphrag|surg|swell|symptom"
    "|syndrome|tear|thicken|thromb|torn|tortuous|trauma|tube|tubercul|tumo|ulcer|valve|varic|volume|wedg|widen|wire"
    "|wound"
)
_ENDINGS = (
    "itis|omas?|omata|osis|oses|opath(?:y|ies)|ectas[ei]s|ectasia|megaly|rrhages?|plasia|a?emia|algia|trophy|thorax"
    "|ectomy|ostomy|plegia|penia|cele|lithiasis|malacia|sclerosis|stenosis|edema"
)
_NO_FINDING = frozenset(
    {"diagnosis", "diagnoses", "hemithorax", "prognosis", "prognoses", "osmosis", "aroma", "thorax"}
)


@cache
def _pattern() -> re.Pattern[str]:
    classes = "|".join(re.escape(s.lower()) for t in task_names() for c in load_task(t).classes for s in c.stems)
    return re.compile(rf"\b(?:(?P<stem>{_STEMS}|{classes})\w*|(?P<word>\w{{2,}}(?:{_ENDINGS})))\b")


@lru_cache(maxsize=16384)
def claims(text: str) -> frozenset[tuple[str, bool]]:
    """Return the findings a text speaks of: the beginning of the word (or the word), and whether it is affirmed.

    Example:
        >>> sorted(claims("A rib fracture, no haemothorax."))
        [('fractur', True), ('haem', False)]
    """
    lowered = text.lower()
    findings: set[tuple[str, bool]] = set()
    for match in _pattern().finditer(lowered):
        term = match["stem"] or match["word"].removesuffix("s")
        if match[0] not in _NO_FINDING:
            findings.add((term, not denied(lowered, match)))
    return frozenset(findings)
