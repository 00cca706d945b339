"""The options of softmax-cross-entropy: declared, documented and checked here, for every form.

A row of logits a with class weights w, smoothing ε and n classes has the effective target

    index t        q_j = w_j ((1 − ε) [j = t] + ε/n)        nothing at all if t is ignore_index
    distribution   q_j = w_j ((1 − ε) y_j + ε/n)

and its loss is Σ_j q_j (lse(a/T) − a_j/T). The semantics are those of
torch.nn.functional.cross_entropy; what differs is said in `cross_entropy`.
"""

from __future__ import annotations

import inspect
import math
import sys
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral, Real
from typing import Any, TypedDict, TypeVar

import numpy as np

from tinygrad_sm.arrays.kinds import along, as_array, kind_of, of_a_kind
from tinygrad_sm.engine.intake import rectangular
from tinygrad_sm.engine.memory import current, read_only
from tinygrad_sm.engine.rules import sum, where
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.errors import InvalidTypeError, InvalidValueError, LabelError, LossWarning, shown

F = TypeVar("F", bound=Callable[..., Any])

REDUCTIONS = ("mean", "sum", "none")
FEW = 4096  # elements, for which a call costs more than they do


class RowOptions(TypedDict, total=False):
    """The options, as in `cross_entropy`, of a loss whose classes are the last axis."""

    ignore_index: int
    reduction: str
    label_smoothing: float
    temperature: float


class LossOptions(RowOptions, total=False):
    """What every form of the loss can be asked for.

    Attributes:
        weight: one number per class that multiplies its target; shape (classes,), not negative.
        ignore_index: a class index that marks rows that do not count; with class indices only.
        reduction: "mean" over the rows that count (weighted by `weight` with class indices, as
            PyTorch does), "sum", or "none" for one loss per row.
        label_smoothing: ε in [0, 1]: the target becomes (1 − ε)·y + ε/n.
        temperature: T > 0: the logits are divided by it.
        axis: the class axis.
    """

    weight: Any
    axis: int


def takes(declared: Any, defaults: Mapping[str, Any] | None = None) -> Callable[[F], F]:
    """Show a function's ``**options`` one by one, with defaults and meaning, to `help`."""

    def shown(function: F) -> F:
        signature = inspect.signature(function)
        *own, _ = signature.parameters.values()
        options = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
            for name, default in (DEFAULTS if defaults is None else defaults).items()
            if name in declared.__optional_keys__
        ]
        shown_as = signature.replace(parameters=[*own, *options])
        function.__signature__ = shown_as  # type: ignore[attr-defined]
        meaning = str(inspect.getdoc(declared)).replace("Attributes:", "Options:")
        function.__doc__ = f"{inspect.getdoc(function)}\n\n{meaning}"
        return function

    return shown


def refuse_others(function: Callable[..., Any], names: Collection[str]) -> None:
    """Raise InvalidTypeError about options that the function does not take, if there are any."""
    if names:
        parameters = inspect.signature(function).parameters.values()
        known = ", ".join(x.name for x in parameters if x.kind is x.KEYWORD_ONLY)
        raise InvalidTypeError(
            f"{function.__name__} takes the options {known}; {min(names)!r} is none of them"
        )


@dataclass(slots=True)
class Task:
    """The checked options of one call, in the terms that the forms of the loss compute with.

    `rows` stands for the logits' shape without the class axis.

    Attributes:
        shape: the logits' shape.
        axis: the class axis, not negative.
        reduction: "mean", "sum" or "none".
        temperature: T, between 1e-300 and 1e300.
        divisor: what "mean" divides the sum by; 1 for the others.
        index: (rows) the right classes, a valid one also where a row is ignored; or None.
        soft: (shape) the effective target q, an array or a Tensor; or None.
        coefficient: (rows) w_t (1 − ε), 0 where a row is ignored; None for ones.
        smooth: (classes,) what every active row's target gets on top, ε/n · w; None for zeros.
        active: (rows) False where a row is ignored; None for all True.
    """

    shape: tuple[int, ...]
    axis: int
    reduction: str
    temperature: float
    divisor: float = 1.0
    index: np.ndarray | None = None
    soft: Any = None
    coefficient: np.ndarray | None = None
    smooth: np.ndarray | None = None
    active: np.ndarray | None = None

    @property
    def classes(self) -> int:
        """The length of the class axis."""
        return self.shape[self.axis]

    @property
    def rows(self) -> tuple[int, ...]:
        """The logits' shape without the class axis."""
        return without_axis(self.shape, self.axis)

    @property
    def target(self) -> Any:
        """The operand that stands for the target: class indices, or the effective distribution."""
        return self.soft if self.index is None else self.index

    def dense(self, dtype: Any, like: Any = None) -> Any:
        """Return the effective target q in the logits' shape, also where indices were given.

        If the logits `like` are of another kind than NumPy's, so is q.
        """
        if self.index is None:
            return self.soft
        kind = kind_of(like)
        if kind is not None:
            q = kind.one_hot(self.by_class(self.index), like, self.axis)
            q = q if self.coefficient is None else q * self.by_class(self.coefficient)
            if self.smooth is None:
                return q
            smooth = along(self.smooth, self.axis, q.ndim)
            return q + (smooth if self.active is None else smooth * self.by_class(self.active))
        q = np.zeros(self.shape, dtype)
        coefficient = 1.0 if self.coefficient is None else self.by_class(self.coefficient)
        np.put_along_axis(q, self.by_class(self.index), coefficient, self.axis)
        if self.smooth is not None:
            smooth = along(self.smooth, self.axis, q.ndim)
            q += smooth if self.active is None else smooth * self.by_class(self.active)
        return q

    def by_class(self, per_row: Any) -> Any:
        """Give an array of one number per row the class axis back, with length 1."""
        return as_array(per_row)[(slice(None),) * self.axis + (None,)]


