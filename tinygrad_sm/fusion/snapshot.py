"""What the search sees of a recorded graph: its structure, and apart from it the data.

`Snapshot` parts a graph in two: `key`, a hashable description of the structure, and `slots`, the
arrays and numbers that stand in it. All that the search finds depends on the key and on the few
numbers that a rule has looked at, so what was found for one batch holds for the next one.
`terms_of` turns the key into terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from tinygrad_sm.arrays.kinds import as_array, kind_of
from tinygrad_sm.engine import view
from tinygrad_sm.engine.memory import check_unchanged, current
from tinygrad_sm.engine.primitive import TABLE, Primitive
from tinygrad_sm.engine.sweep import newest_first
from tinygrad_sm.engine.tensor import Tensor
from tinygrad_sm.engine.view import Node, graph
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
    """A node in the key; an input is a position among the rows, or a Slot."""

    op: str
    inputs: tuple[int | Slot, ...]
    params: tuple[tuple[str, Any], ...]
    shape: Shape
    dtype: np.dtype[Any] | None


class Snapshot:
    """The structure and the data of all that `output` was computed from.

    Attributes:
        before: the graph.
        nodes: those of its nodes that are no constants; the output is the last.
        slots: the data that the key refers to.
        key: rows of the nodes, and of the slots; equal keys are equal structures.

    Raises:
        ChangedDataError: a leaf's data was changed in place after it was used.
    """

    def __init__(self, output: Tensor) -> None:
        check_unchanged(newest_first(output))
        self.before = graph(output)
        self.nodes: list[Node] = []
        self.slots: list[Any] = []
        self._constants: list[Row] = []
        self._same_probe: dict[Any, list[int]] = {}
        places: list[int | Slot] = []
        rows: list[Row] = []
        for node in self.before.nodes:
            if node.op == view.CONSTANT and node.id != self.before.output:
                places.append(self._placed(self.operand(node)))
                continue
            places.append(len(rows))
            rows.append(self._row(node, tuple([places[i] for i in node.inputs])))
            self.nodes.append(node)
        self.key = (tuple(rows), tuple(self._constants))

    def operand(self, node: Node) -> Any:
        """Return what an operation was given: a Tensor, an array, or a Python number."""
        if node.tensor is not None:
            return node.tensor
        return node.value.item() if node.weak else node.value

    def _row(self, node: Node, inputs: tuple[int | Slot, ...]) -> Row:
        primitive, dtype = node.primitive, node.tensor.dtype
        if primitive is None:
            return Row(LEAF, (), (("row", len(self.nodes)),), node.shape, dtype)
        if not primitive.parameters:
            return Row(node.op, inputs, (), node.shape, dtype)
        params = self._params(primitive, node)
        return Row(_known_as(primitive, dict(params)), inputs, params, node.shape, dtype)

    # Data becomes slots ---------------------------------------------------------------------------

    def _placed(self, value: Any, index: bool = False) -> Slot:
        """Give data a slot, and find out whether an earlier one holds the same elements."""
        if isinstance(value, (bool, int, float)):
            return self._slot(value, (type(value), value), (), None)
        array = current(value) if isinstance(value, Tensor) else as_array(value)
        if kind_of(array) is not None:  # its elements may be formulas, or wait: it equals itself
            return self._slot(array, ("array", id(array)), array.shape, array.dtype)
        flat = array.reshape(-1)  # a probe, so that few pairs are compared in full
        ends = (flat[0].item(), flat[-1].item()) if flat.size else ()
        counts = _counted(array) if index else ()
        probe = (array.dtype, array.size, *ends)
        return self._slot(array, probe, array.shape, array.dtype, counts)

    def _slot(
        self, value: Any, probe: Any, shape: Shape, dtype: np.dtype[Any] | None, counts: Shape = ()
    ) -> Slot:
        """Note a slot. Its `content` is the first one with the same elements.

        `counts` are the axes, from the last as -1, along each of which alone an index is 0, 1, 2, …
        """
        place = content = len(self.slots)
        alike = self._same_probe.setdefault(probe, [])
        for other in alike:
            known = self.slots[other]
            if (
                dtype is None
                or known is value
                or np.array_equal(known.reshape(-1), value.reshape(-1))
            ):
                content = other
                break
        else:
            alike.append(place)
        self.slots.append(value)
        params: dict[str, Any] = {"content": Slot(content)}
        if counts:
            params["counts"] = counts
        op = CONSTANT if shape or kind_of(value) is not None else NUMBER
        self._constants.append(Row(op, (), tuple(params.items()), shape, dtype))
        return Slot(place)

    def _params(self, op: Primitive, node: Node) -> tuple[tuple[str, Any], ...]:
        params = node.params
        if op.name in ("reshape", "astype"):  # said by shape and dtype
            return ()
        if op.name == "getitem":
            index = params["index"]
            parts = index if isinstance(index, tuple) else (index,)
            return (("index", tuple([self._index_part(part) for part in parts])),)
        if op.name == LOSS_NODE:  # of its task, what rules ask for; `saved` is the node's own
            task = params["task"]
            return (
                ("axis", task.axis), ("reduction", task.reduction), ("task", self._param(task))
            )  # fmt: skip
        if op.name == "transpose":
            axes, ndim = params.get("axes"), len(node.shape)
            given = range(ndim)[::-1] if axes is None else axes
            params = {"axes": tuple([int(i) % ndim for i in given])}
        if "axis" in op.parameters:
            shape = self.before.nodes[node.inputs[0]].shape
            params = _from_the_front(op, params, shape)
        return tuple(sorted((name, self._param(value)) for name, value in params.items()))

    def _param(self, value: Any) -> Any:
        if value is None or isinstance(value, (bool, int, float, str, np.dtype)):
            return value
        if isinstance(value, np.integer):
            return int(value)
        if isinstance(value, (tuple, list)):  # such as axes
            return tuple([self._param(part) for part in value])
        # an object that only its primitive understands; it equals itself alone
        return self._slot(value, ("object", id(value)), (), None)

    def _index_part(self, part: Any) -> Any:
        if part is None or part is Ellipsis:
            return part
        if isinstance(part, slice):
            return ("slice", part.start, part.stop, part.step)
        return self._placed(as_array(part), index=True)


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
    if array.dtype.kind not in "iu" or not array.size:
        return ()
    return tuple(
        -1 - after
        for after, n in enumerate(reversed(array.shape))
        if array.flat[-1] == n - 1  # which most arrays fail
        and (array == np.arange(n).reshape(n, *(1,) * after)).all()
    )


def terms_of(key: Any, terms: Terms) -> list[Term]:
    """Return the interned term of each row of a Snapshot's key.

    Equal elements in equal shapes are one term.
    """
    rows, slots = key
    constants = [terms.one(x.op, (), dict(x.params), x.shape, x.dtype) for x in slots]
    found: list[Term] = []
    for row in rows:
        inputs = [constants[x.place] if isinstance(x, Slot) else found[x] for x in row.inputs]
        params = dict(row.params)
        if row.op == "getitem":  # the arrays of an index are arguments of the term
            index = params["index"]
            inputs += [constants[x.place] for x in index if isinstance(x, Slot)]
            params["index"] = tuple(HERE if isinstance(x, Slot) else x for x in index)
        term = Term(row.op, tuple(inputs), params, row.shape, row.dtype)
        found.append(terms.intern(_in_terms(term)))
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
