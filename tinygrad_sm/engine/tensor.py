"""Tensor: an array to differentiate by, and the record of how it was computed.

A Tensor's array is private. What `data` hands out of a leaf is never the array that a recorded
operation keeps for backward, so changing it cannot spoil a gradient; backward notices and says so.
"""

from __future__ import annotations

import inspect
import itertools
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import numpy as np

from tinygrad_sm.engine import more
from tinygrad_sm.engine import rules as p
from tinygrad_sm.engine.intake import (
    described,
    misfit,
    own_index,
    read_only,
    real_numbers,
    rectangular,
)
from tinygrad_sm.engine.numpy_protocol import answer_for_numpy, unusual
from tinygrad_sm.engine.primitive import NUMPY, Primitive
from tinygrad_sm.engine.threads.large import LARGE, copied, share, unshared
from tinygrad_sm.errors import GradientWarning, InvalidTypeError, InvalidValueError, TinygradError

if TYPE_CHECKING:
    from tinygrad_sm.engine.sweep import BackwardTrace

_ndarray = np.ndarray
_new = object.__new__
_next_id = itertools.count().__next__  # atomic: one call into C

changing = threading.RLock()
"""Held while what several threads may share about a Tensor changes: its `grad`, its lent data."""
_NO_PARAMS: dict[str, Any] = {}

# `backward.backward`, which builds on Tensor and puts itself here
_backward: Callable[..., BackwardTrace | None] = None  # type: ignore[assignment]

F = TypeVar("F", bound=Callable[..., Any])
Defer = Callable[[Primitive, tuple[Any, ...], dict[str, Any], tuple[str, ...]], "Tensor | None"]

# How a Tensor was computed: the primitive (None: a leaf), its parameters, the operands after the
# second, the arrays that it was run on (None unless a leaf's may change), the groups
Call = tuple[
    "Primitive | None", dict[str, Any], tuple[Any, ...], "tuple[Any, ...] | None", tuple[str, ...]
]
_LEAF: Call = (None, _NO_PARAMS, (), None, ())

# (is recording on, the names of the groups that new nodes belong to, who may put operations off,
# what was made of these names: the one Call that the plain nodes of a primitive share, and what
# holds again once this scope is left)
_Recording = tuple[bool, tuple[str, ...], "Defer | None", dict[Primitive, Call], Any]
_recording: ContextVar[_Recording] = ContextVar("recording", default=(True, (), None, {}, None))


class _Scope:  # a class, since a generator costs as much as an operation
    """Something that holds for what is recorded inside; also a decorator of functions.

    It holds for one thread, or one asyncio task. What to go back to is kept there too, so that
    several of them may enter one object.
    """

    __slots__ = ()

    def _inside(self, now: _Recording) -> _Recording:
        raise NotImplementedError

    def __enter__(self) -> None:
        _recording.set(self._inside(_recording.get()))

    def __exit__(self, *error: object) -> None:
        _recording.set(_recording.get()[4])

    def __call__(self, function: F) -> F:
        """Return the function with each of its calls inside; it may be a coroutine function.

        Raises InvalidTypeError for a generator function: its caller runs between its steps.
        """
        what = type(self).__name__
        if not callable(function):
            raise InvalidTypeError(f"{what} decorates a function; got {described(function)}")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidTypeError(
                f"{what} cannot decorate the generator {function.__name__!r}, since its caller "
                f"runs between its steps; write `with tg.{what}(...):` inside, around no yield"
            )

        @wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        @wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            with self:
                return await function(*args, **kwargs)

        return cast(F, awaited if inspect.iscoroutinefunction(function) else inside)


class no_grad(_Scope):
    """Compute without recording: results inside take part in no gradient.

    Also a decorator, of a function that is to run so.
    """

    __slots__ = ()

    def _inside(self, now: _Recording) -> _Recording:
        return (False, now[1], None, now[3], now)


class recording(_Scope):
    """Record, inside `no_grad` too, and in no group."""

    __slots__ = ()

    def _inside(self, now: _Recording) -> _Recording:
        return (True, (), None, {}, now)


class deferring(_Scope):
    """Let `defer` answer first for what is recorded inside: with a Tensor, or None to run it."""

    __slots__ = ("_defer",)

    def __init__(self, defer: Defer) -> None:
        self._defer = defer

    def _inside(self, now: _Recording) -> _Recording:
        return (now[0], now[1], self._defer if now[0] else None, now[3], now)


