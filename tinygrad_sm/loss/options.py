"""What the options of softmax-cross-entropy ask for, checked once for every form of the loss.

A row of logits a with class weights w, smoothing ε and n classes has the effective target

    index t        q_j = w_j ((1 − ε) [j = t] + ε/n)        nothing at all if t is ignore_index
    distribution   q_j = w_j ((1 − ε) y_j + ε/n)

and its loss is Σ_j q_j (lse(a/T) − a_j/T). The semantics are those of
torch.nn.functional.cross_entropy; what differs is said in `cross_entropy`.
"""

from __future__ import annotations

import math
import sys
import warnings
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from tinygrad_sm.engine.intake import rectangular
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError, LabelError, LossWarning

REDUCTIONS = ("mean", "sum", "none")
FEW = 4096  # elements, for which a call costs more than they do


@dataclass(slots=True)
class Task:
    """The checked options of one call, in the terms that the forms of the loss compute with.

    `rows` stands for the logits' shape without the class axis.

    Attributes:
        shape: the logits' shape.
        axis: the class axis, not negative.
        index: (rows) the right classes, a valid one also where a row is ignored; or None.
        soft: (shape) the effective target q, an array or a Tensor; or None.
        coefficient: (rows) w_t (1 − ε), 0 where a row is ignored; None for ones.
        smooth: (classes,) what every active row's target gets on top, ε/n · w; None for zeros.
        active: (rows) False where a row is ignored; None for all True.
        reduction: "mean", "sum" or "none".
        divisor: what "mean" divides the sum by; 1 for the others.
        temperature: T, between 1e-300 and 1e300.
    """

    shape: tuple[int, ...]
    axis: int
    index: np.ndarray | None
    soft: Any
    coefficient: np.ndarray | None
    smooth: np.ndarray | None
    active: np.ndarray | None
    reduction: str
    divisor: float
    temperature: float

    @property
    def classes(self) -> int:
        """The length of the class axis."""
        return self.shape[self.axis]

    @property
    def rows(self) -> tuple[int, ...]:
        """The logits' shape without the class axis."""
        return without_axis(self.shape, self.axis)

    def dense(self, dtype: Any) -> Any:
        """Return the effective target q in the logits' shape, also where indices were given."""
        if self.index is None:
            return self.soft
        q = np.zeros(self.shape, dtype)
        coefficient = 1.0 if self.coefficient is None else self.by_class(self.coefficient)
        np.put_along_axis(q, self.by_class(self.index), coefficient, self.axis)
        if self.smooth is not None:
            smooth = self.smooth.reshape([-1 if i == self.axis else 1 for i in range(q.ndim)])
            q += smooth if self.active is None else smooth * self.by_class(self.active)
        return q

    def by_class(self, per_row: Any) -> Any:
        """Give an array of one number per row the class axis back, with length 1."""
        return np.asarray(per_row)[(slice(None),) * self.axis + (None,)]


