"""What the search sees of a recorded graph: its structure, and apart from it the data.

`Snapshot` parts a graph in two: `key`, a hashable description of the structure, and `slots`, the
arrays and numbers that stand in it. All that the search finds depends on the key and on the few
numbers that a rule has looked at, so what was found for one batch holds for the next one. Making
the key is all that a structure costs that was seen before; `terms_of` turns it into terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from tinygrad_sm.arrays.kinds import as_array, kind_of
from tinygrad_sm.engine.memory import current_of
from tinygrad_sm.engine.primitive import TABLE
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.engine.view import recorded
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

_PLAIN = (bool, int, float, str, type(None), np.dtype)
_PROBED = 16  # arrays of more elements are compared in full only if their ends are the same


class Called(NamedTuple):
    """An operation or leaf of the key, as it was called; an input is a row, or a Slot."""

    op: str
    inputs: tuple[int | Slot, ...]
    params: tuple[tuple[str, Any], ...]
    shape: Shape
    dtype: np.dtype[Any] | None


class Snapshot:
    """The structure and the data of all that `output` was computed from.

    Attributes:
        tensors: all that are no constants, with their operations and operands; the output is last.
        slots: the data that the key refers to.
        key: a `Called` of each Tensor, and what rules may ask of each slot; equal keys are equal
            structures.

    Raises:
        ChangedDataError: a leaf's data was changed in place after it was used.
    """

    def __init__(self, output: Tensor) -> None:
        self.tensors: list[tuple[Tensor, Any, tuple[Any, ...]]] = []
        self.slots: list[Any] = []
        self._facts: list[Any] = []
        self._alike: dict[Any, list[int]] = {}
        places: dict[int, int | Slot] = {}
        rows: list[Any] = []
        for one in recorded(output):
            t, operation, operands = one
            primitive = operation.primitive
            if primitive is None and not t.requires_grad and t is not output:
                places[id(t)] = self._placed(current_of(t))
                continue
            places[id(t)] = len(rows)
            self.tensors.append(one)
            if primitive is None:
                rows.append((LEAF, (), (), t.shape, t.dtype))
            else:
                inputs = tuple([
                    places[id(x)] if isinstance(x, Tensor) else self._placed(x) for x in operands
                ])  # fmt: skip
                params = self._params(primitive.name, operation.params) if operation.params else ()
                rows.append((primitive.name, inputs, params, t.shape, t.dtype))
        self.key = (tuple(rows), tuple(self._facts))

    # Data becomes slots ---------------------------------------------------------------------------

    def _placed(self, value: Any, index: bool = False) -> Slot:
        """Give data a slot, and find out whether an earlier one holds the same elements."""
        if isinstance(value, (bool, int, float)):
            return self._slot(value, (type(value), value), (), None)
        array = as_array(value)
        if kind_of(array) is not None:  # its elements may be formulas, or wait: it equals itself
            return self._slot(array, id(array), array.shape, array.dtype)
        counts = _counted(array) if index else ()
        return self._slot(array, (array.dtype, array.size), array.shape, array.dtype, counts)

    def _slot(
        self, value: Any, probe: Any, shape: Shape, dtype: np.dtype[Any] | None, counts: Shape = ()
    ) -> Slot:
        """Note a slot. Its content is that of the first one with the same elements.

        `counts` are the axes, from the last as -1, along each of which alone an index is 0, 1, 2, …
        """
        place = content = len(self.slots)
        alike = self._alike.setdefault(probe, [])
        for other in alike:
            known = self.slots[other]
            if known is value or dtype is None or _same_elements(known, value):
                content = other
                break
        else:
            alike.append(place)
        self.slots.append(value)
        op = CONSTANT if shape or kind_of(value) is not None else NUMBER
        self._facts.append((op, content, counts, shape, dtype))
        return Slot(place)

    def _params(self, op: str, params: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
        if op in ("reshape", "astype"):  # said by shape and dtype
            return ()
        if op == "getitem":
            index = params["index"]
            parts = index if isinstance(index, tuple) else (index,)
            return (("index", tuple([self._index_part(part) for part in parts])),)
        if op == "transpose" and params.get("axes") is not None:  # which may be an array
            return (("axes", tuple(map(int, params["axes"]))),)
        if op == LOSS_NODE:  # of its task, what rules ask for; `saved` is the node's own
            task = params["task"]
            return (
                ("axis", task.axis), ("reduction", task.reduction), ("task", self._param(task))
            )  # fmt: skip
        return tuple([(name, self._param(value)) for name, value in params.items()])

    def _param(self, value: Any) -> Any:
        if isinstance(value, _PLAIN):
            return value
        if isinstance(value, np.integer):
            return int(value)
        if isinstance(value, (tuple, list)):  # such as axes
            return tuple([self._param(part) for part in value])
        # an object that only its primitive understands; it equals itself alone
        return self._slot(value, id(value), (), None)

    def _index_part(self, part: Any) -> Any:
        if part is None or part is Ellipsis:
            return part
        if isinstance(part, slice):
            return ("slice", part.start, part.stop, part.step)
        return self._placed(as_array(part), index=True)


def _same_elements(x: np.ndarray, y: np.ndarray) -> bool:
    x, y = x.reshape(-1), y.reshape(-1)
    if x.size > _PROBED and (x[0] != y[0] or x[-1] != y[-1]):  # as most that differ
        return False
    return bool((x == y).all())


def _counted(array: np.ndarray) -> tuple[int, ...]:
    if array.dtype.kind not in "iu" or not array.size:
        return ()
    last = array.flat[-1]
    return tuple([
        -1 - after
        for after, n in enumerate(reversed(array.shape))
        if last == n - 1  # which most arrays fail
        and (array == np.arange(n).reshape(n, *(1,) * after)).all()
    ])  # fmt: skip


# Terms --------------------------------------------------------------------------------------------


def terms_of(key: Any, terms: Terms) -> list[Term]:
    """Return the interned term of each row of a Snapshot's key.

    Equal elements in equal shapes are one term.
    """
    rows, facts = key
    constants = []
    for op, content, counts, shape, dtype in facts:
        known = {"content": Slot(content), **({"counts": counts} if counts else {})}
        constants.append(terms.one(op, (), known, shape, dtype))
    found: list[Term] = []
    for place, row in enumerate(rows):
        op, inputs, given, shape, dtype = row
        args = [constants[x.place] if isinstance(x, Slot) else found[x] for x in inputs]
        params = dict(given)
        if op == LEAF:
            params["row"] = place
        elif op == "getitem":  # the arrays of an index are arguments of the term
            index = params["index"]
            args += [constants[x.place] for x in index if isinstance(x, Slot)]
            params["index"] = tuple(HERE if isinstance(x, Slot) else x for x in index)
        elif op == "transpose":
            axes, ndim = params.get("axes"), len(shape)
            axes = range(ndim)[::-1] if axes is None else axes
            params["axes"] = tuple([i % ndim for i in axes])
        elif op in TABLE and "axis" in TABLE[op].parameters:
            op, params = _from_the_front(op, params, args[0].shape)
        term = Term(op, tuple(args), params, shape, dtype)
        found.append(terms.intern(_in_terms(term)))
    return found


def _from_the_front(op: str, given: Mapping[str, Any], shape: Shape) -> tuple[str, dict[str, Any]]:
    """Write out all parameters in one form, with axes counted from the front.

    Of the axes that a reduction may reduce several of, those of length 1 are left out. A softmax
    along several axes has another name: rules know that along one.
    """
    primitive = TABLE[op]
    params = {**primitive.parameters, **given}
    axis, ndim = params["axis"], len(shape)
    if isinstance(axis, int):
        axis = (axis,)
    if axis is None:
        axis = tuple(range(ndim))
    if isinstance(axis, tuple) and all(isinstance(i, int) for i in axis):
        axis = tuple(sorted({i % ndim for i in axis} if shape else ()))
        if primitive.parameters["axis"] is not None:
            axis = axis[0] if len(axis) == 1 else axis
        elif primitive.kind == "reduction":
            axis = tuple(i for i in axis if shape[i] != 1)
    params["axis"] = axis
    if "keepdims" in params:
        params["keepdims"] = bool(params["keepdims"])
    one = primitive.parameters["axis"] is None or isinstance(axis, int)
    return op if one else f"{op} along several axes", params


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