class group(_Scope):
    """Mark the operations recorded inside as one named stage of the graph; groups may nest.

    Also a decorator, of a function whose operations are that stage.

    Raises:
        InvalidTypeError, InvalidValueError: the name is no text, or blank.
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = _text(name)
        if not name.strip():
            raise InvalidValueError("group: name must not be blank")

    def _inside(self, now: _Recording) -> _Recording:
        return (now[0], (*now[1], self._name), now[2], {}, now)


def is_recording() -> bool:
    """Return whether operations are recorded here, that is, not inside `no_grad`."""
    return _recording.get()[0]


class Tensor:
    """An n-dimensional array of floats that remembers how it was computed.

    Ways out of the graph: `item`, `numpy`, `detach` and `data`, formatting, `round` and `print`
    are asked for, and say nothing. `float(t)`, which `math.exp(t)`, `array[0] = t` and
    `array.fill(t)` call too, gives a GradientWarning if `t` requires a gradient; becoming a plain
    array (`np.asarray(t)`, `np.savez`, plotting) is refused then. Inside `no_grad` no gradient
    can be lost, and both just work.

    Augmented assignment (`w -= step`) changes the data of a leaf inside `no_grad`. Elsewhere it is
    refused for a leaf that requires a gradient, and means `w = w - step` for any other Tensor.

    Threads may share leaves: adding to `grad` is atomic for each Tensor, so that no addition is
    lost, in an order left to chance. A graph is for one backward at a time, and changing `data`
    while another thread computes with it is not safe. `no_grad` and `group` hold for one thread
    or asyncio task.

    Args:
        data: numbers, nested lists or an array, of any shape; copied. float16, float32, float64
            and longdouble are kept; integers and booleans become float64.
        name: shown in graphs, pictures and messages.
        dtype: a floating-point dtype to convert to.
        requires_grad: False makes a constant that can carry a name.

    Raises:
        InvalidTypeError: the elements are not real numbers (text, objects, complex numbers).
        InvalidValueError: nested lists of unequal lengths.

    Examples:
        >>> a = Tensor([2.0, 1.0, 0.1], name="a")
        >>> (a * a).sum().backward()
        >>> a.grad
        array([4. , 2. , 0.2])
    """

    __slots__ = (
        "__weakref__",
        "_array",
        "_call",
        "_first",
        "_grad",
        "_grad_shared",
        "_id",
        "_lent",
        "_second",
        "name",
        "requires_grad",
    )

    name: str | None
    requires_grad: bool
    _id: int  # creation order; inputs are older than what is made of them
    _array: (
        np.ndarray
    )  # what recorded operations read; nobody else holds it (`_data` is read by np.ma)
    _lent: np.ndarray | None  # a leaf's values once `data` gave them away to be changed
    _grad: Any
    _grad_shared: bool  # other gradients may share this array; `grad` copies before it gives it out
    # The operands: Tensors, and our own constants; None where there are fewer than two. Few slots
    # and no tuple for each node, since the garbage collector visits whatever there is.
    _first: Any
    _second: Any
    _call: Call

    __array_priority__: ClassVar[float] = 1000.0

    def __init__(
        self,
        data: Any,
        *,
        name: str | None = None,
        dtype: Any = None,
        requires_grad: bool = True,
    ) -> None:
        _fill_leaf(self, _float_array(data, dtype), requires_grad)
        self.name = None if name is None else _text(name)

    # What it holds --------------------------------------------------------------------------------

    @property
    def data(self) -> np.ndarray:
        """The values, of shape `shape` and dtype `dtype`.

        A leaf's array may be changed in place; a backward through operations that had used the
        old values then raises ChangedDataError. A computed Tensor's array is read-only.
        """
        if self._op is not None:
            return self.numpy()
        with changing:
            if self._lent is None:
                self._lent = self._array.copy()
            return self._lent

    @data.setter
    def data(self, value: Any) -> None:
        if self._op is not None:
            raise InvalidTypeError(
                f"data of a Tensor computed by {self._op.name!r} cannot be set; "
                "only a leaf's can: detach() makes one"
            )
        if value is self._lent:  # `t.data -= step` changed it in place and hands it back
            return
        array = _float_array(value, self._array.dtype, copy=False)
        if not array.flags.writeable:  # e.g. the data of a computed Tensor
            array = array.copy()
        if array.shape != self._array.shape:
            raise InvalidValueError(
                f"data must keep the shape {self._array.shape}; got {array.shape}"
            )
        self._lent = array

    @property
    def _now(self) -> np.ndarray:
        """The values as they are now, whoever may change them."""
        return self._array if self._lent is None else self._lent

    @property
    def grad(self) -> Any:
        """The gradient that `backward` has added up here: an array like `data`, or None.

        After ``backward(create_graph=True)`` it is a Tensor.
        """
        with changing:
            if self._grad_shared:
                self._grad = self._grad.copy()
                self._grad_shared = False
            return self._grad

    @grad.setter
    def grad(self, value: Any) -> None:
        if value is not None and not isinstance(value, Tensor):
            value = _float_array(value, self._array.dtype, copy=False, what="grad")
        if value is not None and value.shape != self._array.shape:
            raise InvalidValueError(
                f"grad must have the data's shape {self._array.shape}; got {value.shape}"
            )
        with changing:
            self._grad = value
            self._grad_shared = False

    def zero_grad(self) -> None:
        """Forget the gradient: `grad` is None again."""
        self.grad = None

    @property
    def op(self) -> str | None:
        """The name of the primitive that computed this Tensor; None for a leaf."""
        return None if self._op is None else self._op.name

    @property
    def _op(self) -> Primitive | None:
        """The primitive that computed this Tensor; None for a leaf."""
        return self._call[0]

    @property
    def _params(self) -> dict[str, Any]:
        """The keyword parameters of the operation; not to be changed, others may share them."""
        return self._call[1]

    @property
    def _snapshots(self) -> tuple[Any, ...] | None:
        """The arrays that the operation was run on, kept if a leaf's may change; else None."""
        return self._call[3]

    @property
    def _groups(self) -> tuple[str, ...]:
        """The names of the stages that this Tensor belongs to, outermost first."""
        return self._call[4]

    @property
    def _operands(self) -> tuple[Any, ...]:
        """The arguments of the operation: Tensors, and our own constants."""
        if self._second is not None:
            return (self._first, self._second, *self._call[2])
        return () if self._first is None else (self._first,)

    @property
    def _inputs(self) -> tuple[Tensor | None, ...]:
        """The Tensors among the operands; None where a plain array or number stood."""
        return tuple(x if isinstance(x, Tensor) else None for x in self._operands)

    @property
    def _args(self) -> tuple[Any, ...]:
        """The arrays and numbers that the operation was run on."""
        if self._snapshots is not None:
            return self._snapshots
        return tuple(x._array if isinstance(x, Tensor) else x for x in self._operands)

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The floating-point type of the elements."""
        return self._array.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._array.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._array.size

    @property
    def T(self) -> Tensor:
        """The Tensor with its axes reversed."""
        return self.transpose()

    def tolist(self) -> Any:
        """The values as Python numbers in nested lists, without a gradient."""
        return self._now.tolist()

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Any:
        """The position of the largest element along `axis`, a plain integer or array."""
        return np.argmax(self._now, axis, keepdims=keepdims)

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Any:
        """The position of the smallest element along `axis`, a plain integer or array."""
        return np.argmin(self._now, axis, keepdims=keepdims)

    def argsort(self, axis: int | None = -1) -> Any:
        """The positions of the elements in ascending order, a plain array."""
        return np.argsort(self._now, axis, kind="stable")

    def item(self) -> float:
        """The single element as a Python float.

        Raises:
            InvalidValueError: there is not exactly one element.
        """
        if self._array.size != 1:
            raise InvalidValueError(f"item needs exactly one element; the shape is {self.shape}")
        return float(self._now.item())

    def numpy(self) -> np.ndarray:
        """The values as a read-only array, without a copy and without a gradient."""
        return read_only(self._now, self._lent is None)

    def detach(self) -> Tensor:
        """A constant with these values: no gradient flows through it."""
        return _made(_unexposed(self))

    def __reduce__(self) -> Any:
        if self._op is not None:
            raise InvalidTypeError(
                f"a Tensor computed by {self._op.name!r} cannot be copied or pickled; "
                "detach() it first, or take numpy()"
            )
        grad = None if self.grad is None else np.array(_plain(self.grad))
        return _leaf, (self._now, self.name, self.requires_grad, grad)  # a copy is another Tensor

    def named(self, name: str) -> Tensor:
        """Give this Tensor a name for graphs and pictures, and return it."""
        self.name = _text(name)
        return self

    def __repr__(self) -> str:
        values = np.array2string(self._now, separator=", ", threshold=20, prefix="Tensor(")
        facts = [f"shape={self.shape}", f"dtype={self.dtype}"]
        if self.name is not None:
            facts.append(f"name={self.name!r}")
        if self._op is not None:
            facts.append(f"op={self._op.name!r}")
        elif not self.requires_grad:
            facts.append("requires_grad=False")
        return f"Tensor({values}, {', '.join(facts)})"

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self._array)))

    def __bool__(self) -> bool:
        return bool(self._now)

    def __float__(self) -> float:
        value = self.item()
        _warn_of_loss(self)
        return value

    def __int__(self) -> int:
        value = self.item()
        _warn_of_loss(self)
        return int(value)

    def __round__(self, ndigits: int | None = None) -> float:
        return round(self.item(), ndigits)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    # Backward -------------------------------------------------------------------------------------

    def backward(
        self, gradient: Any = None, *, create_graph: bool = False, trace: bool = False
    ) -> BackwardTrace | None:
        """Add the gradient of this Tensor to `grad` of every Tensor that took part in it.

        Args:
            gradient: the cotangent to start from, of this Tensor's shape; 1 when it has one
                element, needed otherwise.
            create_graph: record the sweep, so that the gradients (then Tensors) can be
                differentiated again. They refer to this graph: clear them with `zero_grad`.
            trace: return the record of the sweep, with what every edge contributed.

        Raises:
            InvalidValueError: `gradient` is missing or has the wrong shape.
            InvalidTypeError: no Tensor that requires a gradient took part.
            ChangedDataError: data was changed in place after it was used.
        """
        return _backward(self, gradient, create_graph=create_graph, trace=trace)

    # Operators ------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Tensor:
        return _operated(p.add, self, other)

    def __radd__(self, other: Any) -> Tensor:
        return record(p.add, (other, self))

    def __sub__(self, other: Any) -> Tensor:
        return _operated(p.sub, self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return record(p.sub, (other, self))

    def __mul__(self, other: Any) -> Tensor:
        return _operated(p.mul, self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return record(p.mul, (other, self))

    def __truediv__(self, other: Any) -> Tensor:
        return _operated(p.div, self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return record(p.div, (other, self))

    def __pow__(self, other: Any) -> Tensor:
        return _operated(p.pow, self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return record(p.pow, (other, self))

    def __matmul__(self, other: Any) -> Tensor:
        return _operated(p.matmul, self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return record(p.matmul, (other, self))

    def _augmented(self, primitive: Primitive, sign: str, other: Any) -> Tensor:
        """``self sign= other``: the data of a leaf inside `no_grad`, else a new Tensor."""
        if self._op is None and not is_recording():
            if type(other) not in (int, float):
                other = real_numbers(_plain(other), f"{sign}=: the right side")
            try:
                primitive.forward(self.data, other, out=self.data)
            except (ValueError, TypeError, OverflowError) as error:
                raise misfit(f"{sign}=", [self, other], error) from error
            return self
        if self._op is None and self.requires_grad:
            name = self.name or "w"
            raise InvalidTypeError(
                f"{name} {sign}= … changes a leaf, which no gradient can follow: write it inside "
                f"`with tg.no_grad():` to train {name}, or {name} = {name} {sign} … for a new one"
            )
        return _operated(primitive, self, other)

    def __iadd__(self, other: Any) -> Tensor:
        return self._augmented(p.add, "+", other)

    def __isub__(self, other: Any) -> Tensor:
        return self._augmented(p.sub, "-", other)

    def __imul__(self, other: Any) -> Tensor:
        return self._augmented(p.mul, "*", other)

    def __itruediv__(self, other: Any) -> Tensor:
        return self._augmented(p.div, "/", other)

    def __ipow__(self, other: Any) -> Tensor:
        return self._augmented(p.pow, "**", other)

    def __imatmul__(self, other: Any) -> Tensor:
        return self._augmented(p.matmul, "@", other)

    def __neg__(self) -> Tensor:
        return record(p.neg, (self,))

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return record(p.abs, (self,))

    def __getitem__(self, index: Any) -> Tensor:
        return record(p.getitem, (self,), {"index": own_index(index)})

    # Comparisons are piecewise constant: they give plain boolean arrays.

    def __lt__(self, other: Any) -> Any:
        return self._now < _plain(other)

    def __le__(self, other: Any) -> Any:
        return self._now <= _plain(other)

    def __gt__(self, other: Any) -> Any:
        return self._now > _plain(other)

    def __ge__(self, other: Any) -> Any:
        return self._now >= _plain(other)

    def __eq__(self, other: object) -> Any:
        return self._now == _plain(other)

    def __ne__(self, other: object) -> Any:
        return self._now != _plain(other)

    __hash__ = object.__hash__

    # Methods --------------------------------------------------------------------------------------

    def exp(self) -> Tensor:
        """Element by element e to the power of the values."""
        return record(p.exp, (self,))

    def log(self) -> Tensor:
        """Element by element natural logarithm."""
        return record(p.log, (self,))

    def log1p(self) -> Tensor:
        """Element by element log(1 + x), accurate near 0."""
        return record(p.log1p, (self,))

    def sqrt(self) -> Tensor:
        """Element by element square root."""
        return record(p.sqrt, (self,))

    def tanh(self) -> Tensor:
        """Element by element hyperbolic tangent."""
        return record(p.tanh, (self,))

    def sigmoid(self) -> Tensor:
        """Element by element logistic function."""
        return record(p.sigmoid, (self,))

    def relu(self) -> Tensor:
        """Element by element positive part."""
        return record(p.relu, (self,))

    def abs(self) -> Tensor:
        """Element by element absolute value."""
        return record(p.abs, (self,))

    # The parameters of ndarray's methods that are not here may be given as what they are anyway

    def sum(self, axis: p.Axis = None, keepdims: bool = False, **usual: Any) -> Tensor:
        """Sum along `axis` (an int, a tuple, or None for all)."""
        return _reduced(p.sum, self, axis, keepdims, usual)

    def mean(self, axis: p.Axis = None, keepdims: bool = False, **usual: Any) -> Tensor:
        """Mean along `axis` (an int, a tuple, or None for all)."""
        return _reduced(p.mean, self, axis, keepdims, usual)

    def max(self, axis: p.Axis = None, keepdims: bool = False, **usual: Any) -> Tensor:
        """Largest element along `axis`; ties share the gradient evenly."""
        return _reduced(p.max, self, axis, keepdims, usual)

    def min(self, axis: p.Axis = None, keepdims: bool = False, **usual: Any) -> Tensor:
        """Smallest element along `axis`; ties share the gradient evenly."""
        return _reduced(more.min, self, axis, keepdims, usual)

    def prod(self, axis: p.Axis = None, keepdims: bool = False, **usual: Any) -> Tensor:
        """Product along `axis` (an int, a tuple, or None for all)."""
        return _reduced(more.prod, self, axis, keepdims, usual)

    def cumsum(self, axis: int | None = None, **usual: Any) -> Tensor:
        """Running sum along `axis`; of all elements in a row if it is None."""
        return more.cumsum(self, axis, **unusual(usual))

    def var(
        self, axis: p.Axis = None, ddof: float = 0, keepdims: bool = False, **usual: Any
    ) -> Tensor:
        """Variance along `axis`, with the divisor n - `ddof`."""
        return more.var(self, axis, ddof, keepdims, **usual)

    def std(
        self, axis: p.Axis = None, ddof: float = 0, keepdims: bool = False, **usual: Any
    ) -> Tensor:
        """Standard deviation along `axis`; its slope is 0 where all elements are equal."""
        return more.std(self, axis, ddof, keepdims, **usual)

    def clip(self, min: Any = None, max: Any = None, **usual: Any) -> Tensor:
        """Elements kept between `min` and `max`; None is no bound."""
        return more.clip(self, min, max, **usual)

    def dot(self, other: Any, **usual: Any) -> Tensor:
        """Matrix product, as `np.dot` has it."""
        return cast(Tensor, more.dot(self, other, **usual))

    def ravel(self, **usual: Any) -> Tensor:
        """All elements in a row."""
        return more.ravel(self, **usual)

    flatten = ravel

    def squeeze(self, axis: p.Axis = None) -> Tensor:
        """Without the axes of length 1, or without those of them that `axis` names."""
        return more.squeeze(self, axis)

    def swapaxes(self, axis1: int, axis2: int) -> Tensor:
        """Two axes exchanged."""
        return more.swapaxes(self, axis1, axis2)

    def repeat(self, repeats: Any, axis: int | None = None) -> Tensor:
        """Each element several times in succession along `axis`."""
        return more.repeat(self, repeats, axis)

    def take(self, indices: Any, axis: int | None = None) -> Tensor:
        """The elements at integer positions along `axis`."""
        return more.take(self, indices, axis)

    def trace(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
        """Sum of the elements (i, i + `offset`) of two axes."""
        return more.trace(self, offset, axis1, axis2)

    def diagonal(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
        """The elements (i, i + `offset`) of two axes, as the last axis."""
        return more.diagonal(self, offset, axis1, axis2)

    def copy(self) -> Tensor:
        """The same values again; the gradient flows through. `detach` makes a constant."""
        return record(p.astype, (self,), {"dtype": self.dtype})

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements in another shape, given as numbers or as one tuple."""
        one = len(shape) == 1 and isinstance(shape[0], Sequence)
        return record(p.reshape, (self,), {"shape": tuple(shape[0]) if one else shape})

    def transpose(self, *axes: Any) -> Tensor:
        """The axes reversed, or in the order given as numbers or as one tuple."""
        if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], Sequence)):
            axes = () if axes[0] is None else tuple(axes[0])
        return record(p.transpose, (self,), {"axes": axes or None})

    def astype(self, dtype: Any, copy: bool = True) -> Tensor:
        """The same values in another floating-point dtype; this Tensor if `copy` may be left."""
        if not copy and _float_dtype(dtype) == self.dtype:
            return self
        return record(p.astype, (self,), {"dtype": _float_dtype(dtype)})

    # NumPy's protocols ----------------------------------------------------------------------------

    def __primitive__(
        self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]
    ) -> Tensor:
        """Answer a call of a primitive: compute and record."""
        owned = {
            name: own_index(value) if name == "index" else _owned(value)
            for name, value in params.items()
        }
        return record(primitive, args, owned)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__":
            raise InvalidTypeError(
                f"np.{ufunc.__name__}.{method} does not differentiate a Tensor; "
                "use an operation of tinygrad_sm"
            )
        if ufunc in _CONSTANT and not kwargs:
            return ufunc(*(_plain(x) for x in inputs))
        return answer_for_numpy(ufunc, inputs, kwargs)

    def __array_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if function in _CONSTANT and "out" not in kwargs:
            return function(*(_plain(x) for x in args), **{k: _plain(v) for k, v in kwargs.items()})
        given = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        wanted = is_recording() and any(x.requires_grad for x in given)
        if given and not wanted and function not in NUMPY:  # e.g. np.savez; nothing can be lost
            plain = {k: _plain(v) for k, v in kwargs.items()}
            return self._now.__array_function__(function, (), tuple(map(_plain, args)), plain)
        return answer_for_numpy(function, args, kwargs)

    if not TYPE_CHECKING:  # else `array @ tensor` seems to be an array to them

        def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
            if self.requires_grad and is_recording():
                raise InvalidTypeError(
                    "a Tensor that requires a gradient does not turn into a plain array unasked, "
                    "since the gradient would be lost; use t.numpy(), or tg.stack to join Tensors "
                    "(inside tg.no_grad() it does)"
                )
            return np.array(self._now, dtype=dtype)


