"""What the estimators of this folder share."""

from __future__ import annotations

import numpy as np
import pytest

from medclip.adaptation.frozen.linear_probe import LinearProbe
from medclip.adaptation.frozen.lp_plus_plus import LpPlusPlus
from medclip.adaptation.frozen.tip_adapter import TipAdapter


@pytest.mark.parametrize("kind", [LinearProbe, LpPlusPlus, TipAdapter])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_refused_in_one_sentence(kind, bad: float):
    features = np.random.default_rng(0).normal(size=(8, 4))
    fitted = kind().fit(features, np.arange(8) % 2)
    features[2, 1] = bad
    for call in (lambda: kind().fit(features, np.arange(8) % 2), lambda: fitted.predict(features)):
        with pytest.raises(ValueError, match="1 of 8 rows of features hold NaN or inf") as refused:
            call()
        assert "http" not in str(refused.value)
