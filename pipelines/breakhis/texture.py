"""Frozen features and classical classifiers, and descriptors made by hand: the texture survey, by patient.

Classifiers on each kind of feature, as they stand and with columns brought to mean 0 and deviation 1 on the training
patients: a linear SVM at C = 1 under-fits vectors of length 1 beside those of length 50, which compares lengths and not
towers. Beside them a logistic regression whose strength is chosen in the training patients.

References: Scabini et al., A comparative survey of vision transformers for feature extraction in texture analysis,
J. Imaging 11 (2025) 304; settings of the first three classifiers: scabini/RADAM. Ojala et al., IEEE TPAMI 24 (2002),
local binary patterns; Haralick et al., IEEE TSMC 3 (1973), co-occurrence.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import fft2, ifft2
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from medclip.adaptation.frozen.linear_probe import Problem

Floats = NDArray[np.floating[Any]]

SIZE_PX = 224
"""Longest side that descriptors are computed at; the aspect stays as it is."""
LBP = ((1, 8), (2, 16), (3, 24))
"""Radius and points of the uniform local binary patterns."""
GLCM_DISTANCES, GLCM_ANGLES = (1, 2, 4), (0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
GLCM_PROPERTIES = ("contrast", "correlation", "energy", "homogeneity")
GLCM_LEVELS = 32
GABOR_FREQUENCIES, GABOR_ANGLES = (0.1, 0.2, 0.4), 4
"""Cycles in a pixel, and directions."""
LOGISTIC_C = tuple(10.0**e for e in range(-4, 4))
SEED = 666999
"""The survey's."""
_MISSING = 1e-9
"""Probability of a class that was not learned."""
_TOLERANCE = 1e-9


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read an image at the size of the descriptors, uint8 [H, W, 3]."""
    with Image.open(path) as image:
        rgb = image.convert("RGB")
        rgb.thumbnail((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC)
        return np.asarray(rgb)


def colour_descriptor(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return means and deviations of the channels, [6]: what a stain alone tells."""
    return np.concatenate([rgb.mean((0, 1)), rgb.std((0, 1))]) / 255


