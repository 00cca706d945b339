"""Tensor: an array to differentiate by, with its operators and methods.

A Tensor's array is private. What `data` hands out of a leaf is never the array that a recorded
operation keeps for backward, so changing it cannot spoil a gradient; backward notices and says so.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np

from tinygrad_sm.arrays.kinds import kind_for
from tinygrad_sm.engine import memory, more, shapes
from tinygrad_sm.engine import rules as p
from tinygrad_sm.engine.calling import call, operated
from tinygrad_sm.engine.gradients import backward
from tinygrad_sm.engine.intake import float_dtype, own_index, owned, text
from tinygrad_sm.engine.memory import read_only
from tinygrad_sm.engine.methods import comparison, method, operators, reduction, unary
from tinygrad_sm.engine.node import NO_OPERATION, Recorded, leaf
from tinygrad_sm.engine.numpy_protocol import answer_for_numpy
from tinygrad_sm.engine.primitive import Primitive
from tinygrad_sm.engine.scopes import is_recording
from tinygrad_sm.engine.trace import BackwardTrace
from tinygrad_sm.errors import GradientWarning, InvalidTypeError, InvalidValueError


class Tensor(Recorded):
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
        return memory.lend(self) if self._operation is NO_OPERATION else read_only(self._now)

    @data.setter
    def data(self, value: Any) -> None:
        if self._operation is not NO_OPERATION:
            raise InvalidTypeError(
                f"data of a Tensor computed by {self.op!r} cannot be set; "
                "only a leaf's can: detach() makes one"
            )
        memory.check_changeable(self)
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
            value = memory.floats(value, self.dtype, copy=False, what="grad", like=self._array)
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

    # Asked by xarray of whatever it takes for an array
    real = property(lambda self: self, doc="The Tensor itself.")
    imag = property(lambda self: np.zeros(self.shape, self.dtype), doc="Zeros.")

    def tolist(self) -> Any:
        """The values as Python numbers in nested lists, without a gradient."""
        now = self._now
        return kind_for(now).plain(now).tolist()

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
        """The single element as a Python float; a formula or an exact number as it is.

        Raises:
            InvalidValueError: there is not exactly one element.
        """
        now = self._now
        if now.size != 1:
            raise InvalidValueError(f"item needs exactly one element; the shape is {self.shape}")
        value: float = kind_for(now).item(now)
        return value

    def numpy(self) -> np.ndarray:
        """The values as a read-only array, without a copy and without a gradient."""
        now = self._now
        return read_only(kind_for(now).plain(now), not memory.is_lent(self))

    def detach(self) -> Tensor:
        """A constant with these values: no gradient flows through it."""
        now = self._now
        return constant(now.copy() if memory.is_lent(self) else now)

    def __reduce__(self) -> Any:
        if self._operation is not NO_OPERATION:
            raise InvalidTypeError(
                f"a Tensor computed by {self.op!r} cannot be copied or pickled; "
                "detach() it first, or take numpy()"
            )
        grad = None if self.grad is None else np.array(memory.current_of(self.grad))
        return _leaf, (self._now, self.name, self.requires_grad, grad)  # a copy is another Tensor

    def named(self, name: str) -> Tensor:
        """Give this Tensor a name for graphs and pictures, and return it."""
        self.name = text(name)
        return self

    def __repr__(self) -> str:
        now = self._now
        values = kind_for(now).show(now)
        facts = [f"shape={self.shape}", f"dtype={self.dtype}"]
        if self.name is not None:
            facts.append(f"name={self.name!r}")
        if self._operation is not NO_OPERATION:
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
        value = float(self.item())
        _warn_of_loss(self)
        return value

    def __int__(self) -> int:
        value = self.item()
        _warn_of_loss(self)
        return int(value)

    def __round__(self, ndigits: int | None = None) -> float:
        return round(self.item(), ndigits)

    def __format__(self, spec: str) -> str:
        return format(float(self.item()), spec) if spec else str(self)

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

    __add__, __radd__, __iadd__ = operators(p.add, "+")
    __sub__, __rsub__, __isub__ = operators(p.sub, "-")
    __mul__, __rmul__, __imul__ = operators(p.mul, "*")
    __truediv__, __rtruediv__, __itruediv__ = operators(p.div, "/")
    __pow__, __rpow__, __ipow__ = operators(p.pow, "**")
    __matmul__, __rmatmul__, __imatmul__ = operators(shapes.matmul, "@")
    __neg__ = unary(p.neg)
    __abs__ = unary(p.abs)

    def __pos__(self) -> Tensor:
        return self

    def __getitem__(self, index: Any) -> Tensor:
        return operated(shapes.getitem, self, params={"index": own_index(index)})

    __lt__ = comparison(operator.lt)
    __le__ = comparison(operator.le)
    __gt__ = comparison(operator.gt)
    __ge__ = comparison(operator.ge)
    __eq__ = comparison(operator.eq)
    __ne__ = comparison(operator.ne)
    __hash__ = object.__hash__

    # Methods --------------------------------------------------------------------------------------

    exp = unary(p.exp)
    """Element by element e to the power of the values."""
    log = unary(p.log)
    """Element by element natural logarithm."""
    log1p = unary(p.log1p)
    """Element by element log(1 + x), accurate near 0."""
    sqrt = unary(p.sqrt)
    """Element by element square root."""
    tanh = unary(p.tanh)
    """Element by element hyperbolic tangent."""
    sigmoid = unary(p.sigmoid)
    """Element by element logistic function."""
    relu = unary(p.relu)
    """Element by element positive part."""
    abs = unary(p.abs)
    """Element by element absolute value."""

    sum = reduction(p.sum)
    """Sum along `axis` (an int, a tuple, or None for all)."""
    mean = reduction(p.mean)
    """Mean along `axis` (an int, a tuple, or None for all)."""
    max = reduction(p.max)
    """Largest element along `axis`; ties share the gradient evenly."""
    min = reduction(more.min)
    """Smallest element along `axis`; ties share the gradient evenly."""
    prod = reduction(more.prod)
    """Product along `axis` (an int, a tuple, or None for all)."""

    cumsum = method(more.cumsum)
    """Running sum along `axis`; of all elements in a row if it is None."""
    var = method(more.var)
    """Variance along `axis`, with the divisor n - `ddof`."""
    std = method(more.std)
    """Standard deviation along `axis`; its slope is 0 where all elements are equal."""
    clip = method(more.clip)
    """Elements kept between `min` and `max`; None is no bound."""
    flatten = ravel = method(more.ravel)
    """All elements in a row."""
    squeeze = method(more.squeeze)
    """Without the axes of length 1, or without those of them that `axis` names."""
    swapaxes = method(more.swapaxes)
    """Two axes exchanged."""
    repeat = method(more.repeat)
    """Each element several times in succession along `axis`."""
    take = method(more.take)
    """The elements at integer positions along `axis`."""
    trace = method(more.trace)
    """Sum of the elements (i, i + `offset`) of two axes."""
    diagonal = method(more.diagonal)
    """The elements (i, i + `offset`) of two axes, as the last axis."""
    copy = method(more.copy)
    """The same values again; the gradient flows through. `detach` makes a constant."""

    def dot(self, other: Any, **usual: Any) -> Tensor:
        """Matrix product, as `np.dot` has it."""
        return cast(Tensor, more.dot(self, other, **usual))

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
        if len(args) == 1:
            return operated(primitive, self, params=kept)
        return call(primitive, args, kept)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__":
            raise InvalidTypeError(
                f"np.{ufunc.__name__}.{method} does not differentiate a Tensor; "
                "use an operation of tinygrad_sm"
            )
        return answer_for_numpy(ufunc, inputs, kwargs)

    def __array_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
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