def without_axis(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """The shape without one axis, counted from the front."""
    return shape[:axis] + shape[axis + 1 :]


def task_of(
    function: Callable[..., Any],
    shape: tuple[int, ...],
    dtype: Any,
    target: Any,
    /,
    *,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    axis: int = -1,
    **others: Any,
) -> Task:
    """Check the options that a function was given, and put them in the terms of a `Task`.

    `shape` and `dtype` are the logits'.

    The target's shape decides what it is: the logits' shape is a distribution over classes, the
    logits' shape without `axis` is class indices.

    Raises:
        InvalidTypeError: an argument has the wrong type, or an option is unknown.
        InvalidValueError: a shape or value is not allowed.
        LabelError: a class index is out of range.
    """
    if others:
        refuse_others(function, others)
    chosen = (shape, axis, reduction, label_smoothing, temperature)
    try:
        axis, rows = _seen_choices(*chosen)
    except TypeError:  # one that cannot be looked up, so that it is surely wrong
        axis, rows = _checked_choices(*chosen)
    classes = shape[axis]
    weight = None if weight is None else _checked_weight(weight, classes)
    task = Task(shape, axis, reduction, float(temperature))
    if isinstance(target, Tensor):
        plain = kind_of(target._array) is None
        given: Any = target if target.requires_grad else target.numpy() if plain else target._array
    else:
        given = target if type(target) is np.ndarray else rectangular(target, "target")
    if given.shape == shape:
        if ignore_index != -100:
            raise InvalidValueError(
                "ignore_index goes with class indices only; the target is a distribution, "
                f"since it has the logits' shape {shape}"
            )
        task.soft = _checked_distribution(given, dtype, weight, label_smoothing, axis)
        counted: Any = float(math.prod(rows))
    elif given.shape == rows:
        task.index, task.active = _checked_index(given, classes, ignore_index)
        counted = _aim_at_classes(task, task.index, weight, label_smoothing)
    else:
        swapped = given.ndim == len(shape) + 1 and given.shape[:-1] == shape
        raise InvalidValueError(
            f"target must have the logits' shape {shape} (a distribution) or "
            f"{rows} (class indices); got {given.shape}"
            + ("; are logits and target swapped?" if swapped else "")
        )
    if task.reduction == "mean" and type(counted) is not float:  # as labels that are lazy
        task.divisor = where(counted == 0, 1.0, counted)
    elif task.reduction == "mean" and counted:
        task.divisor = counted
    elif task.reduction == "mean":
        warn(
            "no row counts towards the mean (none is there, all are ignored, or all weights are "
            "0): the loss and its gradient are 0"
        )
    return task


DEFAULTS: dict[str, Any] = {
    x.name: x.default
    for x in inspect.signature(task_of).parameters.values()
    if x.kind is x.KEYWORD_ONLY
}
"""Every option by name, and what it is if it is not given."""


def _aim_at_classes(
    task: Task, index: np.ndarray, weight: np.ndarray | None, smoothing: float
) -> Any:
    """Set `coefficient` and `smooth`; return how much the rows count towards a mean."""
    kind = None if type(index) is np.ndarray else kind_of(index)
    counted: Any
    if kind is not None:
        one: Any = 1.0 if weight is None else kind.pick(weight, index)
        task.coefficient = one * task.active
        counted = sum(task.coefficient)
    elif weight is None:
        task.coefficient = None if task.active is None else task.active.astype(np.float64)
        counted = float(index.size if task.active is None else np.count_nonzero(task.active))
    else:
        factor = weight[index] if task.active is None else weight[index] * task.active
        with np.errstate(over="ignore"):
            counted = float(np.add.reduce(factor, axis=None))
            if task.reduction == "mean" and counted and not 1e-150 < counted < 1e150:
                _, exponent = math.frexp(factor.max())  # a power of two cancels in a mean
                weight, factor = np.ldexp(weight, -exponent), np.ldexp(factor, -exponent)
                counted = float(np.add.reduce(factor, axis=None))
        task.coefficient = factor
    if smoothing:
        weights = np.ones(task.classes) if weight is None else weight
        task.smooth = smoothing / task.classes * weights
        if weight is not None and not task.smooth.sum() < sys.float_info.max / 4:
            raise InvalidValueError(
                "weight must not be so large that the smoothed target's sum over the classes, "
                f"beside the weights of the target's classes, overflows; got up to {weight.max()}"
            )
        ones = np.ones(index.shape) if task.coefficient is None else task.coefficient
        task.coefficient = ones * (1 - smoothing)
    return counted


def _checked_axis(axis: Any, shape: tuple[int, ...]) -> int:
    if not is_integer(axis):
        raise InvalidTypeError(f"axis must be an integer; got {type(axis).__name__}")
    if not shape:
        raise InvalidValueError("logits must have a class axis; got a single number")
    number = int(axis)
    if not -len(shape) <= number < len(shape):
        raise InvalidValueError(
            f"axis must lie between {-len(shape)} and {len(shape) - 1} for logits of shape "
            f"{shape}; got {shown(number)}"
        )
    number %= len(shape)
    if shape[number] == 0:
        raise InvalidValueError(f"logits must have at least one class; their shape is {shape}")
    return number


def is_integer(value: Any) -> bool:
    """Whether a value is a whole number, and no truth value."""
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def _checked_choices(
    shape: tuple[int, ...], axis: Any, reduction: Any, label_smoothing: Any, temperature: Any
) -> tuple[int, tuple[int, ...]]:
    """Return the class axis, counted from the front, and the logits' shape without it."""
    axis = _checked_axis(axis, shape)
    if not isinstance(reduction, str) or reduction not in REDUCTIONS:
        raise InvalidValueError(
            f"reduction must be one of {', '.join(map(repr, REDUCTIONS))}; got {shown(reduction)}"
        )
    for name, value in (("label_smoothing", label_smoothing), ("temperature", temperature)):
        if not isinstance(value, Real):
            raise InvalidTypeError(f"{name} must be a number; got {type(value).__name__}")
    if not 0 <= label_smoothing <= 1:
        raise InvalidValueError(f"label_smoothing must lie in [0, 1]; got {shown(label_smoothing)}")
    if not (0 < temperature < math.inf):
        raise InvalidValueError(
            f"temperature must be positive and finite; got {shown(temperature)}"
        )
    if not 1e-300 <= temperature <= 1e300:
        raise InvalidValueError(
            f"temperature must lie between 1e-300 and 1e300; got {shown(temperature)}"
        )
    return axis, without_axis(shape, axis)


_seen_choices = lru_cache(maxsize=256, typed=True)(_checked_choices)  # a training loop's are


def _checked_weight(weight: Any, classes: int) -> np.ndarray:
    if isinstance(weight, Tensor):
        if weight.requires_grad:
            raise InvalidTypeError("weight is not differentiated: pass weight.detach()")
        weight = weight.numpy()
    array = rectangular(weight, "weight")
    if array.dtype.kind not in "biuf":
        raise InvalidTypeError(f"weight must be real numbers; got dtype {array.dtype}")
    array = array.astype(np.float64)
    if array.shape != (classes,):
        raise InvalidValueError(
            f"weight must have shape ({classes},), one number per class; got {array.shape}"
        )
    right = (array >= 0) & (array < math.inf)
    if not right.all():
        at = int(np.argmin(right))
        raise InvalidValueError(
            f"weight must be finite and not negative; got {array[at]} for class {at}"
        )
    return array


def _checked_distribution(
    given: Any, dtype: Any, weight: np.ndarray | None, smoothing: float, axis: int
) -> Any:
    """The effective target of a distribution; all that is wrong with it is found by one look."""
    values = current(given) if isinstance(given, Tensor) else given
    dtype = np.dtype(np.float64) if dtype.kind == "O" else dtype
    if type(values) is not np.ndarray or values.dtype.kind == "O":
        found = of_a_kind(values)
        if found is not None:  # formulas, or what is not computed yet: nothing to look at
            return _effective(
                given if isinstance(given, Tensor) else found, weight, smoothing, axis
            )
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


def _effective(y: Any, weight: np.ndarray | None, smoothing: float, axis: int) -> Any:
    """The effective target of a distribution, by operators: y may be an array or a Tensor."""
    if smoothing:
        y = y * (1 - smoothing) + smoothing / y.shape[axis]
    return y if weight is None else y * along(weight, axis, y.ndim).astype(y.dtype)


def _checked_index(
    given: Any, classes: int, ignore_index: Any
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return valid class indices, and which rows count (None: all of them)."""
    if not is_integer(ignore_index):
        raise InvalidTypeError(f"ignore_index must be an integer; got {shown(ignore_index)}")
    kind = None if type(given) is np.ndarray else kind_of(given)
    if given.size == 0 and kind is None:
        return np.zeros(given.shape, np.intp), None
    if given.dtype.kind not in "iu":
        raise InvalidTypeError(
            f"target of shape {given.shape} means class indices, which must be integers; "
            f"got dtype {given.dtype}"
            + (", which target.astype(int) makes of whole ones" if given.dtype.kind == "f" else "")
        )
    if kind is not None and not kind.is_computed(given):
        return kind.labels(given, classes, ignore_index)
    given = given if kind is None else kind.plain(given)
    index = np.array(given, np.intp)  # our own: the owner may change it before backward
    active = None
    if ignore_index >= 0 or not _all_below(classes, index):
        active = given != ignore_index
        index[~active] = 0
        if not _all_below(classes, index):
            wrong = (index < 0) | (index >= classes)
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise LabelError(
                f"target must be class indices from 0 to {classes - 1} (or ignore_index "
                f"{ignore_index}); got {given[at]}" + (f" at {at}" if at else "")
            )
    index.setflags(write=False)
    return index, None if active is None or active.all() else active


def _all_below(classes: int, index: np.ndarray) -> bool:
    """Whether 0 <= t < classes for all: seen as unsigned numbers, negative ones are large."""
    unsigned = index.view(np.uintp)
    return bool(unsigned.item(unsigned.argmax()) < classes)


def mask_of(logits: Any, axis: int) -> Any:
    """Return which logits are −inf, which masks their classes; None if none is.

    Raises InvalidValueError if one is NaN or +inf; other kinds of arrays than NumPy's say that
    where they are computed.
    """
    kind = kind_of(logits)
    if kind is not None:
        return kind.masked(logits)
    return None if refuse_non_finite(logits, axis) else np.isneginf(logits)


def refuse_non_finite(logits: np.ndarray, axis: int) -> bool:
    """Raise InvalidValueError if a logit is NaN or +inf; return whether none is −inf for sure."""
    if surely_finite(logits):
        return True
    top = np.max(logits, axis=axis, initial=-np.inf)  # NaN if there is one
    wrong = ~(top < np.inf)
    if wrong.any():
        raise non_finite(int(np.argmax(wrong)), logits.shape, axis)
    return False


def non_finite(row: int, shape: tuple[int, ...], axis: int) -> InvalidValueError:
    """The error for logits of `shape` with a NaN or +inf in a row, counted without the class axis.

    −inf is allowed: it masks a class.
    """
    rows = without_axis(shape, axis)
    at = tuple(int(i) for i in np.unravel_index(row, rows)) if rows else ()
    where = f"row {at[0] if len(at) == 1 else at} of the logits holds" if at else "they hold"
    return InvalidValueError(f"logits must be finite, or -inf to mask a class; {where} NaN or +inf")


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


def warn(sentence: str) -> None:
    """Warn at the line of the user's own code, from however deep in this package."""
    level = 1
    while sys._getframe(level).f_globals.get("__name__", "").startswith("tinygrad_sm."):
        level += 1
    warnings.warn(sentence, LossWarning, stacklevel=level + 1)


def as_tensor(x: Any) -> Tensor:
    """A Tensor as it is, anything else as a constant."""
    return x if isinstance(x, Tensor) else Tensor(x, requires_grad=False)


def as_given(loss: Tensor, *given: Any) -> Any:
    """The loss as a plain array, if nothing that was given is a Tensor."""
    if loss.requires_grad or any(isinstance(x, Tensor) for x in given):
        return loss
    return read_only(loss._array)
