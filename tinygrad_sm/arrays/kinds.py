"""What a kind of array is, and which types are of one.

A Tensor may hold other arrays than NumPy's. The table of primitives does not know: a row's forward
runs on whatever follows NumPy's protocols (NEP 13 and 18), and its vjp is written with operators
and the same rows. A `Kind` says the rest of one type: which forwards need a way of their own, what
ones are, how values are shown. Kinds are found by type, and imported when one is first met.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, ClassVar

import numpy as np

from tinygrad_sm.errors import InvalidTypeError

_ndarray = np.ndarray

MODULES = {
    "dask": "tinygrad_sm.arrays.dask",
    "jax": "tinygrad_sm.arrays.jax",
    "jaxlib": "tinygrad_sm.arrays.jax",
    "mpmath": "tinygrad_sm.arrays.elements",
    "sympy": "tinygrad_sm.arrays.elements",
    "tinygrad_sm.arrays.elements": "tinygrad_sm.arrays.elements",
}
"""By the start of a type's module: the module whose `KIND` it is of, imported when first met."""


class Kind:
    """One kind of array, as it is when NumPy's protocols do all; say what differs in a subclass.

    Attributes:
        name: for messages, several of them, e.g. ``"Dask arrays"``.
        forwards: by the name of a primitive, what runs it on these arrays instead of its forward.
        vjps: by the name of a primitive, the vjps of these arrays, where the table's do not fit.
    """

    name: ClassVar[str] = "foreign arrays"
    forwards: ClassVar[Mapping[str, Callable[..., Any]]] = {}
    vjps: ClassVar[Mapping[str, tuple[Callable[..., Any] | None, ...]]] = {}

    def covers(self, cls: type) -> bool:
        """Whether a class of the library is of this kind; asked of what was not registered."""
        return True

    def array(self, data: Any) -> Any:
        """What an operation computes with, of data that was found to be of this kind."""
        return data

    def leaf(self, data: Any, dtype: Any = None) -> Any:
        """What a Tensor holds of such data: floating-point numbers, of `dtype` if one is given.

        Raises InvalidTypeError if the data are no real numbers.
        """
        array = self.array(data)
        if array.dtype.kind not in "biuf":
            raise InvalidTypeError(
                f"data must be real numbers; got {self.name} of dtype {array.dtype}"
            )
        wanted = dtype or (array.dtype if array.dtype.kind == "f" else np.dtype(np.float64))
        return array if array.dtype == wanted else array.astype(wanted)

    def beside(self, data: Any, like: Any) -> Any:
        """Such data, or NumPy's, as numbers that go with those of an array of this kind."""
        return self.leaf(data, like.dtype)

    def run(self, primitive: Any, args: Iterable[Any], params: Mapping[str, Any]) -> Any:
        """Run a primitive on arrays of this kind, NumPy's, and numbers."""
        name = primitive.name
        forward = self.forwards.get(name) or PROTOCOLS.get(name) or _general().FORWARDS.get(name)
        given = [x if kind_of(x) is None else of_a_kind(x) for x in args]
        return (forward or primitive.forward)(*given, **params)

    def is_computed(self, array: Any) -> bool:
        """Whether values are there; if not, nothing looks at them: no check, no number drawn."""
        return True

    def ones(self, like: Any) -> Any:
        """Ones in the shape of an array: what backward starts from."""
        return np.ones_like(like)

    def zeros(self, like: Any) -> Any:
        """Zeros in the shape of an array: the gradient of what took no part."""
        return 0 * self.ones(like)

    def plain(self, array: Any) -> np.ndarray:
        """The values as NumPy's array; for a lazy kind this computes them."""
        return np.asarray(array)

    def item(self, array: Any) -> Any:
        """The single element as a number of Python's."""
        return self.plain(array).item()

    def show(self, array: Any) -> str:
        """The values, or what there is to say of them, for `repr`."""
        return repr(array)

    def elements(self, array: Any) -> str:
        """What the elements are, in a word or two; their dtype."""
        return str(array.dtype)

    def pictured(self, array: Any) -> Any:
        """What pictures show: an array of numbers or of texts, or one text for all elements."""
        return self.plain(array) if self.is_computed(array) else "not computed"

    def row(self, primitive: Any) -> Any:
        """The primitive as it is recorded of these arrays: run by `run`, with the vjps for them."""
        rows = self.__dict__.setdefault("rows", {})
        found = rows.get(primitive)
        if found is None:
            found = rows[primitive] = copy.copy(primitive)
            found.forward = lambda *args, **params: self.run(primitive, args, params)
            found._vjps = (_general().VJPS | self.vjps).get(primitive.name, primitive._vjps)
        return found

    # What the loss asks ---------------------------------------------------------------------------

    def shift(self, a: Any, axis: Any) -> Any:
        """What logits are shifted by along `axis`, kept; their maximum. No gradient goes there."""
        return np.max(a, axis=axis, keepdims=True)

    def one_hot(self, index: Any, like: Any, axis: int) -> Any:
        """1 for the classes in `index`, whose `axis` has length 1, and 0 else; shaped as `like`."""
        return (along(np.arange(like.shape[axis]), axis, like.ndim) == index).astype(like.dtype)

    def labels(self, given: Any, classes: int, ignore_index: int) -> tuple[Any, Any]:
        """Class indices of this kind: valid ones also where a row is ignored, and which rows count.

        A label out of range is to be reported as a LabelError, when it is computed.
        """
        active = given != ignore_index
        return np.where(active, given, 0), active

    def pick(self, per_class: np.ndarray, index: Any) -> Any:
        """One number of NumPy's per class, at class indices of this kind."""
        return per_class[index]

    def masked(self, logits: Any) -> Any:
        """Which classes are masked by -inf; None if none can be."""
        return None

    def may_hold(self, condition: Any) -> bool:
        """Whether a condition may hold anywhere; True where that would have to be computed."""
        return not self.is_computed(condition) or bool(self.plain(condition).any())


