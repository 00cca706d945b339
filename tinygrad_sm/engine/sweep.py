"""The reverse sweep: from an output back to everything that it was computed from.

Gradients belong to the pass: they live in a dictionary while it runs and reach `grad` only when
the whole sweep has succeeded. Creation order is a topological order, so the sweep just visits the
recorded Tensors from the newest to the oldest; nothing recurses.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from tinygrad_sm.engine import rules as p
from tinygrad_sm.engine import tensor
from tinygrad_sm.engine.tensor import Tensor, _float_array, changing
from tinygrad_sm.engine.threads.large import LARGE, add_in_place, share, unshared
from tinygrad_sm.engine.view import Graph, Node, graph
from tinygrad_sm.errors import (
    ChangedDataError,
    GradientWarning,
    InvalidTypeError,
    InvalidValueError,
)

_ndarray = np.ndarray
_creation = attrgetter("_id")

GROWTH = 20
"""Passes in a row that each go on through more old results, before backward warns."""
_grown = (0, 0)  # how many of these the last pass had, how often in a row it was more

before_sweep: ContextVar[Callable[[Tensor], Tensor] | None] = ContextVar(
    "before_sweep", default=None
)
"""What `backward` puts in the place of an output before it sweeps, if anything: see `fusing`."""


class Contribution(NamedTuple):
    """What one edge added to the cotangent of a Tensor."""

    consumer: Node
    """The node whose vjp gave it."""
    argument: int
    """The position of the Tensor among that node's arguments."""
    value: np.ndarray
    """The contribution, of the Tensor's shape and dtype."""


class Step(NamedTuple):
    """One visit of the sweep: a node, its cotangent, and what it passed on to its arguments."""

    node: Node
    cotangent: np.ndarray
    passed_on: tuple[Contribution, ...]


class BackwardTrace:
    """The record of one backward sweep.

    Attributes:
        graph: the view of the graph that was swept.
        steps: one `Step` per node that received a cotangent, in the order of the sweep.
    """

    def __init__(self, output: Tensor) -> None:
        self.graph: Graph = graph(output)
        self.steps: list[Step] = []
        self._received: dict[int, list[Contribution]] = {}
        self._cotangents: dict[int, np.ndarray] = {}

    def contributions(self, tensor: Tensor) -> list[Contribution]:
        """Return what was added up for a Tensor: (consumer node, argument index, array) each.

        Their sum is the Tensor's cotangent. The list is empty for the output, which was seeded.

        Raises:
            InvalidValueError: the Tensor took no part in the sweep.
        """
        return list(self._received.get(self.graph.node_of(tensor).id, ()))

    def cotangent(self, tensor: Tensor) -> np.ndarray | None:
        """Return the gradient that the sweep found for a Tensor, or None if none reached it."""
        return self._cotangents.get(self.graph.node_of(tensor).id)

    def _visit(self, t: Tensor, g: Any, passed: list[tuple[Tensor, int, Any]]) -> None:
        node = self.graph.node_of(t)
        edges = []
        for x, i, value in passed:
            edge = Contribution(node, i, _array(value))
            edges.append(edge)
            self._received.setdefault(self.graph.node_of(x).id, []).append(edge)
        self._cotangents[node.id] = g = _array(g)
        self.steps.append(Step(node, g, tuple(edges)))


def backward(
    output: Tensor, gradient: Any = None, *, create_graph: bool = False, trace: bool = False
) -> BackwardTrace | None:
    """Do what `Tensor.backward` says."""
    given = output
    replace = before_sweep.get()
    if replace is not None and given.requires_grad:
        output = replace(given)
    order = _recorded(output)
    seed = _seed(output, gradient, create_graph)
    record = BackwardTrace(output) if trace else None
    cotangents, shared = _sweep(order, output, seed, create_graph, record)
    if output is not given:  # the one that the caller holds took part, too
        cotangents[given._id] = seed
        order.append(given)
    again = 0
    with changing:
        for t in order:
            key = t._id
            g = cotangents.get(key)
            if g is None:
                continue
            if t._grad is None:
                t._grad = g
                t._grad_shared = not create_graph and (t._first is not None or key in shared)
            else:
                again += t._first is not None
                t._grad = _total(t._grad, g)
                t._grad_shared = False
    _check_growth(again, stacklevel=4)
    return record


