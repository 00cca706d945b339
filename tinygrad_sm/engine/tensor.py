"""Tensor: an array to differentiate by, with its operators and methods.

A Tensor's array is private. What `data` hands out of a leaf is never the array that a recorded
operation keeps for backward, so changing it cannot spoil a gradient; backward notices and says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np

from tinygrad_sm.engine import memory, more, shapes
from tinygrad_sm.engine import rules as p
from tinygrad_sm.engine.calling import call
from tinygrad_sm.engine.gradients import backward
from tinygrad_sm.engine.intake import (
    float_dtype,
    misfit,
    own_index,
    owned,
    read_only,
    real_numbers,
    text,
)
from tinygrad_sm.engine.node import LEAF, Node, leaf
from tinygrad_sm.engine.numpy_protocol import answer_for_numpy, unusual
from tinygrad_sm.engine.primitive import NUMPY, Primitive
from tinygrad_sm.engine.quick import operated
from tinygrad_sm.engine.scopes import is_recording
from tinygrad_sm.engine.trace import BackwardTrace
from tinygrad_sm.errors import GradientWarning, InvalidTypeError, InvalidValueError


class Tensor(Node):
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

    __slots__ = ()

    __array_priority__: ClassVar[float] = 1000.0

    def __new__(
        cls,
        data: Any,
        *,
        name: str | None = None,
        dtype: Any = None,
        requires_grad: bool = True,
    ) -> Self:
        """Return a leaf."""
        made = leaf(cls, memory.floats(data, dtype), requires_grad)
        made.name = None if name is None else text(name)
        return cast(Self, made)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__(kind=Tensor)

    # What it holds --------------------------------------------------------------------------------

    @property
    def data(self) -> np.ndarray:
        """The values, of shape `shape` and dtype `dtype`.

        A leaf's array may be changed in place; a backward through operations that had used the
        old values then raises ChangedDataError. A computed Tensor's array is read-only.
        """
        return memory.lend(self) if self._operation is LEAF else self.numpy()

    @data.setter
    def data(self, value: Any) -> None:
        if self._operation is not LEAF:
            raise InvalidTypeError(
                f"data of a Tensor computed by {self.op!r} cannot be set; "
                "only a leaf's can: detach() makes one"
            )
        if value is memory.current(self):  # `t.data -= step` changed it in place and hands it back
            return
        array = memory.floats(value, self.dtype, copy=False)
        if not array.flags.writeable:  # e.g. the data of a computed Tensor
            array = array.copy()
        if array.shape != self._array.shape:
            raise InvalidValueError(
                f"data must keep the shape {self._array.shape}; got {array.shape}"
            )
        memory.set_data(self, array)

    @property
    def _now(self) -> np.ndarray:
        """The values as they are now, whoever may change them."""
        return memory.current(self)

    @property
    def grad(self) -> Any:
        """The gradient that `backward` has added up here: an array like `data`, or None.

        After ``backward(create_graph=True)`` it is a Tensor.
        """
        return memory.grad_of(self)

    @grad.setter
    def grad(self, value: Any) -> None:
        if value is not None and not isinstance(value, Tensor):
            value = memory.floats(value, self.dtype, copy=False, what="grad")
        if value is not None and value.shape != self._array.shape:
            raise InvalidValueError(
                f"grad must have the data's shape {self._array.shape}; got {value.shape}"
            )
        memory.set_grad(self, value)

    def zero_grad(self) -> None:
        """Forget the gradient: `grad` is None again."""
        self.grad = None

    @property
    def op(self) -> str | None:
        """The name of the primitive that computed this Tensor; None for a leaf."""
        primitive = self._operation.primitive
        return None if primitive is None else primitive.name

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
        return read_only(self._now, not memory.is_lent(self))

    def detach(self) -> Tensor:
        """A constant with these values: no gradient flows through it."""
        return constant(memory.unexposed(self))

    def __reduce__(self) -> Any:
        if self._operation is not LEAF:
            raise InvalidTypeError(
                f"a Tensor computed by {self.op!r} cannot be copied or pickled; "
                "detach() it first, or take numpy()"
            )
        grad = None if self.grad is None else np.array(_plain(self.grad))
        return _leaf, (self._now, self.name, self.requires_grad, grad)  # a copy is another Tensor

    def named(self, name: str) -> Tensor:
        """Give this Tensor a name for graphs and pictures, and return it."""
        self.name = text(name)
        return self

    def __repr__(self) -> str:
        values = np.array2string(self._now, separator=", ", threshold=20, prefix="Tensor(")
        facts = [f"shape={self.shape}", f"dtype={self.dtype}"]
        if self.name is not None:
            facts.append(f"name={self.name!r}")
        if self._operation is not LEAF:
            facts.append(f"op={self.op!r}")
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
        return backward(self, gradient, create_graph=create_graph, trace=trace)

    # Operators ------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Tensor:
        return operated(p.add, self, other)

    def __radd__(self, other: Any) -> Tensor:
        return call(p.add, (other, self))

    def __sub__(self, other: Any) -> Tensor:
        return operated(p.sub, self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return call(p.sub, (other, self))

    def __mul__(self, other: Any) -> Tensor:
        return operated(p.mul, self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return call(p.mul, (other, self))

    def __truediv__(self, other: Any) -> Tensor:
        return operated(p.div, self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return call(p.div, (other, self))

    def __pow__(self, other: Any) -> Tensor:
        return operated(p.pow, self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return call(p.pow, (other, self))

    def __matmul__(self, other: Any) -> Tensor:
        return operated(shapes.matmul, self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return call(shapes.matmul, (other, self))

    def _augmented(self, primitive: Primitive, sign: str, other: Any) -> Tensor:
        """``self sign= other``: the data of a leaf inside `no_grad`, else a new Tensor."""
        if self._operation is LEAF and not is_recording():
            if type(other) not in (int, float):
                other = real_numbers(_plain(other), f"{sign}=: the right side")
            try:
                primitive.forward(self.data, other, out=self.data)
            except (ValueError, TypeError, OverflowError) as error:
                raise misfit(f"{sign}=", [self, other], error) from error
            return self
        if self._operation is LEAF and self.requires_grad:
            name = self.name or "w"
            raise InvalidTypeError(
                f"{name} {sign}= … changes a leaf, which no gradient can follow: write it inside "
                f"`with tg.no_grad():` to train {name}, or {name} = {name} {sign} … for a new one"
            )
        return operated(primitive, self, other)

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
        return self._augmented(shapes.matmul, "@", other)

    def __neg__(self) -> Tensor:
        return operated(p.neg, self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return operated(p.abs, self)

    def __getitem__(self, index: Any) -> Tensor:
        return operated(shapes.getitem, self, params={"index": own_index(index)})

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
        return operated(p.exp, self)

    def log(self) -> Tensor:
        """Element by element natural logarithm."""
        return operated(p.log, self)

    def log1p(self) -> Tensor:
        """Element by element log(1 + x), accurate near 0."""
        return operated(p.log1p, self)

    def sqrt(self) -> Tensor:
        """Element by element square root."""
        return operated(p.sqrt, self)

    def tanh(self) -> Tensor:
        """Element by element hyperbolic tangent."""
        return operated(p.tanh, self)

    def sigmoid(self) -> Tensor:
        """Element by element logistic function."""
        return operated(p.sigmoid, self)

    def relu(self) -> Tensor:
        """Element by element positive part."""
        return operated(p.relu, self)

    def abs(self) -> Tensor:
        """Element by element absolute value."""
        return operated(p.abs, self)

    # `usual`: other parameters of ndarray's methods, which may only be given their usual values

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
        return operated(shapes.astype, self, params={"dtype": self.dtype})

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements in another shape, given as numbers or as one tuple."""
        one = len(shape) == 1 and isinstance(shape[0], Sequence)
        return operated(shapes.reshape, self, params={"shape": tuple(shape[0]) if one else shape})

    def transpose(self, *axes: Any) -> Tensor:
        """The axes reversed, or in the order given as numbers or as one tuple."""
        if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], Sequence)):
            axes = () if axes[0] is None else tuple(axes[0])
        return operated(shapes.transpose, self, params={"axes": axes or None})

    def astype(self, dtype: Any, copy: bool = True) -> Tensor:
        """The same values in another floating-point dtype; this Tensor if `copy` may be left."""
        if not copy and float_dtype(dtype) == self.dtype:
            return self
        return operated(shapes.astype, self, params={"dtype": float_dtype(dtype)})

    # NumPy's protocols ----------------------------------------------------------------------------

    def __primitive__(
        self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]
    ) -> Tensor:
        """Answer a call of a primitive: compute and record."""
        kept = {
            name: own_index(value) if name == "index" else owned(value)
            for name, value in params.items()
        }
        return (
            operated(primitive, self, params=kept)
            if len(args) == 1
            else call(primitive, args, kept)
        )

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


def _reduced(
    row: Primitive, x: Tensor, axis: p.Axis, keepdims: bool, usual: dict[str, Any]
) -> Tensor:
    """A method that reduces, with what else was said; the call refuses what is not usual."""
    if usual:
        return cast(Tensor, row(x, axis=axis, keepdims=keepdims, **unusual(usual)))
    return operated(row, x, params={"axis": axis, "keepdims": keepdims})


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


def _leaf(
    data: np.ndarray, name: str | None, requires_grad: bool, grad: np.ndarray | None = None
) -> Tensor:
    t = Tensor(data, name=name, requires_grad=requires_grad)
    t.grad = grad
    return t


def constant(array: np.ndarray) -> Tensor:
    """Return a constant Tensor around an array that nobody else can change."""
    return cast(Tensor, leaf(Tensor, array))


def _plain(x: Any) -> Any:
    return x._now if isinstance(x, Tensor) else x
