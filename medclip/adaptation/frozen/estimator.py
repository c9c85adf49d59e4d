"""What the scikit-learn estimators of this folder share: predictions from the head that `fit` made."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from medclip.adaptation.data.heads import Head
from medclip.models.prototypes.class_vectors import probabilities


class FeatureClassifier(ClassifierMixin, BaseEstimator):
    """Base of estimators on features. Rows are brought to unit norm; a row of zeros stays as it is.

    Every estimator takes `class_vectors`, float [C, D], one row per class in the order of sorted labels
    (`ClassVectors.positive`). After `fit`: `classes_` (labels in the order of logits), `head_` (what `medclip score`
    would use), `n_features_in_`.
    """

    class_vectors: Any
    classes_: NDArray
    head_: Head

    def decision_function(self, X: Any) -> NDArray[np.float32]:
        """Return logits, float32 [N, C]; with two classes float32 [N], the second's lead, as scikit-learn wants it."""
        check_is_fitted(self, "head_")
        features = unit_rows(_finite(validate_data(self, X, reset=False, ensure_all_finite=False)))
        logits = self.head_.logits(features.astype(np.float32), None)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Return the softmax of the logits, float32 [N, C]."""
        logits = self.decision_function(X)
        if logits.ndim == 1:
            logits = np.stack([np.zeros_like(logits), logits], axis=1)
        return probabilities(logits, "multiclass")

    def predict(self, X: Any) -> NDArray:
        """Return the label with the greatest logit."""
        shares = self.predict_proba(X)
        return self.classes_[shares.argmax(axis=1)]

    def _read(self, X: Any, y: Any) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Check X and y; give unit rows, float64 [N, D], and class numbers, int64 [N]."""
        features, labels = validate_data(self, X, y, ensure_all_finite=False)
        features = _finite(features)
        check_classification_targets(labels)
        self.classes_, targets = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"all examples are of one class, {self.classes_[0]!r}; give at least two classes.")
        return unit_rows(features), targets.astype(np.int64)

    def _text(self, dim: int) -> NDArray[np.float64]:
        """Return the class vectors, float64 [D, C], each of unit norm; zeros where the estimator has none."""
        wanted = (len(self.classes_), dim)
        vectors = np.zeros(wanted) if self.class_vectors is None else np.asarray(self.class_vectors, np.float64)
        if vectors.shape != wanted:
            raise ValueError(f"class_vectors is {list(vectors.shape)}; the examples want {list(wanted)}.")
        return unit_rows(vectors).T


def _finite(features_ND: Any) -> NDArray:
    """Refuse features that are no numbers.

    Raises:
        ValueError: With the number of such rows.
    """
    features = np.asarray(features_ND)
    bad = int((~np.isfinite(features).all(axis=1)).sum())
    if bad:
        raise ValueError(
            f"{bad} of {len(features)} rows of features hold NaN or inf; leave those images out, or encode them again."
        )
    return features


def unit_rows(features_ND: NDArray) -> NDArray[np.float64]:
    """Return rows of norm 1, float64; rows of zeros stay."""
    features = np.asarray(features_ND, np.float64)
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(norms > 0, norms, 1.0)