# NumPy functions whose results are booleans, integers or shapes, or constant but for jumps: there
# is nothing to differentiate.
_CONSTANT: frozenset[Callable[..., Any]] = frozenset(
    {
        np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal,
        np.isfinite, np.isinf, np.isnan, np.signbit, np.logical_and, np.logical_or, np.logical_not,
        np.argmax, np.argmin, np.argsort, np.shape, np.ndim, np.size, np.all, np.any,
        np.array_equal, np.allclose, np.isclose, np.count_nonzero, np.nonzero, np.result_type,
        np.zeros_like, np.ones_like, np.empty_like, np.array_repr, np.array_str,
        np.array2string, np.sign, np.floor, np.ceil, np.rint, np.trunc, np.round, np.argpartition,
        np.searchsorted, np.isreal, np.iscomplex, np.isrealobj, np.iscomplexobj,
    }
)  # fmt: skip


def record(
    primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any] = _NO_PARAMS
) -> Tensor:
    """Run a primitive on Tensors, arrays and numbers, and record it if a gradient may be wanted.

    Raises:
        InvalidTypeError: an argument is not a number, an array of real numbers, or a Tensor.
        InvalidValueError: the primitive does not take these shapes or parameters.
    """
    on, groups, defer, calls, _ = _recording.get()
    if defer is not None:
        put_off = defer(primitive, args, params, groups)
        if put_off is not None:
            return put_off
    arrays: list[Any] = []
    wanted = lent = unsettled = large = False
    for x in args:
        if isinstance(x, Tensor):
            data = x._array
            arrays.append(data)
            if data.size >= LARGE:
                large = True
            if x.requires_grad:
                wanted = True
            if x._lent is not None:
                lent = True
        else:
            arrays.append(x)
            if type(x) is not float and type(x) is not int and not _is_settled(primitive, x):
                unsettled = True
    wanted = wanted and on
    if unsettled:
        _settle_constants(primitive, args, arrays, wanted)
        args = tuple([x if isinstance(x, Tensor) else a for x, a in zip(args, arrays, strict=True)])
    snapshots = None
    if lent:
        arrays = [_unexposed(x) if isinstance(x, Tensor) else x for x in args]
        snapshots = tuple(arrays)
    if large and primitive.shares:
        arrays = [share(x) for x in arrays]
    try:
        out = primitive.forward(*arrays, **params) if params else primitive.forward(*arrays)
    except TinygradError:  # already says what is wrong
        raise
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise misfit(primitive.name, arrays, error) from error
    if type(out) is not _ndarray:
        out = np.asarray(unshared(out))
    t: Tensor = _new(Tensor)
    if not wanted:
        _fill_leaf(t, out, False)
        return t
    t._id = _next_id()
    t._array = out
    _fill_call(t, primitive, args, params, snapshots, groups, calls)
    t._lent = t.name = t._grad = None
    t.requires_grad = True
    t._grad_shared = False
    return t