def texture_descriptor(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return local binary patterns, co-occurrence and Gabor responses of the luminance, [126].

    Args:
        rgb: uint8 [H, W, 3].
    """
    from skimage.color import rgb2gray
    from skimage.feature import graycomatrix, graycoprops, local_binary_pattern

    grey = rgb2gray(rgb)
    grey_8 = np.round(grey * 255).astype(np.uint8)
    parts = []
    for radius, points in LBP:
        codes = local_binary_pattern(grey_8, points, radius, "uniform")
        parts.append(np.bincount(codes.astype(np.int64).ravel(), minlength=points + 2) / codes.size)
    levels = (grey_8 // (256 // GLCM_LEVELS)).astype(np.uint8)
    matrix = graycomatrix(levels, GLCM_DISTANCES, GLCM_ANGLES, GLCM_LEVELS, symmetric=True, normed=True)
    parts += [graycoprops(matrix, name).ravel() for name in GLCM_PROPERTIES]
    parts.append(_gabor(grey))
    return np.concatenate(parts)


def _gabor(grey: Floats) -> NDArray[np.float64]:
    """Return mean and deviation of each Gabor filter's magnitude; the image is mirrored at its edges."""
    kernels = _kernels()
    reach = max(max(kernel.shape) for kernel in kernels) // 2
    padded = np.pad(grey - grey.mean(), reach, mode="symmetric")
    spectrum: NDArray[np.complex128] = np.asarray(fft2(padded))
    responses = []
    for of_kernel in _spectra(padded.shape):
        magnitude = np.abs(np.asarray(ifft2(spectrum * of_kernel)))[reach:-reach, reach:-reach]
        responses += [magnitude.mean(), magnitude.std()]
    return np.array(responses)


@cache
def _kernels() -> tuple[NDArray[np.complex128], ...]:
    from skimage.filters import gabor_kernel

    angles: list[Any] = [k * np.pi / GABOR_ANGLES for k in range(GABOR_ANGLES)]
    return tuple(np.asarray(gabor_kernel(f, theta=angle)) for f in GABOR_FREQUENCIES for angle in angles)


@cache
def _spectra(shape: tuple[int, int]) -> tuple[NDArray[np.complex128], ...]:
    """Return the transforms of the kernels with their centres at the first pixel: they are the same for all images."""
    spectra = []
    for kernel in _kernels():
        whole = np.zeros(shape, np.complex128)
        whole[: kernel.shape[0], : kernel.shape[1]] = kernel
        spectra.append(np.asarray(fft2(np.roll(whole, [-(side // 2) for side in kernel.shape], axis=(0, 1)))))
    return tuple(spectra)


DESCRIPTORS: Mapping[str, Callable[[NDArray[np.uint8]], NDArray[np.float64]]] = {
    "colour": colour_descriptor,
    "LBP, GLCM, Gabor": texture_descriptor,
}


def describe_files(name: str, files: Sequence[Path]) -> NDArray[np.float64]:
    """Return the descriptor of each image, [N, D]."""
    return np.stack([DESCRIPTORS[name](read_rgb(path)) for path in files])


def knn(seed: int = SEED) -> Any:
    """Return the survey's nearest neighbour."""
    return KNeighborsClassifier(1)


def lda(seed: int = SEED) -> Any:
    """Return its linear discriminant, with Ledoit and Wolf's shrinkage."""
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")


def svm(seed: int = SEED) -> Any:
    """Return its linear support vector machine."""
    return SVC(kernel="linear", C=1.0, max_iter=100_000, decision_function_shape="ovr", random_state=seed)


CLASSIFIERS: Mapping[str, Callable[[int], Any]] = {"1-NN": knn, "LDA": lda, "SVM": svm}
LOGISTIC = "logistic"
COLUMNS: tuple[tuple[str, bool], ...] = (
    ("1-NN", False),
    ("1-NN", True),
    ("LDA", False),
    ("SVM", False),
    ("SVM", True),
    (LOGISTIC, True),
)
"""Classifier and whether columns are standardised. The discriminant has one: scikit-learn estimates its shrinkage on
scaled columns, so that both would be the same."""


def fit_probe(
    name: str,
    standardize: bool,
    features_ND: Floats,
    truth_N: NDArray[np.int64],
    patients: Sequence[str],
    *,
    seed: int = SEED,
) -> Any:
    """Fit one classifier on training patients.

    Args:
        name: Of `CLASSIFIERS`, or "logistic".
        standardize: Bring columns to mean 0 and deviation 1 first, of these rows.
        features_ND: [N, D]; columns may be constant.
        truth_N: Class numbers, of at least one class.
        patients: For the folds in which the logistic regression chooses its strength.
        seed: Of chance.

    Returns:
        A fitted estimator of scikit-learn; the majority's class where all features are constant.
    """
    from sklearn.dummy import DummyClassifier

    if len(set(truth_N.tolist())) < 2 or not np.ptp(features_ND, axis=0).any():
        return DummyClassifier(strategy="prior").fit(features_ND, truth_N)
    if name != LOGISTIC:
        model = CLASSIFIERS[name](seed)
    else:
        model = Multinomial(_strength(features_ND, truth_N, patients, standardize, seed))
    with warnings.catch_warnings():  # the survey's limit of steps, which raw columns of unlike scales reach
        warnings.filterwarnings("ignore", "Solver terminated early")
        return (make_pipeline(StandardScaler(), model) if standardize else model).fit(features_ND, truth_N)


class Multinomial(ClassifierMixin, BaseEstimator):
    """Multinomial logistic regression with an L2 penalty: C times the sum of cross-entropies and half the squares.

    It is the house's linear probe, whose search runs along the principal axes of the rows: of strong features in many
    columns scikit-learn's own takes thousands of steps.
    """

    def __init__(self, strength: float = 1.0) -> None:
        self.strength = strength

    def fit(self, X: Any, y: Any) -> Multinomial:
        """Fit to float [N, D] and N labels."""
        self.classes_, number_N = np.unique(y, return_inverse=True)
        solution = Problem(np.asarray(X, np.float64), number_N, len(self.classes_)).solve(self.strength, _TOLERANCE)
        self.weight_DC_, self.bias_C_ = solution.weight_DC, solution.bias_C
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return probabilities [N, C]."""
        return softmax(np.asarray(X, np.float64) @ self.weight_DC_ + self.bias_C_, axis=1)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable labels."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def _strength(
    features_ND: Floats, truth_N: NDArray[np.int64], patients: Sequence[str], standardize: bool, seed: int
) -> float:
    """Choose C by the log loss on held-out patients of the training set; 1 where they are too few to hold any out."""
    num_folds = min(5, len(set(patients)), int(np.bincount(truth_N).max()))
    losses = np.zeros(len(LOGISTIC_C))
    if num_folds < 2:
        return 1.0
    with warnings.catch_warnings():  # a class of fewer rows than folds is not in every fold
        warnings.filterwarnings("ignore", "The least populated class")
        parts = list(
            StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed).split(features_ND, truth_N, patients)
        )
    for train, held in parts:
        if len(set(truth_N[train].tolist())) < 2:
            continue
        scaler = StandardScaler(with_mean=standardize, with_std=standardize).fit(features_ND[train])
        rows, others = (np.asarray(scaler.transform(features_ND[part])) for part in (train, held))
        classes, number_N = np.unique(truth_N[train], return_inverse=True)
        problem, p_NC = Problem(rows, number_N, len(classes)), np.full((len(held), int(truth_N.max()) + 1), _MISSING)
        for n, c in enumerate(LOGISTIC_C):
            solution = problem.solve(c, _TOLERANCE)
            p_NC[:, classes] = softmax(others @ solution.weight_DC + solution.bias_C, axis=1)
            losses[n] -= np.log(np.clip(p_NC[np.arange(len(held)), truth_N[held]], _MISSING, 1)).sum()
    return LOGISTIC_C[int(losses.argmin())]


def gives_probabilities(model: Any) -> bool:
    """Whether a fitted classifier's scores are log probabilities that mean something: a vote of one is none."""
    last = model[-1] if hasattr(model, "steps") else model
    return not isinstance(last, SVC | KNeighborsClassifier)


def probe_scores(model: Any, features_ND: Floats, num_classes: int) -> NDArray[np.float64]:
    """Return scores [N, C] whose highest is the classifier's answer; a class that was not learned has the lowest.

    Log probabilities, or (SVM) what its decision function says; of the nearest neighbour the log of its vote.
    """
    last = model[-1] if hasattr(model, "steps") else model
    scores_NC = np.full((len(features_ND), num_classes), np.log(_MISSING))
    if isinstance(last, SVC):
        decided = np.asarray(model.decision_function(features_ND), np.float64)
        if decided.ndim == 1:
            decided = np.stack([-decided / 2, decided / 2], axis=1)
        scores_NC[:] = decided.min() - 1
        scores_NC[:, model.classes_] = decided
    else:
        scores_NC[:, model.classes_] = np.log(np.clip(model.predict_proba(features_ND), _MISSING, 1))
    return scores_NC
