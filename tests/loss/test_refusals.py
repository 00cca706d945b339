"""Bad input to the losses: each call is one exception of a fitting type, with one sentence."""

import warnings

import numpy as np
import pytest
from loss_cases import EVERY_FORM

import tinygrad_sm as tg

LOGITS = np.ones((2, 3))

ROWS = [
    # id, logits, target, options, exception, sentence
    ("label too large", LOGITS, [0, 3], {}, IndexError, r"indices from 0 to 2 .*; got 3 at \(1,\)"),
    ("label negative", LOGITS, [-1, 0], {}, IndexError, r"from 0 to 2 .*; got -1 at \(0,\)"),
    ("label of one row", LOGITS[0], 5, {}, IndexError, "from 0 to 2 .*; got 5$"),
    ("label fractional", LOGITS, [0.5, 1], {}, TypeError, "must be integers; got dtype float64"),
    ("label boolean", LOGITS, [True, False], {}, TypeError, "must be integers; got dtype bool"),
    ("label text", LOGITS, ["a", "b"], {}, TypeError, "must be integers; got dtype <U1"),
    ("label huge", LOGITS, np.array([2**63, 0], np.uint64), {}, IndexError, "from 0 to 2"),
    (
        "target shape",
        LOGITS,
        [0, 1, 2],
        {},
        ValueError,
        r"shape \(2, 3\) .* or \(2,\) .*got \(3,\)",
    ),
    ("target turned", LOGITS, np.ones((3, 2)), {}, ValueError, r"got \(3, 2\)"),
    ("target one number", LOGITS, 0, {}, ValueError, r"got \(\)"),
    ("target ragged", LOGITS, [[1], [0, 1]], {}, ValueError, "target must be rectangular"),
    ("target None", LOGITS, None, {}, ValueError, r"target must have .* got \(\)"),
    ("target NaN", LOGITS, LOGITS * np.nan, {}, ValueError, r"finite; got nan at \(0, 0\)"),
    ("target infinite", LOGITS, LOGITS * np.inf, {}, ValueError, "target must be finite; got inf"),
    ("target complex", LOGITS, LOGITS * 1j, {}, TypeError, "real numbers; got dtype complex128"),
    ("target objects", LOGITS, LOGITS.astype(object), {}, TypeError, "real numbers; got dtype obj"),
    ("logits one number", 1.0, 0, {}, ValueError, "a class axis; got a single number"),
    ("logits empty", [], 0, {}, ValueError, r"at least one class; their shape is \(0,\)"),
    ("logits no classes", np.ones((2, 0)), [0, 0], {}, ValueError, r"one class.*\(2, 0\)"),
    ("logits text", "abc", 0, {}, TypeError, "data must be real numbers; got str"),
    ("logits ragged", [[1, 2], [3]], [0, 0], {}, ValueError, "rectangular"),
    ("logits complex", LOGITS * 1j, [0, 0], {}, TypeError, "real numbers; got .* complex128"),
    ("logits objects", LOGITS.astype(object), [0, 0], {}, TypeError, "real numbers"),
    ("logits None", None, [0, 0], {}, TypeError, "real numbers"),
    ("logits NaN", LOGITS * np.nan, [0, 0], {}, ValueError, "row 0 of the logits holds NaN"),
    ("weight length", LOGITS, [0, 1], {"weight": [1, 2]}, ValueError, r"\(3,\), one .*got \(2,\)"),
    (
        "weight number",
        LOGITS,
        [0, 1],
        {"weight": 1.0},
        ValueError,
        r"one number per class; got \(\)",
    ),
    ("weight negative", LOGITS, [0, 1], {"weight": [1, -2, 1]}, ValueError, "got -2.0 for class 1"),
    ("weight NaN", LOGITS, [0, 1], {"weight": [1, 1, np.nan]}, ValueError, "got nan for class 2"),
    ("weight inf", LOGITS, [0, 1], {"weight": [np.inf, 1, 1]}, ValueError, "got inf for class 0"),
    (
        "weight text",
        LOGITS,
        [0, 1],
        {"weight": ["a"] * 3},
        TypeError,
        "weight must be real numbers",
    ),
    ("weight ragged", LOGITS, [0, 1], {"weight": [[1], [1, 2]]}, ValueError, "weight must be rect"),
    (
        "weight Tensor",
        LOGITS,
        [0, 1],
        {"weight": tg.Tensor([1, 1, 1])},
        TypeError,
        "not diff.*detach",
    ),
    ("smoothing 1.5", LOGITS, [0, 1], {"label_smoothing": 1.5}, ValueError, r"\[0, 1\]; got 1.5"),
    ("smoothing -0.1", LOGITS, [0, 1], {"label_smoothing": -0.1}, ValueError, r"got -0.1"),
    ("smoothing NaN", LOGITS, [0, 1], {"label_smoothing": np.nan}, ValueError, "got nan"),
    ("smoothing text", LOGITS, [0, 1], {"label_smoothing": "a"}, TypeError, "a number; got str"),
    ("smoothing None", LOGITS, [0, 1], {"label_smoothing": None}, TypeError, "got NoneType"),
    ("temperature 0", LOGITS, [0, 1], {"temperature": 0}, ValueError, "positive and finite; got 0"),
    ("temperature -1", LOGITS, [0, 1], {"temperature": -1.0}, ValueError, "got -1.0"),
    ("temperature inf", LOGITS, [0, 1], {"temperature": np.inf}, ValueError, "got inf"),
    ("temperature NaN", LOGITS, [0, 1], {"temperature": np.nan}, ValueError, "got nan"),
    ("temperature list", LOGITS, [0, 1], {"temperature": [1]}, TypeError, "a number; got list"),
    (
        "reduction",
        LOGITS,
        [0, 1],
        {"reduction": "avg"},
        ValueError,
        "'mean', 'sum', 'none'; got 'avg'",
    ),
    ("reduction None", LOGITS, [0, 1], {"reduction": None}, ValueError, "one of .*; got None"),
    ("reduction list", LOGITS, [0, 1], {"reduction": ["mean"]}, ValueError, "one of .*; got"),
    ("axis 2", LOGITS, [0, 1], {"axis": 2}, ValueError, r"between -2 and 1 .*\(2, 3\); got 2"),
    ("axis -3", LOGITS, [0, 1], {"axis": -3}, ValueError, "got -3"),
    ("axis 0.5", LOGITS, [0, 1], {"axis": 0.5}, TypeError, "axis must be an integer; got float"),
    (
        "axis None",
        LOGITS,
        [0, 1],
        {"axis": None},
        TypeError,
        "axis must be an integer; got NoneType",
    ),
    ("axis True", LOGITS, [0, 1], {"axis": True}, TypeError, "axis must be an integer; got bool"),
    ("ignore_index 0.5", LOGITS, [0, 1], {"ignore_index": 0.5}, TypeError, "an integer; got 0.5"),
    ("ignore_index soft", LOGITS, LOGITS, {"ignore_index": 1}, ValueError, "class indices only"),
]