class _OfNumPy(Kind):
    """NumPy's own arrays, which need no other way to run anything."""

    name = "NumPy's arrays"

    def ones(self, like: Any) -> Any:
        if like.size != 1:
            return np.ones(like.shape, like.dtype)
        one = np.array(1.0, like.dtype)  # quicker than np.ones
        return one.reshape(like.shape) if like.ndim else one

    def zeros(self, like: Any) -> Any:
        return np.zeros(like.shape, like.dtype)

    def plain(self, array: Any) -> np.ndarray:
        found: np.ndarray = array
        return found

    def item(self, array: Any) -> float:
        return float(array.item())

    def show(self, array: Any) -> str:
        return np.array2string(array, separator=", ", threshold=20, prefix="Tensor(")


NUMPY = _OfNumPy()


@cache
def _general() -> Any:
    """What is written with the table and the loss, which stand above this file."""
    return importlib.import_module("tinygrad_sm.arrays.general")


# What NumPy's protocols run, where a row's forward is written for NumPy's arrays alone ------------


def _from_the_largest(a: Any, axis: Any) -> Any:
    """a - max a along `axis`, which may be infinite."""
    m = np.max(a, axis=axis, keepdims=True)
    return m, a - np.where(np.isfinite(m), m, 0)


def _softmax(a: Any, axis: Any = -1) -> Any:
    _, d = _from_the_largest(a, axis)
    e = np.exp(d)
    return e / np.sum(e, axis=axis, keepdims=True)


def _log_softmax(a: Any, axis: Any = -1) -> Any:
    _, d = _from_the_largest(a, axis)
    return d - np.log(np.sum(np.exp(d), axis=axis, keepdims=True))


def _logsumexp(a: Any, axis: Any = -1, keepdims: bool = False) -> Any:
    m, d = _from_the_largest(a, axis)
    lse = np.where(np.isfinite(m), m, 0) + np.log(np.sum(np.exp(d), axis=axis, keepdims=True))
    return lse if keepdims else np.squeeze(lse, axis)