def _reduced(
    row: Primitive, x: Tensor, axis: p.Axis, keepdims: bool, usual: dict[str, Any]
) -> Tensor:
    """A method that reduces, with what else was said; the call refuses what is not usual."""
    if usual:
        return cast(Tensor, row(x, axis=axis, keepdims=keepdims, **unusual(usual)))
    return record(row, (x,), {"axis": axis, "keepdims": keepdims})


def _operated(primitive: Primitive, x: Tensor, y: Any) -> Tensor:
    """Do what `record` does, for an operator: most nodes are made here, so what is rare is not."""
    on, _, defer, calls, _ = _recording.get()
    call = calls.get(primitive)
    if not on or defer is not None or x._lent is not None or call is None:
        return record(primitive, (x, y))
    a, b = x._array, y
    wanted = x.requires_grad
    usual = a.size < LARGE
    if isinstance(y, Tensor):
        b = y._array
        wanted = wanted or y.requires_grad
        usual = usual and y._lent is None
    elif type(y) is _ndarray:
        usual = usual and y.dtype.kind == "f"
        if wanted and usual and (y.flags.writeable or y.base is not None):
            y = b = y.copy()  # as in `_settle_constants`
    elif type(y) is not float and type(y) is not int:
        usual = False
    if not wanted or not usual:
        return record(primitive, (x, y))
    try:
        out = primitive.forward(a, b)
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise misfit(primitive.name, [a, b], error) from error
    if type(out) is not _ndarray:
        out = np.asarray(out)
    t: Tensor = _new(Tensor)
    t._id = _next_id()
    t._array = out
    t._first = x
    t._second = y
    t._call = call
    t._lent = t.name = t._grad = None
    t.requires_grad = True
    t._grad_shared = False
    return t