@pytest.mark.parametrize("loss_function", [*EVERY_FORM, tg.compare])
@pytest.mark.parametrize(
    ("logits", "target", "options", "exception", "sentence"),
    [row[1:] for row in ROWS],
    ids=[row[0] for row in ROWS],
)
def test_losses_refuse(loss_function, logits, target, options, exception, sentence):
    with pytest.raises(exception, match=sentence) as caught:
        loss_function(logits, target, **options)
    assert isinstance(caught.value, tg.TinygradError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("loss_function", EVERY_FORM)  # `compare` takes them
def test_losses_refuse_labels_that_are_whole_floats(loss_function):
    with pytest.raises(TypeError, match="must be integers; got dtype float64"):
        loss_function(LOGITS, [0.0, 1])


@pytest.mark.parametrize("function", [tg.composite_cross_entropy, tg.compare])
@pytest.mark.parametrize("form", ["fused", "", None, 1])
def test_unknown_form(function, form):
    with pytest.raises(
        ValueError, match="form must be one of 'naive', 'shifted', 'logsumexp'; got"
    ):
        function(LOGITS, [0, 1], form=form)


W = np.ones((4, 3))


@pytest.mark.parametrize(
    ("args", "options", "exception", "sentence"),
    [
        ((LOGITS, np.ones((4, 2)), [0, 1]), {}, ValueError, r"same D; got \(2, 3\) and \(4, 2\)"),
        ((1.0, W, 0), {}, ValueError, r"x must have shape \(\.\.\., D\)"),
        ((LOGITS, np.ones(3), [0, 1]), {}, ValueError, r"weight \(classes, D\)"),
        (
            (LOGITS, W, [0, 1]),
            {"bias": [1.0]},
            ValueError,
            r"bias must have shape \(4,\).*got \(1,\)",
        ),
        ((LOGITS, W, [0, 4]), {}, IndexError, "class indices from 0 to 3"),
        ((LOGITS, W, [0, 1]), {"class_weight": [1]}, ValueError, "one number per class"),
        ((LOGITS, np.ones((0, 3)), [0, 1]), {}, ValueError, "at least one class"),
        (
            (LOGITS, W, [0, 1]),
            {"chunk_rows": 0},
            ValueError,
            "chunk_rows must be at least 1; got 0",
        ),
        ((LOGITS, W, [0, 1]), {"chunk_rows": 1.5}, TypeError, "an integer; got 1.5"),
        ((LOGITS, W, [0, 1]), {"chunk_rows": True}, TypeError, "an integer; got True"),
        (("a", W, [0, 1]), {}, TypeError, "real numbers"),
    ],
)
def test_linear_refuses(args, options, exception, sentence):
    with pytest.raises(exception, match=sentence) as caught:
        tg.linear_cross_entropy(*args, **options)
    assert isinstance(caught.value, tg.TinygradError)


def test_unsigned_labels_are_what_they_are():
    for label in (2**64 - 1, 2**64 - 100):
        with pytest.raises(tg.TinygradError, match=f"got {label} at"):
            tg.cross_entropy(np.zeros((1, 3)), np.array([label], np.uint64))


# Likely mistakes ----------------------------------------------------------------------------------


def exp_over_sum(x, axis=-1):
    e = tg.exp(x)
    return e / e.sum(axis=axis, keepdims=True)


PROBABILITIES = {
    "softmax": tg.softmax,
    "softmax over axis 1": lambda x: tg.softmax(x, axis=1),
    "exp / sum": exp_over_sum,
    "exp / sum, shifted": lambda x: exp_over_sum(x - np.max(x.numpy(), axis=1, keepdims=True)),
}


@pytest.mark.parametrize("name", PROBABILITIES)
@pytest.mark.parametrize("loss", [tg.cross_entropy, lambda a, t: tg.SoftmaxWithLoss()(a, t)])
def test_softmax_applied_twice_is_a_warning_at_the_users_line(name, loss):
    a = PROBABILITIES[name](tg.Tensor(LOGITS))
    with pytest.warns(tg.LossWarning, match="softmax is applied twice") as found:
        loss(a, [0, 1])
    assert [w.filename for w in found] == [__file__]


def test_softmax_applied_twice_to_one_row():
    e = np.exp(tg.Tensor(LOGITS[0]))
    with pytest.warns(tg.LossWarning, match="softmax is applied twice"):
        tg.cross_entropy(e / e.sum(), 0)


@pytest.mark.parametrize(
    "logits",
    [
        lambda x: x,
        lambda x: x * 2,
        lambda x: x / tg.sum(x, axis=1, keepdims=True),
        lambda x: tg.exp(x) / 3.0,
        lambda x: tg.exp(x) / tg.exp(x * 2).sum(axis=1, keepdims=True),
        lambda x: 1 / tg.sum(x, axis=1, keepdims=True) * x,
        lambda x: tg.log_softmax(x),  # normalised once, and it stays so
        lambda x: tg.log(tg.softmax(x)),
        lambda x: tg.softmax(x, axis=0),  # attention, say, over something else
        lambda x: exp_over_sum(x, axis=0),
        lambda x: tg.softmax(x) * 10,
        lambda x: tg.softmax(x).numpy(),
    ],
)
def test_no_warning_on_what_is_usual(logits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tg.cross_entropy(logits(tg.Tensor(LOGITS)), [0, 1])


def test_swapped_arguments_are_suspected():
    with pytest.raises(ValueError, match="are logits and target swapped"):
        tg.cross_entropy([0, 1], LOGITS)
    with pytest.raises(ValueError, match=r"got \(3,\)$"):
        tg.cross_entropy(LOGITS, [0, 1, 2])


def test_float_labels_are_told_how_to_become_integers():
    with pytest.raises(TypeError, match=r"target.astype\(int\)"):
        tg.cross_entropy(LOGITS, [0.0, 1.0])