def without_axis(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """The shape without one axis, counted from the front."""
    return shape[:axis] + shape[axis + 1 :]


def task_of(
    shape: tuple[int, ...],
    dtype: Any,
    target: Any,
    *,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    axis: int = -1,
) -> Task:
    """Check the options of a loss and put them in the terms of a `Task`.

    `shape` and `dtype` are the logits'.

    The target's shape decides what it is: the logits' shape is a distribution over classes, the
    logits' shape without `axis` is class indices.

    Raises:
        InvalidTypeError: an argument has the wrong type.
        InvalidValueError: a shape or value is not allowed.
        LabelError: a class index is out of range.
    """
    axis = _checked_axis(axis, shape)
    rows = without_axis(shape, axis)
    _check_choices(reduction, label_smoothing, temperature)
    weight = _checked_weight(weight, shape[axis])
    if isinstance(target, Tensor):
        given: Any = target if target.requires_grad else target.numpy()
    else:
        given = target if type(target) is np.ndarray else _array_of("target", target)
    if given.shape == shape:
        if ignore_index != -100:
            raise InvalidValueError(
                "ignore_index goes with class indices only; the target is a distribution, "
                f"since it has the logits' shape {shape}"
            )
        soft = _checked_distribution(given, dtype, weight, label_smoothing, axis)
        count = float(math.prod(rows))
        divisor = _checked_divisor(count) if reduction == "mean" else 1.0
        return Task(
            shape, axis, None, soft, None, None, None, reduction, divisor, float(temperature)
        )
    if given.shape != rows:
        swapped = given.ndim == len(shape) + 1 and given.shape[:-1] == shape
        raise InvalidValueError(
            f"target must have the logits' shape {shape} (a distribution) or "
            f"{rows} (class indices); got {given.shape}"
            + ("; are logits and target swapped?" if swapped else "")
        )
    index, active = _checked_index(given, shape[axis], ignore_index)
    divisor = 1.0
    if reduction == "mean" and weight is None:
        divisor = _checked_divisor(
            float(index.size if active is None else np.count_nonzero(active))
        )
    elif reduction == "mean":
        counted = weight[index] if active is None else weight[index] * active
        with np.errstate(over="ignore"):
            divisor = float(np.add.reduce(counted, axis=None))
            if divisor and not 1e-150 < divisor < 1e150:  # a power of two cancels in a mean
                power = -math.frexp(counted.max())[1]
                weight, counted = np.ldexp(weight, power), np.ldexp(counted, power)
                divisor = float(np.add.reduce(counted, axis=None))
        divisor = _checked_divisor(divisor)
    coefficient, smooth = _coefficients(index, active, weight, label_smoothing, shape[axis])
    return Task(
        shape,
        axis,
        index,
        None,
        coefficient,
        smooth,
        active,
        reduction,
        divisor,
        float(temperature),
    )


def warn(sentence: str) -> None:
    """Warn at the line of the user's own code, from however deep in this package."""
    level = 1
    while sys._getframe(level).f_globals.get("__name__", "").startswith("tinygrad_sm."):
        level += 1
    warnings.warn(sentence, LossWarning, stacklevel=level + 1)


def non_finite(row: int, shape: tuple[int, ...], axis: int) -> InvalidValueError:
    """The error for logits of `shape` with a NaN or +inf in a row, counted without the class axis.

    −inf is allowed: it masks a class.
    """
    rows = without_axis(shape, axis)
    at = tuple(int(i) for i in np.unravel_index(row, rows)) if rows else ()
    where = f"row {at[0] if len(at) == 1 else at} of the logits holds" if at else "they hold"
    return InvalidValueError(f"logits must be finite, or -inf to mask a class; {where} NaN or +inf")


def _checked_axis(axis: Any, shape: tuple[int, ...]) -> int:
    if not _is_integer(axis):
        raise InvalidTypeError(f"axis must be an integer; got {type(axis).__name__}")
    if not shape:
        raise InvalidValueError("logits must have a class axis; got a single number")
    number = int(axis)
    if not -len(shape) <= number < len(shape):
        raise InvalidValueError(
            f"axis must lie between {-len(shape)} and {len(shape) - 1} for logits of shape "
            f"{shape}; got {number}"
        )
    number %= len(shape)
    if shape[number] == 0:
        raise InvalidValueError(f"logits must have at least one class; their shape is {shape}")
    return number


def _is_integer(value: Any) -> bool:
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def _check_choices(reduction: Any, label_smoothing: Any, temperature: Any) -> None:
    if type(reduction) is str and type(label_smoothing) is type(temperature) is float:
        usual = 0.0 <= label_smoothing <= 1.0 and 1e-300 <= temperature <= 1e300
        if usual and reduction in REDUCTIONS:
            return
    if not isinstance(reduction, str) or reduction not in REDUCTIONS:
        raise InvalidValueError(
            f"reduction must be one of {', '.join(map(repr, REDUCTIONS))}; got {reduction!r}"
        )
    for name, value in (("label_smoothing", label_smoothing), ("temperature", temperature)):
        if not isinstance(value, Real):
            raise InvalidTypeError(f"{name} must be a number; got {type(value).__name__}")
    if not 0 <= label_smoothing <= 1:
        raise InvalidValueError(f"label_smoothing must lie in [0, 1]; got {label_smoothing}")
    if not (0 < temperature < math.inf):
        raise InvalidValueError(f"temperature must be positive and finite; got {temperature}")
    if not 1e-300 <= temperature <= 1e300:
        raise InvalidValueError(f"temperature must lie between 1e-300 and 1e300; got {temperature}")


def _checked_weight(weight: Any, classes: int) -> np.ndarray | None:
    if weight is None:
        return None
    array = _array_of("weight", weight)
    if array.dtype.kind not in "biuf":
        raise InvalidTypeError(f"weight must be real numbers; got dtype {array.dtype}")
    array = array.astype(np.float64)
    if array.shape != (classes,):
        raise InvalidValueError(
            f"weight must have shape ({classes},), one number per class; got {array.shape}"
        )
    if not (array[array.argmin()] >= 0 and array[array.argmax()] < math.inf):  # NaN is both
        wrong = ~((array >= 0) & np.isfinite(array))
        if not wrong.any():
            return array
        at = int(np.argmax(wrong))
        raise InvalidValueError(
            f"weight must be finite and not negative; got {array[at]} for class {at}"
        )
    return array


def _array_of(name: str, value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        if value.requires_grad:
            raise InvalidTypeError(f"{name} is not differentiated: pass {name}.detach()")
        return value.numpy()
    return rectangular(value, name)


def _checked_distribution(
    given: Any, dtype: Any, weight: np.ndarray | None, smoothing: float, axis: int
) -> Any:
    """The effective target of a distribution; all that is wrong with it is found by one look."""
    values = given.numpy() if isinstance(given, Tensor) else given
    if values.dtype.kind not in "biuf":
        raise InvalidTypeError(f"target must be real numbers; got dtype {values.dtype}")
    if values.dtype.kind != "f":
        given = values.astype(np.promote_types(dtype, np.float32))
    with np.errstate(over="ignore", invalid="ignore"):
        soft = _effective(given, weight, smoothing, axis)
        q = soft.numpy() if isinstance(soft, Tensor) else soft
        limit = float(np.finfo(np.float32 if dtype.itemsize <= 4 else np.float64).max) / 4
        if surely_finite(q, limit):
            return soft
        if (wrong := ~np.isfinite(values)).any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise InvalidValueError(f"target must be finite; got {values[at]} at {at}")
        sums = np.abs(q).sum(axis=axis, dtype=np.longdouble)
    if not (sums <= limit).all():
        raise InvalidValueError(
            f"target, times weight, must have row sums of at most {limit:.1e} for {dtype} logits"
        )
    return soft


def surely_finite(values: np.ndarray, limit: float = math.inf) -> bool:
    """Whether values are finite and add up to less than a limit, by the quickest tests there are.

    The extremes of a few values tell, or the sum of many.
    """
    flat = values.ravel(order="K")
    if flat.size < FEW:
        if not flat.size:
            return True
        bound = limit / flat.size
        # NaN is found as both
        return -bound < float(flat[flat.argmin()]) and float(flat[flat.argmax()]) < bound
    with np.errstate(all="ignore"):
        return abs(float(np.einsum("i->", flat))) < limit


def _effective(y: Any, weight: np.ndarray | None, smoothing: float, axis: int) -> Any:
    """The effective target of a distribution, by operators: y may be an array or a Tensor."""
    if smoothing:
        y = y * (1.0 - smoothing) + smoothing / y.shape[axis]
    if weight is not None:
        y = y * weight.reshape([-1 if i == axis else 1 for i in range(y.ndim)]).astype(y.dtype)
    return y


def _checked_index(
    given: Any, classes: int, ignore_index: Any
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return valid class indices, and which rows count (None: all of them)."""
    if not _is_integer(ignore_index):
        raise InvalidTypeError(f"ignore_index must be an integer; got {ignore_index!r}")
    if given.size == 0:
        return np.zeros(given.shape, np.intp), None
    if given.dtype.kind not in "iu":
        raise InvalidTypeError(
            f"target of shape {given.shape} means class indices, which must be integers; "
            f"got dtype {given.dtype}"
            + (", which target.astype(int) makes of whole ones" if given.dtype.kind == "f" else "")
        )
    index = np.array(given, np.intp)  # our own: the owner may change it before backward
    index.setflags(write=False)
    if ignore_index < 0 and _all_below(classes, index):
        return index, None
    ignored = given == ignore_index
    valid = index.copy()
    valid[ignored] = 0
    if not _all_below(classes, valid):
        wrong = (valid < 0) | (valid >= classes)
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise LabelError(
            f"target must be class indices from 0 to {classes - 1} (or ignore_index "
            f"{ignore_index}); got {given[at]}" + (f" at {at}" if at else "")
        )
    valid.setflags(write=False)
    return valid, ~ignored if np.count_nonzero(ignored) else None


def _all_below(classes: int, index: np.ndarray) -> bool:
    """Whether 0 <= t < classes for all: seen as unsigned numbers, negative ones are large."""
    unsigned = index.view(np.uintp)
    return bool(unsigned.item(unsigned.argmax()) < classes)


def _coefficients(
    index: np.ndarray,
    active: np.ndarray | None,
    weight: np.ndarray | None,
    smoothing: float,
    classes: int,
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return `Task.coefficient` and `Task.smooth`."""
    smooth = None
    if smoothing:
        smooth = smoothing / classes * (np.ones(classes) if weight is None else weight)
        if weight is not None and not smooth.sum() < sys.float_info.max / 4:
            raise InvalidValueError(
                "weight must not be so large that the smoothed target's sum over the classes, "
                f"beside the weights of the target's classes, overflows; got up to {weight.max()}"
            )
    if weight is None and active is None and not smoothing:
        return None, smooth
    if weight is None:
        coefficient = np.ones(index.shape) if active is None else active.astype(np.float64)
    else:
        coefficient = weight[index] if active is None else weight[index] * active
    return (coefficient * (1.0 - smoothing) if smoothing else coefficient), smooth


def _checked_divisor(total: float) -> float:
    if total:
        return total
    warn(
        "no row counts towards the mean (none is there, all are ignored, or all weights are 0): "
        "the loss and its gradient are 0"
    )
    return 1.0