PROTOCOLS: dict[str, Callable[..., Any]] = {
    "astype": lambda x, dtype: x.astype(dtype),
    "broadcast_to": lambda x, shape: np.broadcast_to(x, shape),
    "log_softmax": _log_softmax,
    "logsumexp": _logsumexp,
    "max": lambda x, axis=None, keepdims=False: np.max(x, axis=axis, keepdims=keepdims),
    "reshape": lambda x, shape: np.reshape(x, shape),
    "softmax": _softmax,
    "sum": lambda x, axis=None, keepdims=False: np.sum(x, axis=axis, keepdims=keepdims),
    "take_along_axis": lambda x, indices, axis=-1: np.take_along_axis(x, indices, axis),
}

# Which types are of which kind --------------------------------------------------------------------

KINDS: dict[type, Kind | None] = dict.fromkeys((np.ndarray, float, int, bool, object))
"""The kinds by type; None for what is NumPy's or no array at all. Filled as types are met."""


def def_kind(types: type | tuple[type, ...], kind: Kind) -> Kind:
    """Let Tensors hold arrays of these types, and of the types derived from them.

    Args:
        types: a class, or several.
        kind: a `Kind`, or an instance of a subclass that says what differs.

    Returns:
        The kind.

    Raises:
        InvalidTypeError: `types` is no class, NumPy's or Python's own, or `kind` is no Kind.
    """
    given = types if isinstance(types, tuple) else (types,)
    for one in given:
        if not isinstance(one, type) or one in (np.ndarray, float, int, bool, object):
            raise InvalidTypeError(f"def_kind: types must be classes of arrays; got {one!r}")
    if not isinstance(kind, Kind):
        raise InvalidTypeError(f"def_kind: kind must be a Kind; got {type(kind).__name__}")
    for known in [x for x in KINDS if issubclass(x, given)]:
        del KINDS[known]  # it may have been met before
    KINDS.update(dict.fromkeys(given, kind))
    return kind


def kind_of(x: Any) -> Kind | None:
    """Return the kind of an array that is not NumPy's; None for all else."""
    cls = type(x)
    try:
        return KINDS[cls]
    except KeyError:
        return _found(cls)


def _found(cls: type) -> Kind | None:
    for base in cls.__mro__:
        if base in KINDS:
            found = KINDS[base]
            break
        parts = base.__module__.split(".")
        starts = [".".join(parts[:i]) for i in range(1, len(parts) + 1)]
        module = next((MODULES[start] for start in starts if start in MODULES), None)
        if module is not None:
            kind: Kind = importlib.import_module(module).KIND
            found = kind if kind.covers(cls) else None
            break
    KINDS[cls] = found
    return found


def kind_for(array: Any) -> Kind:
    """Return the kind of an array that a Tensor holds, NumPy's too."""
    return NUMPY if type(array) is _ndarray else kind_of(array) or NUMPY


def kind_among(args: Iterable[Any]) -> Kind | None:
    """Return the kind of the first argument that has one."""
    for x in args:
        kind = kind_of(x)
        if kind is not None:
            return kind
    return None


def of_a_kind(data: Any) -> Any:
    """Return what an operation computes with of data of a kind; None if they are of none.

    Objects in lists, or in an array of NumPy's, are of the kind of the first of them.
    """
    kind = kind_of(data)
    if kind is None and isinstance(data, np.ndarray) and data.dtype == object and data.size:
        kind = kind_of(data.flat[0])
    return None if kind is None else kind.array(data)


def leaf_of(data: Any, dtype: Any) -> Any:
    """Return what a Tensor holds of data of a kind; None if they are of none."""
    array = of_a_kind(data)
    kind = kind_of(array)
    return None if kind is None else kind.leaf(array, dtype)


def may_hold(condition: Any) -> bool:
    """Return whether a condition may hold anywhere, without computing what is lazy."""
    kind = kind_of(condition)
    return bool(condition.any()) if kind is None else kind.may_hold(condition)


def along(numbers: Any, axis: int, ndim: int) -> Any:
    """Return one number per class, of any kind, in a shape that broadcasts along `axis`."""
    return numbers.reshape([-1 if i == axis else 1 for i in range(ndim)])


def as_array(x: Any) -> Any:
    """Return an array of a kind as it is, anything else as NumPy's array."""
    return x if type(x) is _ndarray or kind_of(x) is not None else np.asarray(x)
