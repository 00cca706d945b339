"""The gradient seldom dies: two losses behind one softmax, on ever worse predictions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.errors import InvalidValueError, shown
from tinygrad_sm.loss.probabilities import softmax
from tinygrad_sm.study.stability.forms import FORMS, computed
from tinygrad_sm.study.stability.sweeps import SWEEPS
from tinygrad_sm.study.stability.truth import check_dtype


@dataclass(frozen=True, slots=True)
class ConfidentlyWrong:
    """Gradients at the logits a = (0, m, m − 1), class 0 right, as the margin m grows.

    Attributes:
        margins: (points,) by how much the right class is behind.
        probabilities: (points, 3) softmax of the logits.
        squared: (points, 3) gradient of ½ Σ (p − y)².
        cross: (points, 3) gradient of the cross-entropy, by the fused node.
        naive: (points, 3) the same by the naive composite, which finite precision kills.
    """

    margins: np.ndarray
    probabilities: np.ndarray
    squared: np.ndarray
    cross: np.ndarray
    naive: np.ndarray


def confidently_wrong(
    margins: Iterable[float] | None = None, dtype: str = "float64"
) -> ConfidentlyWrong:
    """Return what two losses on the same softmax tell the logits of ever worse predictions.

    With rivals r, the squared error's gradient at the right class t is
    −p_t ((1 − p_t)² + Σ_r p_r²), which vanishes with the Jacobian's entries p_t p_r; the
    cross-entropy's is p_t − 1, which tends to −1.

    Args:
        margins: finite numbers; negative ones put the right class ahead. By default from −6 to
            800 in tenths.
        dtype: "float32" or "float64".

    Raises:
        InvalidValueError: an argument is not one of those.
    """
    check_dtype(dtype)
    x = np.arange(-60, 8001) / 10 if margins is None else np.array(list(margins), np.float64)
    if not (x.ndim == 1 and np.isfinite(x).all()):
        raise InvalidValueError(
            f"margins must be a flat list of finite numbers; got {shown(margins)}"
        )
    behind = next(sweep for sweep in SWEEPS if sweep.name == "behind")
    logits = behind.logits(x, dtype)
    y = np.zeros_like(logits)
    y[:, behind.target] = 1

    a = Tensor(logits, name="a")
    prob = softmax(a)
    (0.5 * ((prob - y) ** 2).sum()).backward()
    squared = a.grad
    gradients = {form.name: computed(form, logits, behind.target)[1] for form in FORMS}
    return ConfidentlyWrong(x, prob.numpy(), squared, gradients["fused"], gradients["naive"])