def _check_growth(again: int, stacklevel: int) -> None:
    """Warn if each of many passes went on through all that the ones before had gone through.

    `again` counts the computed Tensors of a pass that had a gradient before, or that are older than
    all that is asked for: none in a usual training loop, as many in each pass through a graph that
    several losses share, and always more if parameters are rebound to what was computed of them.
    """
    global _grown
    last, times = _grown
    _grown = (again, times + 1 if again > last else 0)
    if times == GROWTH:
        warnings.warn(
            f"the graph that backward goes through has grown in each of {GROWTH} passes: "
            "w = w - step records all steps for ever; write `with tg.no_grad(): w -= step`, "
            "or detach() what is kept from one step to the next",
            GradientWarning,
            stacklevel=stacklevel,
        )


def grad(
    output: Tensor,
    inputs: Any,
    gradient: Any = None,
    *,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> Any:
    """Return the gradient of `output` with respect to `inputs`, and touch no `.grad`.

    Args:
        output: a Tensor; if it has more than one element, `gradient` is needed.
        inputs: a Tensor, leaf or not, or a sequence of them.
        gradient: the cotangent of `output`, of its shape.
        create_graph: return Tensors that can be differentiated again.
        allow_unused: return zeros for an input that `output` does not depend on (the gradient,
            and jax's answer; torch's is None); without it that is an error, as in torch, since it
            is mostly a mistake.

    Returns:
        An array of the input's shape and dtype (a Tensor with `create_graph`), or a list of them.

    Raises:
        InvalidTypeError: `output` or an input is not a Tensor, or nothing requires a gradient.
        InvalidValueError: `gradient` is missing or has the wrong shape, or `output` does not
            depend on an input.
        ChangedDataError: data was changed in place after it was used.
    """
    single = isinstance(inputs, Tensor)
    if not single and not isinstance(inputs, Iterable):
        raise InvalidTypeError(
            f"grad: inputs must be a Tensor or a sequence of them; got {type(inputs).__name__}"
        )
    wanted: list[Any] = [inputs] if single else list(inputs)
    for i, x in enumerate((output, *wanted)):
        if not isinstance(x, Tensor):
            what = "output" if i == 0 else f"input {i}"
            raise InvalidTypeError(f"grad: {what} must be a Tensor; got {type(x).__name__}")
    order = _recorded(output)
    seed = _seed(output, gradient, create_graph)
    cotangents, shared = _sweep(order, output, seed, create_graph, None)
    if not create_graph and wanted:  # else the steps so far may be meant to be differentiated
        oldest = min(x._id for x in wanted)
        _check_growth(sum(t._id < oldest and t._first is not None for t in order), stacklevel=3)
    found: list[Any] = []
    for i, x in enumerate(wanted, 1):
        g = cotangents.get(x._id)
        if g is None:
            if not allow_unused:
                name = "" if x.name is None else f" {x.name!r}"
                raise InvalidValueError(
                    f"grad: output does not depend on input {i},{name} of shape {x.shape}, by "
                    "recorded operations; allow_unused=True gives zeros"
                )
            zeros = np.zeros(x.shape, x.dtype)
            g = Tensor(zeros, requires_grad=False) if create_graph else zeros
        elif not create_graph and (x._op is not None or x._id in shared):
            g = g.copy()
        shared.add(x._id)  # should it be asked for again
        found.append(g)
    return found[0] if single else found


def _recorded(output: Tensor) -> list[Tensor]:
    """Return the Tensors that require a gradient and that `output` depends on, newest first.

    Raises before any work is done if there are none or if a leaf's data has changed since.
    """
    if not output.requires_grad:
        raise InvalidTypeError(
            "backward needs an output that depends on a Tensor with requires_grad=True; "
            "this one does not"
        )
    found = [output]
    seen = {output._id}
    for t in found:  # grows while it is walked
        for x in (t._first, t._second) + t._call[2]:  # `_operands`, but faster
            if not isinstance(x, Tensor):
                continue
            if x._lent is not None:
                _check_unchanged(t, x)
            if x.requires_grad and x._id not in seen:
                seen.add(x._id)
                found.append(x)
    found.sort(key=_creation, reverse=True)
    return found


def _check_unchanged(t: Tensor, leaf: Tensor) -> None:
    """Raise ChangedDataError if `leaf` no longer holds what the operation behind `t` was run on."""
    now = leaf.numpy()
    for x, used in zip(t._operands, t._args, strict=True):
        if x is leaf and not np.array_equal(now, used, equal_nan=True):
            name = "a Tensor" if leaf.name is None else f"the Tensor {leaf.name!r}"
            raise ChangedDataError(
                f"backward: the data of {name} of shape {leaf.shape} was changed after the "
                "forward pass that used it; run the forward pass again"
            )


def _seed(output: Tensor, gradient: Any, create_graph: bool) -> Any:
    seed: Any
    if gradient is None:
        if output._array.size != 1:
            raise InvalidValueError(
                f"backward from an output of shape {output.shape} needs gradient, an array of "
                "that shape; only an output with one element starts from 1"
            )
        seed = np.array(1.0, output._array.dtype)
        if output._array.ndim:
            seed = seed.reshape(output._array.shape)
    elif isinstance(gradient, Tensor) and create_graph:
        seed = gradient
    else:
        seed = _float_array(gradient, output.dtype, what="gradient")
    if seed.shape != output.shape:
        raise InvalidValueError(
            f"gradient must have the output's shape {output.shape}; got {seed.shape}"
        )
    if create_graph and not isinstance(seed, Tensor):
        seed = Tensor(seed, requires_grad=False)
    return seed


def _sweep(
    order: list[Tensor],
    output: Tensor,
    seed: Any,
    create_graph: bool,
    record: BackwardTrace | None,
) -> tuple[dict[int, Any], set[int]]:
    """Visit the Tensors newest first and add up every edge's contribution.

    Returns the cotangent of each Tensor by id, and the ids of leaves whose cotangent is an array
    that something else may refer to as well.
    """
    cotangents: dict[int, Any] = {output._id: seed}
    shared = {output._id}
    for t in order:
        key = t._id
        g = cotangents.get(key)
        if g is None:
            continue
        op, params, others, snapshots, _ = t._call
        passed: list[tuple[Tensor, int, Any]] | None = None if record is None else []
        if op is not None:
            x, y = t._first, t._second
            a = x._array if isinstance(x, Tensor) else x
            if create_graph or others or snapshots is not None:
                operands = t._operands
                call = (g, t, *operands) if create_graph else (g, t._array, *t._args)
            elif y is None:  # nearly all are such as these two
                operands = (x,)
                call = (g, t._array, a)
            else:
                operands = (x, y)
                call = (g, t._array, a, y._array if isinstance(y, Tensor) else y)
            given = call
            large = t._array.size >= LARGE or (y is None and a.size >= LARGE)
            if large and op.shares and not create_graph:
                given = tuple([share(a) for a in call])
            vjps = op._vjps if op.arity is not None else op.vjps(len(operands))
            i = -1
            for x in operands:
                i += 1
                if not isinstance(x, Tensor) or not x.requires_grad:
                    continue
                vjp = vjps[i]
                if vjp is None:
                    continue
                c = vjp(*given, **params) if params else vjp(*given)
                if create_graph or type(c) is not _ndarray:
                    if c is None:
                        continue
                    if not isinstance(c, Tensor):
                        c = np.asarray(unshared(c))
                        if create_graph:  # this vjp is a constant
                            c = Tensor(c, requires_grad=False)
                data = x._array
                if c.shape != data.shape or c.dtype is not data.dtype:  # equal ones may differ
                    c = _fitted(c, x, op.name, i)
                key = x._id
                if key in cotangents:
                    _accumulate(cotangents, key, c)
                    shared.discard(key)
                else:
                    cotangents[key] = c
                    if x._first is None and _borrowed(c, call):
                        shared.add(key)
                if passed is not None:
                    passed.append((x, i, c))
        if record is not None:
            record._visit(t, g, passed or [])
    return cotangents, shared


def _accumulate(cotangents: dict[int, Any], key: int, c: Any) -> None:
    """Add a contribution to a cotangent: in place if it is large and nobody else holds it."""
    if cotangents[key].size < LARGE or type(c) is not _ndarray:
        cotangents[key] = _total(cotangents[key], c)
    elif _is_ours(cotangents, key):
        add_in_place(cotangents[key], c)
    else:
        cotangents[key] = unshared(share(cotangents[key]) + c)


def _references(values: dict[int, Any], key: int) -> int:
    """How many hold a value: as many as `_ONE`, if only the dictionary does."""
    return sys.getrefcount(values[key])


_ONE = _references({0: object()}, 0)


def _is_ours(cotangents: dict[int, Any], key: int) -> bool:
    """Whether nobody else sees the array's memory: not who gave it, no view, no record."""
    if _references(cotangents, key) > _ONE:
        return False
    array = cotangents[key]
    return type(array) is _ndarray and array.flags.owndata and array.flags.writeable


def _total(known: Any, c: Any) -> Any:
    total = known + c
    return total if type(total) is _ndarray else _no_scalar(total)


def _no_scalar(value: Any) -> Any:
    """NumPy turns what it computes of 0-d arrays into scalars; a gradient stays an array."""
    return np.asarray(value) if isinstance(value, np.generic) else value


def _borrowed(c: Any, call: tuple[Any, ...]) -> bool:
    """Whether a contribution may share its memory with what the vjp was called with."""
    if not isinstance(c, _ndarray):
        return False
    if c.base is None and c.flags.writeable:  # its memory is its own: it is shared with views only
        given = [a for a in call if isinstance(a, _ndarray) and (a is c or a.base is c)]
        return bool(given)  # a list, since a generator costs more than these few
    return not c.flags.writeable or any(
        isinstance(a, _ndarray) and np.may_share_memory(c, a) for a in call
    )


def _fitted(c: Any, x: Tensor, op: str, argument: int) -> Any:
    """Undo broadcasting by summing, and give the contribution its argument's dtype.

    Raises InvalidValueError if the vjp's shape is not a broadcast of the argument's.
    """
    shape = x.shape
    if c.shape != shape:
        extra = c.ndim - len(shape)
        if extra < 0 or any(n not in (1, m) for n, m in zip(shape, c.shape[extra:], strict=True)):
            raise InvalidValueError(
                f"the vjp of {op!r} for argument {argument} returned shape {c.shape}; "
                f"the argument's shape is {shape}"
            )
        c = _no_scalar(unshared(p.sum_to(share(c), x)))
    return c if c.dtype == x.dtype else p.astype(c, dtype=x.dtype)


def _array(value: Any) -> np.ndarray:
    """A read-only copy: others may hold, change or add to the array itself."""
    copy: np.ndarray = np.array(value.numpy() if isinstance(value, Tensor) else value)
    copy.setflags(write=False)
    return copy


def jacobian(f: Callable[[Tensor], Tensor], x: Any) -> np.ndarray:
    """Return the Jacobian of `f` at `x`: entry [i…, j…] is ∂f(x)[i…] / ∂x[j…].

    One reverse sweep per element of the output.

    Args:
        f: maps a Tensor to a Tensor.
        x: an array or a Tensor, of any shape.

    Returns:
        An array of shape ``f(x).shape + x.shape``. For softmax of n logits it is
        ``diag(p) - p pᵀ``.

    Raises:
        InvalidTypeError: `f` does not return a Tensor that depends on its argument.
    """
    at, y = _evaluated("jacobian", f, x)
    rows = [grad(y, at, unit, allow_unused=True) for unit in _units(y)]
    return np.array(rows, dtype=at.dtype).reshape(y.shape + at.shape)


def hessian(f: Callable[[Tensor], Tensor], x: Any) -> np.ndarray:
    """Return the second derivatives of a scalar `f` at `x`: entry [i…, j…] is ∂²f/∂x[i…]∂x[j…].

    The gradient is recorded (``create_graph``) and differentiated again, once per element.

    Returns:
        An array of shape ``x.shape + x.shape``. For softmax-cross-entropy of n logits it is
        ``Σy · (diag(p) - p pᵀ)``.

    Raises:
        InvalidTypeError: `f` does not return a Tensor that depends on its argument.
        InvalidValueError: `f` does not return one element.
    """
    at, y = _evaluated("hessian", f, x)
    g = grad(y, at, create_graph=True, allow_unused=True)
    if not g.requires_grad:  # f is linear in x
        return np.zeros(at.shape + at.shape, at.dtype)
    rows = [grad(g, at, unit, allow_unused=True) for unit in _units(g)]
    return np.array(rows, dtype=at.dtype).reshape(at.shape + at.shape)


def _evaluated(caller: str, f: Callable[[Tensor], Tensor], x: Any) -> tuple[Tensor, Tensor]:
    """The point as a leaf, and the value of f there."""
    if not callable(f):
        raise InvalidTypeError(f"{caller}: f must be a function; got {type(f).__name__}")
    at = Tensor(x, requires_grad=True)
    y = f(at)
    if not isinstance(y, Tensor) or not y.requires_grad:
        raise InvalidTypeError(
            f"{caller}: f must return a Tensor that depends on its argument; got {type(y).__name__}"
        )
    return at, y


def _units(y: Tensor) -> list[np.ndarray]:
    units = np.eye(y.size, dtype=y.dtype)
    return [row.reshape(y.shape) for row in units]


tensor._backward = backward