def _fill_call(
    t: Tensor,
    primitive: Primitive,
    args: tuple[Any, ...],
    params: dict[str, Any],
    snapshots: tuple[Any, ...] | None,
    groups: tuple[str, ...],
    calls: dict[Primitive, Call],
) -> None:
    """Note in `t` how it was computed; `calls` are those that nodes of these groups share."""
    t._first = args[0]
    t._second = args[1] if len(args) > 1 else None
    others = args[2:]
    if params or others or snapshots is not None:
        t._call = (primitive, params, others, snapshots, groups)
        return
    call = calls.get(primitive)
    if call is None:
        call = calls[primitive] = (primitive, _NO_PARAMS, (), None, groups)
    t._call = call


def _fill_leaf(t: Tensor, data: np.ndarray, requires_grad: bool) -> None:
    t._id = _next_id()
    t._array = data
    t._first = t._second = t._lent = t.name = t._grad = None
    t._call = _LEAF
    t.requires_grad = requires_grad
    t._grad_shared = False


def _warn_of_loss(x: Tensor) -> None:
    """Warn at the line that turned a Tensor into a number without saying so."""
    if x.requires_grad and is_recording():
        warnings.warn(
            "a Tensor that requires a gradient became a plain number, which has none: write "
            "t.item() if that is meant; else tg.stack or tg.concatenate instead of filling an "
            "array, tg.exp instead of math.exp",
            GradientWarning,
            stacklevel=3,
        )


