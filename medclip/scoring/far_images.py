"""Do the images of a run look like those that the pack's figures were measured on? One sentence where they do not.

The test is Wilson's interval of the share of images that lie beyond a distance of 1, at the number of studies: of
images like those at home one in twenty does. A sentence is written where the share is at least `LEAST_SHARE` and the
interval lies above twice of what is expected, so that a folder of the pack's own source has one about never.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medclip.models.prototypes.home_images import WITHIN, load_homes
from medclip.runs.ledger.ledger import Ledger
from medclip.wording import count, list_of, number, percent_of

KEY = "far_notes"
"""What the ledger remembers the sentences under."""
FEWEST_STUDIES = 10
LEAST_SHARE = 0.2
_MAKERS_SHOWN = 5
_NOUNS = {
    "xray": "radiograph",
    "mri": "MR image",
    "ct": "CT image",
    "fundus": "fundus photograph",
    "mammography": "mammogram",
    "ultrasound": "ultrasound image",
    "ecg": "ECG",
}


def far_notes(ledger: Ledger, pack: Path) -> tuple[str, ...]:
    """Write what is to be known of a run whose images come from elsewhere, or look so.

    Args:
        ledger: Ledger of the run, complete.
        pack: Folder of the run's pack.

    Returns:
        A sentence for each modality that it is true of; where it is not true of all its images, for each maker of
        devices whose images it is true of: one new scanner among many is seen, too.
    """
    homes = load_homes(pack)
    counts: dict[str, dict[str, tuple[int, int, int]]] = {}
    for modality, maker, *numbers in ledger.far_counts() if homes else ():
        if modality in homes:
            counts.setdefault(modality, {})[maker] = (numbers[0], numbers[1], numbers[2])
    notes = []
    for modality, by_maker in counts.items():
        num_images, num_far, num_studies = (sum(column) for column in zip(*by_maker.values(), strict=True))
        source = homes[modality].source
        if is_far(num_images, num_far, num_studies):
            notes.append(_note(modality, source, "", num_images, num_far, _shares(by_maker)))
            continue
        for maker, numbers in by_maker.items():
            if maker and is_far(*numbers):
                notes.append(_note(modality, source, f" by {maker}", *numbers[:2], ""))
    return tuple(notes)


def is_far(num_images: int, num_far: int, num_studies: int) -> bool:
    """Return whether so many images lie far from home that it is no chance.

    Args:
        num_images: Images with a distance.
        num_far: Images whose distance is above 1.
        num_studies: Studies, or patients, that the images are of.
    """
    if num_studies < FEWEST_STUDIES or num_far < LEAST_SHARE * num_images:
        return False
    from scipy.special import ndtri  # a run whose images are near shall not pay for it

    from medclip.statistics.estimate import LEVEL
    from medclip.statistics.resampling.intervals import wilson

    low, _ = wilson(num_far / num_images, float(num_studies), float(ndtri((1 + LEVEL) / 2)))
    return float(low) > 2 * (1 - WITHIN)


def _note(modality: str, source: str, by: str, num_images: int, num_far: int, shares: str) -> str:
    noun = _NOUNS.get(modality, f"image ({modality})")
    return (
        f"{number(num_far)} of {count(num_images, noun)}{by} ({percent_of(num_far, num_images)}) are unlike those that "
        f"this model's figures were measured on ({source}), of which one in twenty is as far from the rest: they come "
        f"from elsewhere, or look so.{shares} The figures on the card do not speak for them; measure it on studies of "
        "your own whose truth is known."
    )


def _shares(by_maker: Mapping[str, tuple[int, int, int]]) -> str:
    """Write how many it are by maker, where headers name several."""
    named = {maker: numbers for maker, numbers in by_maker.items() if maker}
    if len(named) < 2:
        return ""
    ordered = sorted(named.items(), key=lambda item: (-item[1][1] / item[1][0], item[0]))
    shares = [f"{maker} {number(num_far)} of {number(num_images)}" for maker, (num_images, num_far, _) in ordered]
    return f" By maker: {list_of(shares, most=_MAKERS_SHOWN)}."
