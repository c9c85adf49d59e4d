"""How a model takes ECGs: rate, length, filters and scale, and the form in which records travel to it. No torch here.

The one adapter filters, resamples and cuts (`SignalInput.options`). What it makes of a record travels as whole
microvolts, twelve leads in their order, and becomes numbers of the model's scale on the model's side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from medclip.errors import MedclipError, Problem, Reason
from medclip.sample import Kind
from medclip.settings import EcgOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medclip.sample import Signal

KEY = "signal"
"""Of `preprocess_cfg` and of `vision_cfg`, for a model of ECGs."""
TOWER_KEYS = ("tower", "size", "patch", "samples")
"""Of `vision_cfg.signal`: which tower, how large, samples of a token, and samples of a lead."""
TOWERS = ("joint_patch", "lead_patch", "resnet1d")
"""Towers of their own; "lens" beside them is one in front of an image tower."""
SIZES = ("test", "tiny", "small", "base")
"""Of a tower; `test` is for tests."""
Normalise = Literal["zscore_global", "minmax_record", "zscore_lead", "mv"]
MEAN_MV, STD_MV = 0.0, 0.2
"""For zscore_global where nothing else is stated: 150 records of PTB-XL behind the high-pass have 0.00 and 0.199 mV."""


@dataclass(frozen=True)
class SignalInput:
    """What a model of ECGs is shown: 12 leads of `seconds` at `sampling_hz`, filtered, and scaled by `normalise`."""

    sampling_hz: float = 500.0
    seconds: float = 10.0
    baseline: Literal["elliptic", "butterworth", "none"] = "elliptic"
    """As `EcgOptions.baseline`."""
    notch_hz: Literal[50, 60] | None = None
    """As `EcgOptions.notch_hz`."""
    normalise: Normalise = "zscore_global"
    """One mean and standard deviation for all records and leads, so that amplitude, which carries diagnosis, stays;
    or the extremes of the record to 0 and 1; or the mean and deviation of each lead; or millivolts as they are."""
    mean_mv: float = MEAN_MV
    std_mv: float = STD_MV
    """For zscore_global, in millivolts."""

    @property
    def num_samples(self) -> int:
        """Samples of a lead, T."""
        return round(self.sampling_hz * self.seconds)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of a record: leads and samples."""
        return 12, self.num_samples

    @property
    def options(self) -> EcgOptions:
        """What the adapter does to a record for this model; scaling is done on the model's side."""
        return EcgOptions(self.baseline, self.notch_hz, self.sampling_hz, self.seconds, microvolts=True)

    def record(self, signal: Signal) -> NDArray[np.int16]:
        """Return a record as it travels to the model.

        Args:
            signal: Signal as stored, or prepared with `options`.

        Returns:
            int16 [12, T] in microvolts; a lead that is not there is all `medclip.imaging.ecg.recording.MISSING`.

        Raises:
            MedclipError: WRONG_USE for one that was filtered or cut otherwise, and cannot be made what it was.
        """
        from medclip.imaging.ecg.filters import prepare
        from medclip.imaging.ecg.recording import to_microvolts

        if signal.prepared is None:
            signal = prepare(signal, self.options)
        elif replace(signal.prepared, mlii_as_ii=False, microvolts=True) != self.options:
            raise MedclipError(
                Reason.WRONG_USE,
                f"this ECG was read for {_in_words(signal.prepared)}; the model takes {_in_words(self.options)}.",
                hint="Hand over the file, or read it with model.preprocess.reading(settings).",
            )
        return to_microvolts(signal)

    def describe(self) -> str:
        """Describe what the model is shown in one sentence, for cards and people."""
        scale = {
            "zscore_global": f"less {self.mean_mv:g} mV, divided by {self.std_mv:g} mV",
            "minmax_record": "the extremes of each record to 0 and 1",
            "zscore_lead": "each lead by its own mean and standard deviation",
            "mv": "in mV",
        }[self.normalise]
        return (
            f"ECGs are taken as 12 leads of {_in_words(self.options)}, {scale}; leads that are missing are zero and "
            "are known as missing."
        )

    def to_config(self) -> dict[str, Any]:
        """Return the form that `preprocess_cfg.signal` has; what is None is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def no_record(kind: Kind) -> Problem:
    """Return the problem of a file that is no record, for a model of ECGs; an image of a sheet can become one."""
    sheet = "medclip ecg digitise makes a record of a printed sheet, and " if kind is Kind.IMAGE else ""
    return Problem(
        Reason.OTHER_INPUT,
        f"it is no ECG record, and this model takes ECGs as signals; {sheet}--model PACK names a model of {kind}s.",
    )


def _in_words(options: EcgOptions) -> str:
    length = "any length" if options.seconds is None else f"{options.seconds:g} s"
    rate = "any rate" if options.sampling_hz is None else f"{options.sampling_hz:g} Hz"
    wander = {
        "elliptic": "high-pass (elliptic, 0.8 Hz)",
        "butterworth": "band-pass (Butterworth, 0.5-45 Hz)",
        "none": "baseline left as it is",
    }[options.baseline]
    return f"{length} at {rate}, {wander}" + ("" if options.notch_hz is None else f", {options.notch_hz} Hz taken out")


def signal_input(values: Mapping[str, Any]) -> SignalInput:
    """Read the settings back from a config.

    Raises:
        ValueError: They are of another form, or do not go together; the message says which.
    """
    fields = SignalInput.__dataclass_fields__
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not known")
    if values.get("normalise", "zscore_global") not in get_args(Normalise):
        raise ValueError(f"normalise is {str(values['normalise'])[:60]!r}; it is {', '.join(get_args(Normalise))}")
    for name in ("sampling_hz", "seconds", "mean_mv", "std_mv"):
        value = values.get(name, fields[name].default)
        if type(value) not in (int, float) or not math.isfinite(value) or (value <= 0 and name != "mean_mv"):
            above = "" if name == "mean_mv" else " above 0"
            raise ValueError(f"{name} is {str(value)[:60]!r}; it is a finite number{above}")
    if values.get("notch_hz") not in (None, 50, 60):
        raise ValueError(f"notch_hz is {str(values['notch_hz'])[:60]!r}; it is 50, 60, or left out")
    chosen = SignalInput(**values)
    try:
        options = chosen.options
    except MedclipError as error:
        raise ValueError(error.message.rstrip(".")) from error
    if chosen.num_samples < 2 or options.sampling_hz is None:
        raise ValueError(f"{chosen.seconds:g} s at {chosen.sampling_hz:g} Hz are less than two samples")
    return chosen
