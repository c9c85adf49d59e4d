"""The stored ECG of a sample: an array in whole microvolts beside the sample's JSON.

It is the record as its file has it: at its own rate, unfiltered, with its gaps, only put into the order of the twelve
leads. What a model is shown (rate, length, filters, leads that are computed from others) is made of it by the functions
that make it of a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from medclip.errors import MedclipError, Reason
from medclip.imaging.ecg.lead_names import TWELVE
from medclip.imaging.ecg.recording import Recording, check_rate, recording_of, stored_values, whole_microvolts
from medclip.imaging.ecg.twelve_leads import canonical, ordered
from medclip.shards.stored_array import decode_array, encode_array

FACTS = "signal"
"""Key of the JSON member."""
MAX_S = 300.0
"""Of a longer record its middle is stored: no model is shown more, and a day of twelve leads takes a gigabyte."""
_DTYPES = ("int16", "int32")


def encode_signal(recording: Recording) -> tuple[bytes, dict[str, Any]]:
    """Write a record.

    Args:
        recording: Recording as its file has it.

    Returns:
        The array, int16 (int32 where offsets go beyond 32 mV) [12, T] in microvolts, the lowest number of its type
        where a sample is missing; and what the JSON says of it: rate, length, the leads that are stored, and which of
        the twelve a model finds over the whole of what is stored (mask), some of them computed (derived).

    Raises:
        MedclipError: NOT_AN_IMAGE for a record of none of the twelve leads, CONSTANT_IMAGE where none shows anything.
    """
    kept = _middle(ordered(recording))
    if not kept.leads:
        raise MedclipError(Reason.NOT_AN_IMAGE, "the record has none of the twelve leads.")
    signal = canonical(whole_microvolts(kept))
    if not signal.mask.any():
        raise MedclipError(
            Reason.CONSTANT_IMAGE, "none of the record's leads shows anything: they are flat or missing."
        )
    facts = {
        "sampling_hz": kept.sampling_hz,
        "samples": kept.values_mv.shape[1],
        "leads": list(kept.leads),
        "mask": [bool(present) for present in signal.mask],
        "derived": list(signal.derived),
        "stored_hz": recording.stored_hz,
        "stored_samples": recording.stored_samples,
    }
    return encode_array(stored_values(kept)), facts


def decode_signal(data: bytes, facts: Mapping[str, Any]) -> Recording:
    """Read what `encode_signal` wrote.

    Raises:
        MedclipError: CORRUPT for anything else.
    """
    try:
        leads, hz = tuple(facts["leads"]), check_rate(float(facts["sampling_hz"]))
        stored = decode_array(data, _DTYPES)
        if stored.shape != (len(TWELVE), facts["samples"]) or not stored.shape[1]:
            raise ValueError("another number of leads or samples")
        if not leads or leads != tuple(lead for lead in TWELVE if lead in leads):
            raise ValueError("other leads")
        return recording_of(stored, leads, hz)
    except (KeyError, ValueError, TypeError, SyntaxError, IndexError, MedclipError) as e:
        raise MedclipError(Reason.CORRUPT, f"the stored ECG cannot be read ({type(e).__name__}: {e}).") from e


def _middle(recording: Recording) -> Recording:
    """Cut a long record to its middle. As much goes on either side, so that its middle stays where it was."""
    samples = recording.values_mv.shape[1]
    side = max(0, int((samples - MAX_S * recording.sampling_hz) // 2))
    return replace(recording, values_mv=np.ascontiguousarray(recording.values_mv[:, side : samples - side]))
