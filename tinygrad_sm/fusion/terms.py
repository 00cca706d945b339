"""Terms: the structure of a graph without its data, each part of it once.

A `Term` is one operation. Terms are interned: two equal ones are one object, so ``exp(a)`` written
twice is one subexpression. Where data stands in the structure there is a `Slot`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from tinygrad_sm.engine.primitive import TABLE

Shape = tuple[int, ...]
LEAF = "@leaf"
CONSTANT = "@constant"
NUMBER = "@number"
LOSS_NODE = "SoftmaxWithLoss"
"""The primitive of a loss that the user called himself."""
HERE = "·"
"""In the index of a "getitem" term: here stands the next of its further inputs."""


class Slot(NamedTuple):
    """A place in `snapshot.Snapshot.slots`, standing for the data there."""

    place: int
    mark: str = "slot"  # so that it equals no tuple of numbers


class Expression:
    """What rules are written with, terms and patterns of them: operators combine either kind."""

    __slots__ = ()

    @staticmethod
    def of(op: str, *inputs: Any, **params: Any) -> Any:
        """Return an operation on expressions of this kind; numbers among them are exact."""
        raise NotImplementedError

    def __add__(self, other: Any) -> Any:
        return self.of("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return self.of("add", other, self)

    def __sub__(self, other: Any) -> Any:
        return self.of("sub", self, other)

    def __mul__(self, other: Any) -> Any:
        return self.of("mul", self, other)

    def __truediv__(self, other: Any) -> Any:
        return self.of("div", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self.of("div", other, self)

    def __pow__(self, other: Any) -> Any:
        return self.of("pow", self, other)

    def __rpow__(self, other: Any) -> Any:
        return self.of("pow", other, self)

    def __matmul__(self, other: Any) -> Any:
        return self.of("matmul", self, other)

    def __neg__(self) -> Any:
        return self.of("neg", self)


@dataclass(slots=True, eq=False)
class Term(Expression):
    """One operation, leaf or constant of the structure.

    Attributes:
        op: name of the primitive, or of an operation of `vocabulary`; "leaf", "constant" or
            "number" without inputs.
        inputs: the arguments, in their order.
        params: what else it depends on; arrays among it are `Slot`s.
        shape: length of each axis.
        dtype: type of the elements; None for a Python number, which takes that of the others.
        id: position among the terms that were interned; -1 as long as it was not.
        constant: whether no gradient flows through it: data, or made of nothing else.
    """

    op: str
    inputs: tuple[Term, ...]
    params: Mapping[str, Any]
    shape: Shape
    dtype: np.dtype[Any] | None
    id: int = field(default=-1)
    constant: bool = field(init=False)

    def __post_init__(self) -> None:
        self.constant = self.op in (CONSTANT, NUMBER) or (
            bool(self.inputs) and all(x.constant for x in self.inputs)
        )

    @staticmethod
    def of(op: str, *inputs: Any, **params: Any) -> Term:
        """Return a reduction along `axis`, which stays with length 1, or what is elementwise."""
        terms = tuple([x if isinstance(x, Term) else number(x) for x in inputs])
        shape = np.broadcast_shapes(*[x.shape for x in terms])
        if "axis" in params:
            axis = params["axis"]
            params["axis"] = axis[0] if isinstance(axis, tuple) and len(axis) == 1 else axis
            if op in TABLE and TABLE[op].kind == "reduction":
                shape = kept(shape, params["axis"])
        dtypes = [x.dtype for x in terms if x.dtype is not None]  # None goes by the others
        return Term(op, terms, params, shape, np.result_type(*dtypes) if dtypes else None)

    def fits(self, other: Term) -> bool:
        """Return whether this may stand where `other` stands: it has its shape and dtype."""
        return self.shape == other.shape and self.dtype == other.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def __repr__(self) -> str:
        return _shown(self, depth=3)


def number(value: Fraction | float) -> Term:
    """Return the term of an exact number."""
    return Term(NUMBER, (), {"value": Fraction(value)}, (), None)


def axes_of(axis: int | tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes that an `axis` names; of a single one, terms hold the number."""
    return axis if isinstance(axis, tuple) else (axis,)


def kept(shape: Shape, axis: int | tuple[int, ...]) -> Shape:
    """Return a shape with one axis or several reduced to length 1."""
    axes = axes_of(axis)
    return tuple([1 if i in axes else n for i, n in enumerate(shape)])


def _shown(term: Term, depth: int) -> str:
    """A term as text; what lies deeper is left out."""
    if term.inputs and depth == 0:
        return f"{term.op}(…)"
    parts = [_shown(x, depth - 1) for x in term.inputs]
    parts += [f"{name}={value}" for name, value in term.params.items()]
    return f"{term.op}({', '.join(parts)})"


class Terms:
    """The terms of one search, each once."""

    def __init__(self) -> None:
        self._known: dict[Any, Term] = {}

    def __len__(self) -> int:
        return len(self._known)

    def since(self, count: int) -> Iterable[Term]:
        """Return the terms that were interned after the first `count`, the latest first."""
        return islice(reversed(self._known.values()), len(self._known) - count)

    def __iter__(self) -> Iterator[Term]:
        return iter(self._known.values())

    def intern(self, term: Term) -> Term:
        """Return the one term that equals `term`; a rule's replacement is a few levels deep."""
        if term.id >= 0:
            return term
        inputs = tuple(self.intern(x) for x in term.inputs)
        return self.one(term.op, inputs, term.params, term.shape, term.dtype)

    def one(
        self,
        op: str,
        inputs: tuple[Term, ...],
        params: Mapping[str, Any],
        shape: Shape,
        dtype: np.dtype[Any] | None,
    ) -> Term:
        """Return the one term of this description; `inputs` are interned."""
        key = (op, tuple(x.id for x in inputs), tuple(sorted(params.items())), shape, dtype)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = Term(op, inputs, params, shape, dtype, len(self._known))
        return known


class Numbers:
    """The numbers of a Snapshot, and a note of those that were looked at."""

    def __init__(self, slots: list[Any]) -> None:
        self._slots = slots
        self.read: dict[int, Any] = {}

    def __call__(self, term: Term) -> Fraction | None:
        """Return the exact value of a number term; None if it is no finite number."""
        if term.op != NUMBER:
            return None
        if "value" in term.params:
            value: Fraction = term.params["value"]
            return value
        index = term.params["content"].place
        read = self._slots[index]
        plain = read if isinstance(read, (bool, int, float)) else np.asarray(read).item()
        self.read[index] = plain
        return Fraction(*plain.as_integer_ratio()) if math.isfinite(plain) else None


def walk(root: Term, stop: Collection[Term]) -> Iterator[Term]:
    """Yield the terms below and including `root`, but none in `stop` nor what is below them."""
    pending = [root]
    seen = {term.id for term in stop}
    while pending:
        term = pending.pop()
        if term.id not in seen:
            seen.add(term.id)
            yield term
            pending += term.inputs
