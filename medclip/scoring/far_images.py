"""Do the images of a run look like those that the pack's figures were measured on? One sentence where they do not.

The test is Wilson's interval of the share of images that lie beyond a distance of 1, at the number of studies: of
images like those at home one in twenty does. A sentence is written where the share is at least `LEAST_SHARE` and the
interval lies above twice of what is expected, so that a folder of the pack's own source has one about never.
"""

from __future__ import annotations

from pathlib import Path

from medclip.models.home_images import WITHIN, load_homes
from medclip.runs.ledger.ledger import Ledger
from medclip.wording import count, number, percent

KEY = "far_notes"
"""What the ledger remembers the sentences under."""
FEWEST_STUDIES = 10
LEAST_SHARE = 0.2
_NOUNS = {
    "xray": "radiograph", "mri": "MR image", "ct": "CT image", "fundus": "fundus photograph",
    "mammography": "mammogram", "ultrasound": "ultrasound image", "ecg": "ECG",
}  # fmt: skip


def far_notes(ledger: Ledger, pack: Path) -> tuple[str, ...]:
    """Write what is to be known of a run whose images come from elsewhere, or look so.

    Args:
        ledger: Of the run, complete.
        pack: Folder of its pack.

    Returns:
        A sentence for each modality that it is true of.
    """
    homes = load_homes(pack)
    if not homes:
        return ()
    from scipy.special import ndtri  # a run without homes shall not pay for it

    from medclip.statistics.estimate import LEVEL
    from medclip.statistics.resampling.intervals import wilson

    z = float(ndtri((1 + LEVEL) / 2))
    notes = []
    for modality, num_images, num_far, num_studies in ledger.far_counts():
        share = num_far / num_images
        if modality not in homes or num_studies < FEWEST_STUDIES or share < LEAST_SHARE:
            continue
        low, _ = wilson(share, float(num_studies), z)
        if float(low) > 2 * (1 - WITHIN):
            noun = _NOUNS.get(modality, f"image ({modality})")
            notes.append(
                f"{number(num_far)} of {count(num_images, noun)} ({percent(share)}) are unlike those that this model's "
                f"figures were measured on ({homes[modality].source}), of which one in twenty is as far from the rest: "
                "they come from elsewhere, or look so. The figures on the card do not speak for them; measure it on "
                "studies of your own whose truth is known."
            )
    return tuple(notes)
