"""Words that state a fact of an image or a person, by kind: which captions may say only if the record does."""

from __future__ import annotations

import re
from collections.abc import Mapping

from medclip.sample import Modality
from medclip.text.free_text.non_visual import KINDS

FACTS: Mapping[str, re.Pattern[str]] = {
    "age": re.compile(
        r"\b(?:elderly|older|aged|middle-aged|young\w*|adults?|infants?|bab(?:y|ies)|newborns?|neonat\w+|child\w*"
        r"|toddlers?|teenage\w*|adolescents?|pa?ediatric|geriatric|(?:twen|thir|for|fif|six|seven|eigh|nine)ties"
        r"|years?|months? old)\b"
    ),
    "sex": re.compile(
        r"\b(?:man|men|woman|women|(?:fe)?males?|boys?|girls?|gentlem[ae]n|lad(?:y|ies)|he|she|him|his|hers?|pregnan\w+)\b"
    ),
    "view": re.compile(
        r"\b(?:a\.?p\.?|p\.?a\.?|anteroposterior|posteroanterior|portable|bedside|upright|supine|standing|lateral|profile"
        r"|oblique|decubitus|cc|mlo|cranio-?caudal|mediolateral\w*|lateromedial|axial|coronal|sagittal)\b"
    ),
    "side": re.compile(
        r"\b(?:left|right|bilateral\w*|unilateral\w*|both|either|bibasilar|biapical|(?:ipsi|contra)lateral)\b"
    ),
    "place": re.compile(
        r"\b(?:(?:upper|middle|lower|mid) (?:lobes?|zones?|lungs?|quadrants?|fields?|poles?)|lob(?:e|es|ar)"
        r"|lingul\w+|apex|apices|apical|bas(?:al|ilar|es?)|perihilar|retrocardiac|quadrants?|o'clock|subareolar|peripheral\w*|proximal"
        r"|distal|anterior|posterior|medial|inferior|superior|frontal|parietal|temporal|occipital|cerebell\w+|brainstem)\b"
    ),
    "degree": re.compile(
        r"\b(?:mild\w*|moderate\w*|severe\w*|massive|extensive\w*|large|small|tiny|huge|minimal\w*|minor|advanced|early|late"
        r"|acute\w*|chronic\w*|subacute|stages?|grades?|marked\w*|subtle|slight\w*|diffuse\w*|focal|patchy|aggressive|borderline)\b"
    ),
    "count": re.compile(
        r"\b(?:two|three|four|five|six|seven|eight|nine|ten|several|multiple|numerous|many|solitary|single)\b"
    ),
    "measurement": re.compile(
        r"\d\s*(?:mm|cm|[µu]m|microns?|ml|cc|hu|mmhg|%|kg|degrees?|dioptres?|bpm|ms|mv|hz)(?![a-z])"
    ),
    "date": KINDS["date"],
    "number": re.compile(r"\d"),
    "history": KINDS["comparison"],
    "talk": KINDS["talk"],
    "person": re.compile(r"\b(?:dr|mr|mrs|ms|prof)\b|\bpatient'?s? (?:named?|id)\b|\bhospital\b"),
}
MODALITIES: Mapping[str, re.Pattern[str]] = {
    Modality.XRAY: re.compile(r"\b(?:x-?rays?|(?:teleo?)?radiogra\w+|plain films?|roentgen\w*)\b"),
    Modality.MAMMOGRAPHY: re.compile(r"\b(?:mammogra\w+|tomosynthesis)\b"),
    Modality.CT: re.compile(r"\b(?:ct|computed tomogra\w+|hounsfield)\b"),
    Modality.MRI: re.compile(r"\b(?:mri?|magnetic resonance|t[12](?:-weighted)?|flair)\b"),
    Modality.ULTRASOUND: re.compile(r"\b(?:ultraso\w+|sonogra\w+|echocardio\w+|echograph\w+|doppler)\b"),
    Modality.PATHOLOGY: re.compile(
        r"\b(?:histo\w*patholog\w+|histolog\w+|cytolog\w+|microscop\w+|h&e|stain\w*|slides?)\b"
    ),
    Modality.FUNDUS: re.compile(r"\b(?:fundus|fundoscop\w+|ophthalmoscop\w+)\b"),
    Modality.DERMATOLOGY: re.compile(r"\b(?:dermo?scop\w+|dermato?scop\w+)\b"),
    Modality.ENDOSCOPY: re.compile(r"\b(?:\w*endoscop\w+|colonoscop\w+|gastroscop\w+|bronchoscop\w+)\b"),
    Modality.OCT: re.compile(r"\b(?:oct|optical coherence)\b"),
    Modality.ECG: re.compile(r"\b(?:ecgs?|ekgs?|\w*electrocardio\w+)\b"),
    "other": re.compile(r"\b(?:pet|scintigra\w+|spect|fluoroscop\w+|angiogra\w+|tomogra\w+)\b"),
}
BODY_REGIONS: Mapping[str, re.Pattern[str]] = {
    "head": re.compile(
        r"\b(?:heads?|brains?|skulls?|crani(?:al|um)|intracranial|cerebr(?:al|um)|orbits?|faces?|necks?)\b"
    ),
    "thorax": re.compile(r"\b(?:chests?|thora(?:x|cic)|lungs?|mediastin(?:um|al)|hearts?|rib ?cages?|ribs?)\b"),
    "abdomen": re.compile(r"\b(?:abdom(?:en|inal)|livers?|spleens?|bowels?|stomachs?|pancreas)\b"),
    "pelvis": re.compile(r"\b(?:pelv(?:is|ic)|bladders?|kidneys?|(?:genito)?urinary tracts?)\b"),
    "musculoskeletal": re.compile(
        r"\b(?:spin(?:e|es|al)|vertebra[el]?|limbs?|bones?|muscles?|joints?|musculoskeletal|arms?|legs?|hands?|feet|foot"
        r"|knees?|shoulders?|hips?|elbows?|wrists?|ankles?)\b"
    ),
}
"""Words that name a class of the task body_region, and say nothing of what is seen there."""
ALSO_SAID_OF: Mapping[Modality, tuple[str, ...]] = {
    Modality.MAMMOGRAPHY: (Modality.XRAY,),
    Modality.CT: ("other",),
    Modality.OCT: ("other", Modality.FUNDUS),
}
"""Words of other modalities that fit a modality too: a mammogram is an X-ray of the breast."""