def _unexposed(x: Tensor) -> np.ndarray:
    """The values now, as an array that nobody else can change."""
    return x._array if x._lent is None else x._lent.copy()


def _leaf(
    data: np.ndarray, name: str | None, requires_grad: bool, grad: np.ndarray | None = None
) -> Tensor:
    t = Tensor(data, name=name, requires_grad=requires_grad)
    t.grad = grad
    return t


def _made(data: np.ndarray) -> Tensor:
    """A constant Tensor around an array that nobody else can change."""
    t: Tensor = _new(Tensor)
    _fill_leaf(t, data, False)
    return t


def _is_settled(primitive: Primitive, x: Any) -> bool:
    """Whether a plain argument is fit to compute with as it is, and nobody can change it."""
    if type(x) is not _ndarray or x.base is not None or x.flags.writeable:
        return False
    kind = x.dtype.kind
    return kind == "f" or (kind in "iu" and primitive.integers)


def _settle_constants(
    primitive: Primitive, args: tuple[Any, ...], arrays: list[Any], wanted: bool
) -> None:
    """Make plain arguments fit to compute with and, where backward may need them, our own."""
    for i, x in enumerate(args):
        if isinstance(x, Tensor) or type(x) in (bool, int, float):
            continue
        array = real_numbers(x, f"{primitive.name}: argument {i + 1}")
        kind = array.dtype.kind
        if kind != "f" and not primitive.integers and primitive.vjps(len(args))[i] is not None:
            # integers have no precision of their own to impose
            arrays[i] = array.astype(
                np.result_type(*(t.dtype for t in args if isinstance(t, Tensor)))
            )
        elif wanted and (array.flags.writeable or array.base is not None):
            arrays[i] = copied(array)  # the owner (of its base) may change it before backward
        elif not isinstance(x, np.generic):
            arrays[i] = array


