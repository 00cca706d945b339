"""Every row of the table, and every function beside it, on exact numbers: as on NumPy's."""

import numpy as np
import pytest
import test_more
import test_rules

import tinygrad_sm as tg

pytest.importorskip("mpmath", reason="needs the extra symbolic: mpmath")

WITHOUT = ("exp2", "log2", "log10")  # whose rules hold a logarithm of 16 digits


def by_table(case):
    return lambda tensors: test_rules.called(case, tensors)


CASES = [
    pytest.param(by_table(case), case.arrays, case.constant, id=str(case))
    for case in test_rules.CASES
] + [
    pytest.param(case.numpy, case.arrays, (), id=f"numpy {case}")
    for case in test_more.CASES
    if case.name not in WITHOUT
]


def run(f, arrays, constant, make):
    """Values and gradients of a weighted sum of all that the operation returns."""
    leaves = [a if i in constant else tg.Tensor(make(a)) for i, a in enumerate(arrays)]
    y = f(leaves)
    total = test_more.weighted(y, test_more.weights(y))
    if isinstance(total, tg.Tensor):
        total.backward()
    grads = [x.grad for x in leaves if isinstance(x, tg.Tensor)]
    return [part.numpy() for part in test_more.parts(y)], grads


@pytest.mark.parametrize(("f", "arrays", "constant"), CASES)
def test_exact_numbers_give_what_floats_give(f, arrays, constant):
    found = run(f, arrays, constant, lambda a: tg.precise(a, digits=30))
    right = run(f, arrays, constant, lambda a: np.asarray(a, np.float64))
    for exact, plain in zip(found, right, strict=True):
        for x, y in zip(exact, plain, strict=True):
            assert (x is None) is (y is None)
            if y is not None:
                assert np.shape(x) == y.shape
                np.testing.assert_allclose(np.asarray(x, np.float64), y, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", WITHOUT)
def test_what_they_lack_is_one_sentence(name):
    with pytest.raises(TypeError, match=f"formulas and exact numbers have no {name}"):
        getattr(tg, name)(tg.Tensor(tg.precise([2.0])))
