"""The grid that scores are stored on, so that tables do not carry digits that mean nothing.

The last bits of a forward pass hang on its shape: with another batch size, or after a batch that memory did not hold
was halved, float32 probabilities of one image differ by some 1e-8 and logits by some 1e-5. Tables hold probabilities as
multiples of 1e-6 and logits as multiples of 1e-4, so that such a change moves nothing, or a value that lies between two
steps by one step. The logit keeps the order of probabilities that round to 0 or 1.
"""

from __future__ import annotations

PROBABILITY_DIGITS, LOGIT_DIGITS = 6, 4
PROBABILITY_STEP, LOGIT_STEP = 10.0**-PROBABILITY_DIGITS, 10.0**-LOGIT_DIGITS


def probability_on_grid(value: float) -> float:
    """Return the nearest multiple of 1e-6.

    Example:
        >>> probability_on_grid(0.12345678)
        0.123457
    """
    return round(float(value), PROBABILITY_DIGITS) + 0.0  # -0.0 becomes 0.0


def logit_on_grid(value: float) -> float:
    """Return the nearest multiple of 1e-4.

    Example:
        >>> logit_on_grid(-0.00001)
        0.0
    """
    return round(float(value), LOGIT_DIGITS) + 0.0