def _owned(parameter: Any) -> Any:
    """A parameter that its giver cannot change before backward reads it again."""
    if type(parameter) is not Tensor and hasattr(type(parameter), "__array__"):
        return parameter if isinstance(parameter, np.generic) else np.array(parameter)
    if type(parameter) in (list, tuple):
        return type(parameter)(_owned(part) for part in parameter)
    return parameter


def _text(name: Any) -> str:
    if not isinstance(name, str):
        raise InvalidTypeError(f"name must be text; got {type(name).__name__}")
    return name


def _plain(x: Any) -> Any:
    return x._now if isinstance(x, Tensor) else x


def _float_dtype(dtype: Any) -> np.dtype[Any]:
    found: np.dtype[Any] | None
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.kind != "f":
        raise InvalidTypeError(
            f"dtype must be a floating-point type such as 'float32' or 'float64'; got {dtype!r}"
        )
    return found


def _float_array(data: Any, dtype: Any, copy: bool = True, what: str = "data") -> np.ndarray:
    """An array of real floating-point numbers made of whatever the user gave."""
    if isinstance(data, Tensor):
        data = data._now
        copy = True  # a Tensor's array is its own
    wanted = None if dtype is None else _float_dtype(dtype)
    array = rectangular(data, what)
    if array.dtype.kind not in "biuf":
        raise InvalidTypeError(
            f"{what} must be real numbers; got {described(data)}"
            if array.dtype.kind != "O"
            else f"{what} must be real numbers; got an array of objects made from "
            f"{type(data).__name__}"
        )
    if wanted is None:
        wanted = array.dtype if array.dtype.kind == "f" else np.dtype(np.float64)
    if copy:
        return np.array(array, dtype=wanted, order="C")
    return np.asarray(array, dtype=wanted)
