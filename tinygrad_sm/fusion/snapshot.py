"""What the search sees of a recorded graph: its structure, and apart from it the data.

`Snapshot` reads recorded Tensors, as `backward` does, and parts them in two: `key`, a hashable
description of the structure, and `slots`, the arrays and numbers that stand in it. All that the
search finds depends on the key and on the few numbers that a rule has looked at, so what was found
for one batch holds for the next one. `terms_of` turns the key into terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from tinygrad_sm.engine.primitive import TABLE, Primitive
from tinygrad_sm.engine.sweep import _recorded
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.fusion.terms import (
    CONSTANT,
    HERE,
    LEAF,
    LOSS_NODE,
    NUMBER,
    Shape,
    Slot,
    Term,
    Terms,
)
from tinygrad_sm.fusion.vocabulary import reshape, times, total


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
    counts: tuple[int, ...]
    """The axes, from the last as -1, along each of which alone an index array is 0, 1, 2, …"""


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
            primitive = t._op
            position[t._id] = len(rows)
            if primitive is None:
                rows.append(Row(None, (), (), t.shape, t.dtype))
                continue
            inputs = tuple(
                [
                    position[x._id]
                    if isinstance(x, Tensor) and x.requires_grad
                    else self._constant(t, i, x)
                    for i, x in enumerate(t._operands)
                ]
            )
            params = self._params(primitive, t) if primitive.parameters else ()
            rows.append(Row(_known_as(primitive, dict(params)), inputs, params, t.shape, t.dtype))
        self.key = (tuple(rows), tuple(self._facts))

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
            return self._slot(value, (type(value), value), (), None, ())
        array = np.asarray(value)
        if array.size == 1:
            probe: Any = (array.dtype, array.item())
        elif array.size:
            flat = array.reshape(-1)  # a probe, so that few pairs are compared in full
            probe = (array.dtype, array.size, flat[0].item(), flat[-1].item())
        else:
            probe = (array.dtype, 0)
        counts = _counted(array) if index else ()
        return self._slot(array, probe, array.shape, array.dtype, counts)

    def _slot(
        self, value: Any, probe: Any, shape: Shape, dtype: np.dtype[Any] | None, counts: Shape
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
        self._facts.append(Fact(content, shape, dtype, counts))
        return Slot(place)

    def _opaque(self, value: Any) -> Slot:
        """Give a slot to an object that only its primitive understands; it equals itself alone."""
        known = self._same_object.get(id(value))
        if known is None:
            known = self._same_object[id(value)] = Slot(len(self.slots))
            self.slots.append(value)
            self._facts.append(Fact(known.place, (), None, ()))
        return known

    def _params(self, op: Primitive, t: Tensor) -> tuple[tuple[str, Any], ...]:
        params = t._params
        if op.name == "getitem":
            index = params["index"]
            parts = index if isinstance(index, tuple) else (index,)
            return (("index", tuple([self._index_part(part) for part in parts])),)
        if op.name == LOSS_NODE:  # of its task, what rules ask for; `saved` is the node's own
            task = params["task"]
            return (
                ("axis", task.axis), ("reduction", task.reduction), ("task", self._opaque(task))
            )  # fmt: skip
        if op.name == "transpose":
            axes, ndim = params.get("axes"), t.ndim
            given = range(ndim)[::-1] if axes is None else axes
            params = {"axes": tuple([int(i) % ndim for i in given])}
        if op.name in ("reshape", "astype"):  # said by shape and dtype
            return ()
        if "axis" in op.parameters:
            params = _from_the_front(op, params, t._operands[0].shape)
        return tuple(sorted((name, self._param(value)) for name, value in params.items()))

    def _param(self, value: Any) -> Any:
        if value is None or isinstance(value, (bool, int, float, str, np.dtype)):
            return value
        if isinstance(value, np.integer):
            return int(value)
        if isinstance(value, (tuple, list)):  # such as axes
            return tuple([self._param(part) for part in value])
        return self._opaque(value)

    def _index_part(self, part: Any) -> Any:
        if part is None or part is Ellipsis:
            return part
        if isinstance(part, slice):
            return ("slice", part.start, part.stop, part.step)
        return self._placed(np.asarray(part), index=True)


def _known_as(op: Primitive, params: Mapping[str, Any]) -> str:
    """The name by which rules know an operation; of softmax they know that along one axis."""
    one = op.parameters.get("axis") is None or isinstance(params["axis"], int)
    return op.name if one else f"{op.name} along several axes"


def _from_the_front(op: Primitive, given: Mapping[str, Any], shape: Shape) -> dict[str, Any]:
    """Write out all parameters in one form, with axes counted from the front.

    Of the axes that a reduction may reduce several of, those of length 1 are left out.
    """
    params = {**op.parameters, **given}
    axis, ndim = params["axis"], len(shape)
    if isinstance(axis, (int, np.integer)):
        axis = (axis,)
    if axis is None:
        axis = tuple(range(ndim))
    if isinstance(axis, tuple) and all(isinstance(i, (int, np.integer)) for i in axis):
        axis = tuple(sorted({int(i) % ndim for i in axis} if shape else ()))
        if op.parameters["axis"] is not None:
            axis = axis[0] if len(axis) == 1 else axis
        elif op.kind == "reduction":
            axis = tuple(i for i in axis if shape[i] != 1)
    params["axis"] = axis
    if "keepdims" in params:
        params["keepdims"] = bool(params["keepdims"])
    return params


def _counted(array: np.ndarray) -> tuple[int, ...]:
    """The axes of an index array as `Fact.counts` has them."""
    if array.dtype.kind not in "iu" or not array.size:
        return ()
    return tuple(
        -1 - after
        for after, n in enumerate(reversed(array.shape))
        if array.flat[-1] == n - 1  # which most arrays fail
        and (array == np.arange(n).reshape(n, *(1,) * after)).all()
    )


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
        found.append(
            terms.intern(_in_terms(Term(row.op, tuple(inputs), params, row.shape, row.dtype)))
        )
    return found


def _in_terms(term: Term) -> Term:
    """Write a mean as a sum over the count, and a reduction as one that keeps its axes."""
    params, axis = dict(term.params), term.params.get("axis")
    if term.op not in TABLE or TABLE[term.op].kind != "reduction" or "keepdims" not in params:
        return term
    del params["keepdims"]
    (x,) = term.inputs
    if term.op == "mean" and x.size and term.size:
        mean = times(Fraction(term.size, x.size), total(x, axis))
        return reshape(mean, term.shape)
    return reshape(Term.of(term.op, x, **params), term.shape)


def constant(terms: Terms, facts: tuple[Fact, ...], slot: Slot) -> Term:
    """Return the interned term of a slot; equal elements in equal shapes are one term."""
    fact = facts[slot.place]
    op = NUMBER if fact.shape == () else CONSTANT
    params: dict[str, Any] = {"content": Slot(fact.content)}
    if fact.counts:
        params["counts"] = fact.counts
    return terms.one(op, (), params, fact.shape, fact.dtype)
