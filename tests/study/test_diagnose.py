"""first_breakdown: the node that broke first, where, and why."""

import re

import numpy as np
import pytest

import tinygrad_sm as tg
from tinygrad_sm.study.diagnose import underflowed


def broken(compute, *arrays):
    with np.errstate(all="ignore"):
        output = compute(*(tg.Tensor(a) for a in arrays))
        found = tg.first_breakdown(output)
    assert str(found) == str(tg.first_breakdown(tg.graph(output)))
    return found


own = {
    op.name: op
    for op in (
        tg.def_primitive("own_exp", np.exp, lambda g, y, x: g * y),
        tg.def_primitive("own_log", np.log, lambda g, y, x: g / x),
        tg.def_primitive(
            "own_div", np.divide, lambda g, q, f, d: g / d, lambda g, q, f, d: -g * q / d
        ),
        tg.def_primitive(
            "own_square", lambda x: x * x, lambda g, y, x: 2 * g * x, kind="elementwise"
        ),
    )
}


@pytest.mark.parametrize(
    ("compute", "arrays", "op", "index", "cause"),
    [
        (lambda a: a.exp().log(), ([1.0, 710.0],), "exp", (1,), r"exp\(710\) is above 1.8e\+308"),
        (lambda a: a.exp(), (np.float32([90.0]),), "exp", (0,), r"exp\(90\) is above 3.4e\+38"),
        (lambda a: a.log() * 0, ([1.0, 0.0],), "log", (1,), r"log\(0\) is -inf"),
        (lambda a: a.log(), ([-2.0],), "log", (0,), r"log\(-2\) is nan"),
        (lambda a, b: a / b, ([[1.0], [3.0]], [2.0, 0.0]), "div", (0, 1), "1 was divided by 0"),
        (lambda a: a * a, ([1e200],), "mul", (0,), "mul overflowed to inf"),
        (lambda a: (a + a).sum(), ([1e308] * 3,), "add", (0,), "add overflowed to inf"),
        (lambda a: a.sum(), ([1e308] * 3,), "sum", (), "sum overflowed to inf"),
        (lambda a: a.sqrt(), (-1.0,), "sqrt", (), r"sqrt\(-1\) is nan"),
        (lambda a: a.exp(), (1000.0,), "exp", (), "exp overflowed"),
        (lambda a: a**-1, ([2.0, 0.0],), "pow", (1,), r"pow\(0, -1\) is inf"),
        (
            lambda a: a.astype("float16"),
            ([1e6],),
            "astype",
            (0,),
            r"astype\(1e\+06\) is above 6.6e",
        ),
        (
            own["own_exp"],
            ([1.0, 1000.0],),
            "own_exp",
            (1,),
            r"own_exp overflowed: own_exp\(1000\) is above 1.8e\+308",
        ),
        (own["own_log"], ([-np.inf, 0.0],), "own_log", (1,), r"own_log\(0\) is -inf"),
        (own["own_div"], ([[1.0], [3.0]], [2.0, 0.0]), "own_div", (0, 1), "1 was divided by 0"),
        (
            own["own_square"],
            ([-np.inf, -1e200],),
            "own_square",
            (1,),
            r"own_square\(-1e\+200\) is above",
        ),
        (lambda a: -own["own_square"](a), ([1e200],), "own_square", (0,), "overflowed"),
        (
            lambda a: (a - 1).relu().abs().sigmoid().exp() / (a * 0),
            ([1.0],),
            "div",
            (0,),
            "divided",
        ),
        (lambda a: a @ a, ([[1e200]],), "matmul", (0, 0), "matmul overflowed to inf"),
    ],
)
def test_the_first_node_and_the_cause(compute, arrays, op, index, cause):
    found = broken(compute, *arrays)
    assert (found.node.op, found.phase, found.index) == (op, "forward", index)
    assert re.search(cause, found.cause), found.cause
    assert str(found).startswith(f"forward pass, at node {found.node.id} {op}: ")


def test_nothing_broke():
    assert broken(lambda a: a.exp().sum().log(), [1.0, 2.0]) is None
    a = tg.Tensor([1.0, 2.0])
    assert tg.first_breakdown((a * a).sum().backward(trace=True)) is None


def test_infinities_that_were_given_are_no_breakdown_and_hide_none():
    assert broken(lambda a: a.exp(), [-np.inf, 1.0]) is None
    assert broken(lambda a: a * 2, [np.inf]) is None
    found = broken(lambda a: a.exp(), [-np.inf, 1000.0])
    assert (found.node.op, found.index) == ("exp", (1,))


def test_a_breakdown_of_the_backward_sweep():
    a = tg.Tensor([0.0, 4.0], name="a")
    with np.errstate(all="ignore"):
        trace = a.sqrt().sum().backward(trace=True)
    found = tg.first_breakdown(trace)
    assert (found.phase, found.node.op, found.index) == ("backward", "sqrt", (0,))
    assert found.cause == "the vjp of sqrt for argument 0 gave inf"


def test_zero_times_infinity_in_the_backward_sweep():
    a = tg.Tensor([0.0])
    with np.errstate(all="ignore"):
        trace = (a.sqrt() * a.sqrt() * 0).sum().backward(trace=True)
    assert tg.first_breakdown(trace).cause.endswith("gave NaN (such as 0·inf)")


def test_the_name_of_the_node_is_in_the_sentence():
    a = tg.Tensor(1000.0)
    with np.errstate(all="ignore"):
        e = a.exp()
    e.name = "e"
    found = str(tg.first_breakdown(tg.graph(e)))
    assert found.startswith("forward pass, at node 1 'e' (exp): exp over")


def test_what_records_nothing_is_refused():
    with pytest.raises(tg.TinygradError, match="must be a Tensor; got float"):
        tg.first_breakdown(1.0)


def test_underflow_is_a_0_that_is_positive_on_paper():
    def found(compute, *arrays):
        return underflowed(tg.graph(compute(*(tg.Tensor(a) for a in arrays))))

    assert found(lambda a: a.exp(), [0.0, -800.0]).op == "exp"
    assert found(lambda a: a.exp(), [0.0, -np.inf]) is None  # a mask is a 0 on paper too
    assert found(lambda a, b: a / b, [1e-300], [1e300]).op == "div"
    assert found(lambda a, b: a / b, [0.0], [1e300]) is None
    assert found(lambda a: a * 0, [1.0]) is None
    assert found(lambda a: a * a, [1.0, 1e-200]).op == "mul"
    assert found(own["own_exp"], [0.0, -800.0]).op == "own_exp"
