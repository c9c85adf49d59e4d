"""What is compared, by what, and how often: fixed before the first figure of a test patient was seen.

Two sets, two arms, three seeds. `without` is the recipe as it is; `with` adds the loss `views`, all its settings as
they are by default. Both begin with medclip-mini and see the same 2,048 samples.

`breasts` (cdd_cesm): a thing is a breast of a woman, its views are CC and MLO. `sites` (nih_cxr and kermany_cxr): a
thing is what a film is labelled, pneumonia or none, and the films of two sites are its views. Test patients of
cdd_cesm and nih_cxr are those of pipelines/mini; kermany_cxr, which medclip-mini never saw, is divided by its patients
in the same way. ddsm_4view has six examinations: too few for a figure, none is made.

The family of comparisons is `with` less `without` in each measure of `MEASURES`; their p-values are adjusted together
(Benjamini and Hochberg). The start is in the tables and in no comparison. `DETAIL` is printed and not tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WITHOUT, WITH = "without", "with"
OBJECTS: Mapping[str, Mapping[str, Any]] = {
    "breasts": {"object": ["patient", "laterality"]},
    "sites": {"object": "modality", "label": "chest_xray_findings"},
}
"""`objective.losses.views` of each set. All films are of one modality, so that the label alone names the thing."""
TASKS = {"breasts": ("mammography_malignancy", "malignant"), "sites": ("chest_xray_findings", "pneumonia")}
"""What is asked in words: the cosine with the sentences of this class, less the highest with those of another class, or
of its absence."""
SEEDS = (0, 1, 2)
"""Runs go seed by seed, both sets and both arms of each, so that a series that is stopped leaves whole seeds."""
MEASURES: Mapping[str, Mapping[str, str]] = {
    "breasts": {
        "spread": "distance (1 − cosine) of the two views of a breast, over the mean distance to views of other women",
        "recall": "R@1: a view's nearest view of the other projection, of all breasts, is of its breast; both ways",
        "malignancy": "zero-shot area of malignant against the rest",
        "projection": "CC or MLO read by a linear probe, women held out: area",
        "re-identification": "the nearest image but those of the same breast is of the same woman",
    },
    "sites": {
        "within nih_cxr": "zero-shot area of pneumonia",
        "within kermany_cxr": "the same",
        "nih_cxr films against kermany_cxr normals": "area of pneumonia of one site against no pneumonia of the other",
        "kermany_cxr films against nih_cxr normals": "the reverse",
        "site": "the site read by a linear probe, patients held out: area",
    },
}
DETAIL: Mapping[str, Mapping[str, str]] = {
    "breasts": {
        "distance": "that of the two views alone, not over anything",
        "side": "left or right read by a linear probe: area",
        "any other image": "re-identification where the other view of the same breast is an answer, too",
    },
    "sites": {},
}
NUM_RESAMPLES = 2000
CROP_PX = 192
"""Films of kermany_cxr are cut to their central square and scaled to this side: the shape of a film tells its class
there. What a narrow film is cut to may still differ from what a wide one is."""
