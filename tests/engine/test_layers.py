"""The core without its layers: each is taken away, and the gradients are what they were.

A layer sits beside the core behind one seam. Here a plain stand-in takes its place, as short as the
idea allows, and the core's own tests run on what is left. Last, the core runs with none at all.
"""

import finite_differences as fd
import numpy as np
import pytest
import test_rules
import test_sweep

from tinygrad_sm.engine import (
    calling,
    gradients,
    memory,
    methods,
    primitive,
    rules,
    sweep,
    tensor,
)  # fmt: skip
from tinygrad_sm.engine.node import NO_PARAMS, Recorded, leaf, record

# One case for each operation, the one with the most elements
CASES = list(
    {
        case.op: case for case in sorted(test_rules.CASES, key=lambda c: np.size(c.arrays[0]))
    }.values()
)


def plainly_added(cotangents):
    for node, g in cotangents.items():
        node._grad = g if node._grad is None else node._grad + g
    return 0


def without_ownership(patch):
    """Data is not lent, nobody looks whether it has changed, gradients are given out as is."""
    patch.setattr(memory, "check_unchanged", lambda nodes: None)
    patch.setattr(memory, "add_to_grads", plainly_added)
    patch.setattr(memory, "grad_of", lambda node: node._grad)
    patch.setattr(memory, "handed_out", lambda cotangents, node: cotangents[node])
    patch.setattr(memory, "lend", lambda node: node._array)
    patch.setattr(memory, "is_lent", lambda node: False)
    patch.setattr(memory, "unexposed", lambda node: node._array)


def without_intake(patch):
    """What users give is taken as it is."""
    patch.setattr(calling, "settled", lambda primitive, args, wanted: args)
    patch.setattr(primitive, "computed", lambda row, args, params: row.forward(*args, **params))


def without_threads(patch):
    """Large operations run like small ones; to be seen, all of them count as large."""
    patch.setattr(calling, "LARGE", 0)
    patch.setattr(calling, "dealt_out", lambda primitive: primitive)


def without_adding_in_place(patch):
    patch.setattr(memory, "add_up", sweep.add)


def without_short_cuts(patch):
    for module in (methods, tensor):
        patch.setattr(
            module, "operated", lambda row, *x, params=NO_PARAMS: calling.call(row, x, params)
        )
    patch.setattr(gradients, "pulled", sweep.pull)


def without_the_trace(patch):
    patch.setattr(gradients, "BackwardTrace", None)


LAYERS = [
    without_ownership, without_intake, without_threads, without_adding_in_place,
    without_short_cuts, without_the_trace,
]  # fmt: skip
GRADIENTS = [
    test_sweep.test_a_tensor_times_itself, test_sweep.test_a_diamond,
    test_sweep.test_a_tensor_used_three_times, test_sweep.test_many_paths,
    test_sweep.test_an_unused_branch_receives_nothing, test_sweep.test_a_leaf_by_itself,
    test_sweep.test_zero_grad_starts_anew, test_sweep.test_two_outputs_add_up,
    test_sweep.test_derivatives_of_a_polynomial, test_sweep.test_jacobian_of_softmax,
    test_sweep.test_gradient_penalty,
]  # fmt: skip


@pytest.fixture(params=LAYERS, ids=lambda layer: layer.__name__)
def taken_away(request, monkeypatch):
    request.param(monkeypatch)


@pytest.mark.usefixtures("taken_away")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_without_a_layer(case):
    test_rules.test_value_and_gradient(case, np.float64)
    test_rules.test_second_derivatives(case)


@pytest.mark.usefixtures("taken_away")
@pytest.mark.parametrize("gradient", GRADIENTS, ids=lambda test: test.__name__)
def test_the_sweep_without_a_layer(gradient):
    gradient()


class Plain(Recorded):
    """A node with no layer at all; operators for the vjps that are recorded."""

    __slots__ = ()

    def __add__(self, other):
        return record(Plain, rules.add, (self, other))

    def __sub__(self, other):
        return record(Plain, rules.sub, (self, other))

    def __mul__(self, other):
        return record(Plain, rules.mul, (self, other))

    __radd__, __rmul__ = __add__, __mul__

    def __truediv__(self, other):
        return record(Plain, rules.div, (self, other))

    def __neg__(self):
        return record(Plain, rules.neg, (self,))


def swept(output, seed):
    cotangents = {output: seed}
    sweep.sweep_back(sweep.newest_first(output), cotangents)
    return cotangents


def test_the_core_alone_finds_the_gradient_of_softmax_and_cross_entropy():
    a = leaf(Plain, np.array([2.0, 1.0, 0.1]), requires_grad=True)
    y = np.array([1.0, 0.0, 0.0])
    e = rules.exp(a)
    p = e / rules.sum(e)
    loss = -rules.sum(rules.log(p) * y)
    cotangents = swept(loss, np.array(1.0))
    np.testing.assert_allclose(cotangents[a], p._array - y, rtol=1e-15)
    edges = {node._operation.primitive.name: c for node in (p, p._second)
             for _, x, c in sweep.pull(node, cotangents[node]) if x is e}  # fmt: skip
    np.testing.assert_allclose(edges["div"] * e._array, -y, atol=1e-15)
    np.testing.assert_allclose(edges["sum"] * e._array, p._array, rtol=1e-15)


def test_the_core_alone_differentiates_twice():
    a = leaf(Plain, np.array([0.3, -1.2]), requires_grad=True)
    f = rules.sum(rules.exp(a) * a)
    first = swept(f, leaf(Plain, np.array(1.0)))[a]
    second = swept(rules.sum(first), np.array(1.0))[a]
    x = a._array.astype(fd.LONG)
    np.testing.assert_allclose(first._array, np.exp(x) * (1 + x), rtol=1e-14)
    np.testing.assert_allclose(second, np.exp(x) * (2 + x), rtol=1e-14)
