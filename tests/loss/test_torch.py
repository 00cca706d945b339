"""PyTorch's cross_entropy: its stored values for every option, and itself where it is installed."""

import json
import warnings

import make_expected
import numpy as np
import pytest

import tinygrad_sm as tg
from tinygrad_sm.loss.composite import FORMS

STORED = json.loads(make_expected.EXPECTED.read_text(encoding="utf-8"))
INPUTS = {
    name: {key: np.array(value) for key, value in given.items()}
    for name, given in STORED["inputs"].items()
}


def ours(function, case, given, dtype="float64", **options):
    """Loss, and gradient of Σ cotangent·loss, as `make_expected.torch_result` gives them."""
    a = tg.Tensor(given["logits"], dtype=dtype)
    loss = function(
        a,
        given[case["target"]],
        axis=make_expected.SHAPES[case["shape"]][1],
        weight=given["weight"] if case["weighted"] else None,
        **{key: case[key] for key in ("reduction", "label_smoothing", "temperature")},
        **options,
    )
    cotangent = given["cotangent"] if case["reduction"] == "none" else 1.0
    return loss.numpy(), tg.grad(loss, a, cotangent)


def names(case):
    return "-".join(str(value) for key, value in case.items() if key not in ("loss", "grad"))


@pytest.mark.parametrize("case", STORED["cases"], ids=names)
def test_every_option_means_what_it_means_in_pytorch(case):
    given = INPUTS[case["shape"]]
    results = [ours(tg.cross_entropy, case, given)]
    results += [ours(tg.composite_cross_entropy, case, given, form=form) for form in FORMS]
    for loss, grad in results:
        np.testing.assert_allclose(loss, case["loss"], rtol=1e-13, atol=1e-14)
        np.testing.assert_allclose(grad, case["grad"], rtol=1e-12, atol=1e-14)


def test_the_stored_cases_are_all_that_the_script_makes():
    without = [{k: v for k, v in c.items() if k not in ("loss", "grad")} for c in STORED["cases"]]
    assert without == list(make_expected.cases())


@pytest.mark.parametrize(("dtype", "rtol", "seed"), [("float64", 1e-12, 1), ("float32", 2e-5, 2)])
def test_pytorch_itself_on_other_inputs(dtype, rtol, seed):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)  # waking more costs these small arrays seconds
    for case in make_expected.cases():
        given = make_expected.inputs(case["shape"], seed)
        expected_loss, expected_grad = make_expected.torch_result(case, given, dtype)
        loss, grad = ours(tg.cross_entropy, case, given, dtype)
        np.testing.assert_allclose(loss, expected_loss, rtol=rtol, atol=rtol / 10)
        np.testing.assert_allclose(grad, expected_grad, rtol=rtol, atol=rtol / 10)


def test_another_ignore_index():
    torch = pytest.importorskip("torch")
    logits, target = INPUTS["batch"]["logits"], np.array([0, 3, 1, 3, 2])
    for ignore_index in (3, -1, -100, 7):
        for reduction in ("mean", "sum", "none"):
            expected = torch.nn.functional.cross_entropy(
                torch.tensor(logits), torch.tensor(target), ignore_index=ignore_index,
                reduction=reduction, label_smoothing=0.1,
            )  # fmt: skip
            loss = tg.cross_entropy(
                logits, target, ignore_index=ignore_index, reduction=reduction, label_smoothing=0.1
            )
            np.testing.assert_allclose(loss, expected.numpy(), rtol=1e-14)


# Where it departs, as its docstring says ----------------------------------------------------------


def test_the_class_axis_is_the_last_by_default():
    logits = np.random.default_rng(0).normal(size=(2, 4, 3))
    assert tg.cross_entropy(logits, np.zeros((2, 4), int), reduction="none").shape == (2, 4)


def test_all_rows_ignored_is_0_where_pytorch_says_nan():
    a = tg.Tensor(np.ones((2, 3)))
    with pytest.warns(tg.LossWarning, match="all are ignored"):
        loss = tg.cross_entropy(a, [-100, -100])
    loss.backward()
    assert loss.item() == 0
    assert (a.grad == 0).all()
    for reduction in ("sum", "none"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert not tg.cross_entropy(a, [-100, -100], reduction=reduction).numpy().any()


def test_a_nan_in_an_ignored_row_is_an_error_too():
    with pytest.raises(tg.TinygradError, match="row 1 of the logits holds NaN"):
        tg.cross_entropy([[1.0, 2.0], [np.nan, 1.0]], [0, -100])


def test_distributions_of_any_sum_have_the_true_gradient():
    logits, y = np.array([[2.0, 1.0, 0.1]]), np.array([[1.0, 1.0, 0.0]])
    a = tg.Tensor(logits)
    tg.cross_entropy(a, y).backward()
    p = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(a.grad, 2 * p - y, rtol=1e-14)
