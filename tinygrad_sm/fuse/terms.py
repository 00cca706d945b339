"""What the search sees of a graph: its structure, without its data.

`Snapshot` reads recorded Tensors, as `backward` does, and parts them in two: `key`, a hashable
description of the structure, and `slots`, the arrays and numbers that stand in it. All that the
search finds depends on the key and on the few numbers that a rule has looked at, so what was found
for one batch holds for the next one.

A `Term` is one operation of that structure. Terms are interned: two equal ones are one object, so
``exp(a)`` written twice is one subexpression.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from tinygrad_sm.backward import _recorded
from tinygrad_sm.tensor import Tensor

Shape = tuple[int, ...]
LEAF = "@leaf"
CONSTANT = "@constant"
NUMBER = "@number"
HERE = "·"
"""In the index of a "getitem" term: here stands the next of its further inputs."""

# Parameters by which these are told apart are put in one form: axes counted from the front
_ALONG_ONE = frozenset({"softmax", "log_softmax", "logsumexp", "take_along_axis"})
_REDUCTIONS = frozenset({"sum", "mean", "max", "logsumexp"})
_ALONG_AXES = _ALONG_ONE | _REDUCTIONS


class Slot(NamedTuple):
    """A place in `Snapshot.slots`, standing for the data there."""

    place: int
    mark: str = "slot"  # so that it equals no tuple of numbers


@dataclass(slots=True, eq=False)
class Term:
    """One operation, leaf or constant of the structure.

    Attributes:
        op: name of the primitive, or of an operation of `vocabulary`; "leaf", "constant" or
            "number" without inputs.
        inputs: the arguments, in their order.
        params: what else it depends on; arrays among it are `Slot`s.
        shape: length of each axis.
        dtype: type of the elements; None for a Python number, which takes that of the others.
        id: position among the terms that were interned; -1 as long as it was not.
    """

    op: str
    inputs: tuple[Term, ...]
    params: Mapping[str, Any]
    shape: Shape
    dtype: np.dtype[Any] | None
    id: int = field(default=-1)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def constant(self) -> bool:
        """Whether no gradient flows through it: an array or a number."""
        return self.op in (CONSTANT, NUMBER)

    def __repr__(self) -> str:
        return _shown(self, depth=3)


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


class Row(NamedTuple):
    """One recorded Tensor in the key; an input is a position among the rows, or a Slot."""

    op: str | None
    inputs: tuple[int | Slot, ...]
    params: tuple[tuple[str, Any], ...]
    shape: Shape
    dtype: np.dtype[Any]


class Fact(NamedTuple):
    """What the key says of a slot. `content` is the first slot that holds the same elements."""

    content: int
    shape: Shape
    dtype: np.dtype[Any] | None
    counts_up: bool
    """Whether an index array is 0, 1, 2, …"""


class Snapshot:
    """The structure and the data of all that `output` was computed from.

    Attributes:
        tensors: the recorded Tensors, the inputs of each before it; the output is the last.
        slots: the data that the key refers to.
        key: rows and facts; equal keys are equal structures.

    Raises:
        ChangedDataError: a leaf's data was changed in place after it was used.
    """

    def __init__(self, output: Tensor) -> None:
        self.tensors = _recorded(output)[::-1] if output.requires_grad else [output]
        self.slots: list[Any] = []
        self._facts: list[Fact] = []
        self._same_object: dict[int, Slot] = {}
        self._same_probe: dict[Any, list[int]] = {}
        position: dict[int, int] = {}
        rows: list[Row] = []
        for t in self.tensors:
            inputs = tuple(
                [
                    position[x._id]
                    if isinstance(x, Tensor) and x.requires_grad
                    else self._constant(t, i, x)
                    for i, x in enumerate(t._operands)
                ]
            )
            op = None if t._op is None else t._op.name
            params = self._params(op, t) if t._params or op in _ALONG_AXES else ()
            position[t._id] = len(rows)
            rows.append(Row(op, inputs, params, t.shape, t.dtype))
        self.key = (tuple(rows), tuple(self._facts))

    def number(self, slot: int) -> Any:
        """Return the number that a slot holds."""
        return self.slots[slot]

    # Data becomes slots ---------------------------------------------------------------------------

    def _constant(self, t: Tensor, i: int, operand: Any) -> Slot:
        value = t._args[i] if isinstance(operand, Tensor) else operand
        known = self._same_object.get(id(value))
        if known is None:
            known = self._same_object[id(value)] = self._placed(value)
        return known

    def _placed(self, value: Any, index: bool = False) -> Slot:
        """Give data a slot, and find out whether an earlier one holds the same elements."""
        if isinstance(value, (bool, int, float)):
            return self._slot(value, (type(value), value), (), None, False)
        array = np.asarray(value)
        if array.size == 1:
            probe: Any = (array.dtype, array.item())
        elif array.size:
            flat = array.reshape(-1)  # a probe, so that few pairs are compared in full
            probe = (array.dtype, array.size, flat[0].item(), flat[-1].item())
        else:
            probe = (array.dtype, 0)
        counts_up = index and array.ndim == 1 and _counts_up(array)
        return self._slot(array, probe, array.shape, array.dtype, counts_up)

    def _slot(
        self, value: Any, probe: Any, shape: Shape, dtype: np.dtype[Any] | None, counts_up: bool
    ) -> Slot:
        place = len(self.slots)
        content = place
        alike = self._same_probe.setdefault(probe, [])
        for other in alike:
            if dtype is None or np.array_equal(
                np.reshape(self.slots[other], -1), value.reshape(-1)
            ):
                content = other
                break
        else:
            alike.append(place)
        self.slots.append(value)
        self._facts.append(Fact(content, shape, dtype, counts_up))
        return Slot(place)

    def _opaque(self, value: Any) -> Slot:
        """Give a slot to an object that only its primitive understands; it equals itself alone."""
        known = self._same_object.get(id(value))
        if known is None:
            known = self._same_object[id(value)] = Slot(len(self.slots))
            self.slots.append(value)
            self._facts.append(Fact(known.place, (), None, False))
        return known

    def _params(self, op: str | None, t: Tensor) -> tuple[tuple[str, Any], ...]:
        params = t._params
        if op == "getitem":
            index = params["index"]
            parts = index if isinstance(index, tuple) else (index,)
            return (("index", tuple([self._index_part(part) for part in parts])),)
        if op in _ALONG_AXES:
            params = _from_the_front(op, params, np.shape(t._operands[0]))
        return tuple(sorted((name, self._param(value)) for name, value in params.items()))

    def _param(self, value: Any) -> Any:
        if value is None or isinstance(value, (bool, int, float, str, np.dtype)):
            return value
        if isinstance(value, np.integer):
            return int(value)
        if isinstance(value, tuple):
            return tuple([self._param(part) for part in value])
        return self._opaque(value)

    def _index_part(self, part: Any) -> Any:
        if part is None or part is Ellipsis:
            return part
        if isinstance(part, slice):
            return ("slice", part.start, part.stop, part.step)
        if isinstance(part, range):
            part = np.asarray(part)
        if isinstance(part, (int, np.integer, np.ndarray)) and not isinstance(part, bool):
            return self._placed(np.asarray(part), index=True)
        return self._opaque(part)


def _from_the_front(op: str | None, params: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
    """Count axes from the front; name those that a reduction reduces, but for axes of length 1."""
    ndim = len(shape)
    if op in _ALONG_ONE:
        found: dict[str, Any] = {"axis": int(params.get("axis", -1)) % ndim}
    else:
        axis = params.get("axis")
        axes = range(ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        reduced = {int(i) % ndim for i in axes}
        found = {"axis": tuple(sorted(i for i in reduced if shape[i] != 1))}
    if op in _REDUCTIONS:
        found["keepdims"] = bool(params.get("keepdims", False))
    return found


def _counts_up(array: np.ndarray) -> bool:
    if array.dtype.kind not in "iu":
        return False
    return bool(np.array_equal(array, np.arange(array.size)))


def terms_of(key: Any, terms: Terms) -> list[Term]:
    """Return the interned term of each row of a Snapshot's key."""
    rows, facts = key
    found: list[Term] = []
    for place, row in enumerate(rows):
        if row.op is None:
            leaf = terms.one(LEAF, (), {"row": place}, row.shape, row.dtype)
            found.append(leaf)
            continue
        inputs = [
            constant(terms, facts, x) if isinstance(x, Slot) else found[x] for x in row.inputs
        ]
        params = dict(row.params)
        if row.op == "getitem":  # the arrays of an index are arguments of the term
            index = params["index"]
            inputs += [constant(terms, facts, x) for x in index if isinstance(x, Slot)]
            params["index"] = tuple(HERE if isinstance(x, Slot) else x for x in index)
        found.append(terms.one(row.op, tuple(inputs), params, row.shape, row.dtype))
    return found


def constant(terms: Terms, facts: tuple[Fact, ...], slot: Slot) -> Term:
    """Return the interned term of a slot; equal elements in equal shapes are one term."""
    fact = facts[slot.place]
    op = NUMBER if fact.shape == () else CONSTANT
    params: dict[str, Any] = {"content": Slot(fact.content)}
    if fact.counts_up:
        params["counts_up"] = True
    return terms.one(op, (), params, fact.shape, fact.dtype)


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
        return Fraction(plain) if math.isfinite(plain) else None


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
