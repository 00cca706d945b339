"""A linear layer before the loss: the logits go where nothing else needs them, and only there."""

import numpy as np
import pytest

import tinygrad_sm as tg
from tinygrad_sm.fusion import RULES

N, D, C = 6, 3, 4
RNG = np.random.default_rng(3)
T = np.array([2, 0, 3, 3, 1, 0])
Y = np.eye(C)[T]
SOFT = RNG.dirichlet(np.ones(C), N)
W8 = RNG.random(C) + 0.5
SHAPES = {"x": (N, D), "w": (C, D), "u": (D, C), "b": (C,), "x3": (2, 3, D), "b1": (1, C),
          "r": (N, 1), "w3": (2, C, D), "a": (N, C), "q": (N, N), "x1": (D,)}  # fmt: skip
ONE_NODE = {"LinearSoftmaxWithLoss"}


def leaves(dtype=np.float64):
    rng = np.random.default_rng(4)
    return {n: tg.Tensor(rng.normal(size=s), name=n, dtype=dtype) for n, s in SHAPES.items()}


def naive(a, axis=-1):
    e = a.exp()
    return -(Y * (e / e.sum(axis=axis, keepdims=True)).log()).sum() / N


def picked(a):
    e = np.exp(a)
    return -np.log(e / e.sum(axis=1, keepdims=True))[range(N), T].mean()


# name → function of the leaves; each becomes one node, with what may stand before it
SPELLINGS = {
    "x @ W.T": lambda t: naive(t["x"] @ t["w"].T),
    "x @ W.T + b": lambda t: picked(t["x"] @ t["w"].T + t["b"]),
    "b + x @ W.T": lambda t: picked(t["b"] + t["x"] @ t["w"].T),
    "x @ W, W of shape (D, V)": lambda t: naive(t["x"] @ t["u"] + t["b"]),
    "np.matmul, np.transpose": lambda t: naive(np.matmul(t["x"], np.transpose(t["w"], (1, 0)))),
    "b of shape (1, V)": lambda t: naive(t["x"] @ t["u"] + t["b1"]),
    "b[None]": lambda t: naive(t["x"] @ t["u"] + t["b"][None]),
    "b an array": lambda t: naive(t["x"] @ t["u"] + W8),
    "W an array": lambda t: naive(t["x"] @ np.ones((D, C)) + t["b"]),
    "x an array": lambda t: naive(np.ones((N, D)) @ t["u"] + t["b"]),
    "shifted by the maximum": lambda t: naive(
        (z := t["x"] @ t["w"].T + t["b"]) - z.max(axis=1, keepdims=True)
    ),
    "written twice": lambda t: (
        np.log(np.exp(t["x"] @ t["u"]).sum(1)) - (t["x"] @ t["u"])[range(N), T]
    ).mean(),
    "temperature": lambda t: naive((t["x"] @ t["w"].T + t["b"]) / 2.5),
    "scaled features": lambda t: naive((t["x"] / np.sqrt(D)) @ t["w"].T),
    "factors in both terms": lambda t: naive(0.5 * (t["x"] @ t["w"].T) + 0.5 * t["b"]),
    "soft target, sum": lambda t: -(SOFT * tg.log_softmax(t["x"] @ t["u"])).sum(),
    "one loss per row": lambda t: -tg.log_softmax(t["x"] @ t["u"])[range(N), T],
    "smoothing by hand": lambda t: (
        0.9 * picked(t["x"] @ t["u"]) - 0.1 * tg.log_softmax(t["x"] @ t["u"]).mean()
    ),
    "batched": lambda t: -(
        SOFT.reshape(2, 3, C) * tg.log_softmax(t["x3"] @ t["w"].T + t["b"])
    ).sum(),
    "batched, then in rows": lambda t: picked((t["x3"] @ t["w"].T + t["b"]).reshape(-1, C)),
    "in rows, then a bias": lambda t: picked((t["x3"] @ t["u"]).reshape(N, C) + t["b"]),
    "one row": lambda t: -tg.log_softmax(t["x1"] @ t["u"] + t["b"])[2],
    "one row, W @ x": lambda t: -tg.log_softmax(t["w"] @ t["x1"] + t["b"])[2],
    "two layers": lambda t: naive((t["q"] @ t["x"]).tanh() @ t["w"].T),
    "W in two places": lambda t: naive(t["x"] @ t["w"].T) + 0.1 * (t["w"] * t["w"]).sum(),
    "cross_entropy": lambda t: tg.cross_entropy(t["x"] @ t["w"].T + t["b"], T),
    "cross_entropy, (D, V)": lambda t: tg.cross_entropy(t["x"] @ t["u"], T),
    "cross_entropy, all options": lambda t: tg.cross_entropy(
        t["x"] @ t["w"].T, np.where(T == 1, -1, T), weight=W8, ignore_index=-1, reduction="sum",
        label_smoothing=0.1, temperature=2.0,
    ),
    "cross_entropy, a distribution": lambda t: tg.cross_entropy(
        t["x3"] @ t["u"] + t["b"], SOFT.reshape(2, 3, C), weight=W8, label_smoothing=0.2
    ),
    "cross_entropy, none": lambda t: tg.cross_entropy(t["x"] @ t["u"], T, reduction="none"),
    "cross_entropy, axis=1": lambda t: tg.cross_entropy(t["x"] @ t["u"], SOFT, axis=1),
    "cross_entropy, in rows": lambda t: tg.cross_entropy((t["x3"] @ t["w"].T).reshape(-1, C), T),
    "cross_entropy, target with a gradient": lambda t: tg.cross_entropy(t["x"] @ t["u"], t["a"]),
    "SoftmaxWithLoss": lambda t: tg.SoftmaxWithLoss()(t["x"] @ t["w"].T + t["b"], T),
}  # fmt: skip
BESIDE = {
    "scaled features": {"div"},
    "two layers": {"matmul", "tanh"},
    "W in two places": {"mul", "sum", "add"},
}
PREPARED = {"transpose", "reshape", "neg"}


def agree(result, output, given, rtol=1e-11):
    np.testing.assert_allclose(result.output.numpy(), output.numpy(), rtol=rtol)
    seed = np.linspace(0.5, 1.5, output.size).reshape(output.shape)
    used = [n.tensor for n in tg.graph(output).nodes if n.op == "leaf"]
    for name, leaf in given.items():
        expected = tg.grad(output, leaf, seed, allow_unused=True)
        assert np.any(expected != 0) or not any(leaf is t for t in used)
        np.testing.assert_allclose(
            tg.grad(result.output, leaf, seed, allow_unused=True),
            expected,
            rtol=rtol,
            atol=rtol / 1e3,
            err_msg=name,
        )


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_is_found_and_stays_right(name):
    given = leaves()
    output = SPELLINGS[name](given)
    result = tg.fuse(output)
    ops = {node.op for node in result.after.nodes if node.inputs}
    assert ops - PREPARED - BESIDE.get(name, set()) == ONE_NODE, str(result)
    (rewrite,) = result.rewrites
    assert (rewrite.rule, rewrite.made.op) == ("linear layer", "LinearSoftmaxWithLoss")
    assert all(node in result.before.nodes for node in rewrite.matched)
    agree(result, output, given)


# name → function of the leaves, and what its near miss says is missing
LOOKALIKES = {
    "logits in a penalty": (
        lambda t: naive(z := t["x"] @ t["w"].T) + 1e-4 * (z * z).sum(), "used elsewhere"),
    "logits in a penalty, computed again": (
        lambda t: naive(t["x"] @ t["u"]) + 1e-4 * ((t["x"] @ t["u"]) ** 2).sum(), "used elsewhere"),
    "product in a penalty": (
        lambda t: naive((z := t["x"] @ t["u"]) + t["b"]) + z.mean(), "used elsewhere"),
    "cross_entropy, and a penalty": (
        lambda t: tg.cross_entropy(z := t["x"] @ t["w"].T, T) + 1e-4 * (z * z).sum(),
        "used elsewhere"),
    "p in another term": (
        lambda t: naive(z := t["x"] @ t["u"]) + (tg.softmax(z) ** 2).sum(), "used elsewhere"),
    "two losses of the same logits": (
        lambda t: tg.cross_entropy(z := t["x"] @ t["u"], T)
        * tg.cross_entropy(z, SOFT, temperature=2.0),
        "used elsewhere"),
    "the rows' losses and their sum": (
        lambda t: (r := tg.cross_entropy(z := t["x"] @ t["u"], T, reduction="none")).sum()
        + (r * r).sum() + z.sum(),
        "used elsewhere"),
    "one bias for all classes": (
        lambda t: naive(t["x"] @ t["u"] + t["r"]), "not one number per class"),
    "a bias for each logit": (
        lambda t: tg.cross_entropy(t["x"] @ t["u"] + t["a"], T), "not one number per class"),
    "axis 0": (
        lambda t: tg.cross_entropy(t["q"] @ t["a"], T[:C], axis=0), "not the last axis"),
    "both batched": (
        lambda t: tg.cross_entropy(t["x3"] @ t["w3"].transpose(0, 2, 1), T.reshape(2, 3)),
        "not one matrix"),
    "regrouped classes": (
        lambda t: tg.cross_entropy((t["x"] @ t["u"]).reshape(2 * N, C // 2), np.tile(T % 2, 2)),
        "not the last axis"),
    "activation after the product": (
        lambda t: naive((t["x"] @ t["u"]).tanh()), None),
    "product of elements": (
        lambda t: naive(t["a"] * t["b"]), None),
    "already without logits": (
        lambda t: tg.linear_cross_entropy(t["x"], t["w"], T), None),
}  # fmt: skip


@pytest.mark.parametrize("name", LOOKALIKES)
def test_no_lookalike_matches_and_a_near_miss_says_why(name):
    f, missing = LOOKALIKES[name]
    given = leaves()
    output = f(given)
    result = tg.fuse(output)
    assert all(rewrite.rule != "linear layer" for rewrite in result.rewrites), str(result)
    misses = [miss for miss in result.near_misses if miss.rule == "linear layer"]
    assert bool(misses) == (missing is not None), str(result)
    assert all(missing in miss.missing for miss in misses)
    assert all(miss.node in result.before.nodes for miss in misses)
    agree(result, output, given, rtol=1e-9)


def test_the_lists_are_long_enough():
    assert len(SPELLINGS) >= 6
    assert len(LOOKALIKES) >= 5


def test_logits_that_are_wanted_no_more_after_the_search_do_not_count():
    """The maximum that shifts them is recorded, and goes."""
    t = leaves()
    z = t["x"] @ t["w"].T
    result = tg.fuse(naive(z - z.max(axis=1, keepdims=True)))
    assert {node.op for node in result.after.nodes if node.inputs} == ONE_NODE


def test_what_is_saved():
    t = leaves()
    (rewrite,) = tg.fuse(tg.cross_entropy(t["x"] @ t["w"].T + t["b"], T)).rewrites
    assert rewrite.operations_saved == 3  # transpose, matmul and add
    # the product, the logits and their gradient go; the gradients of x, W and b come
    assert rewrite.bytes_saved == 8 * (3 * N * C - (N * D + C * D + C))


def test_a_large_vocabulary_is_never_held():
    x, w = tg.Tensor(np.ones((400, 2))), tg.Tensor(np.ones((5000, 2)))
    result = tg.fuse(tg.cross_entropy(x @ w.T, np.arange(400)))
    assert max(node.value.size for node in result.after.nodes) < 400 * 5000 / 100
    assert result.rewrites[0].bytes_saved > 8 * 2 * 400 * 5000 * 0.9


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_dtypes_are_kept(dtype):
    t = leaves(dtype)
    for output in (
        naive(t["x"] @ t["u"] + t["b"]), tg.cross_entropy(t["x"] @ t["w"].T, T)
    ):  # fmt: skip
        result = tg.fuse(output)
        assert [rewrite.rule for rewrite in result.rewrites] == ["linear layer"]
        assert result.output.dtype == output.dtype
        assert tg.grad(result.output, t["x"]).dtype == dtype
        np.testing.assert_allclose(
            tg.grad(result.output, t["x"]), tg.grad(output, t["x"]), atol=np.finfo(dtype).eps * 8
        )


def test_second_derivatives():
    given = leaves()
    x, u = given["x"].numpy(), given["u"].numpy()

    def loss(w):
        return naive(x @ w)

    np.testing.assert_allclose(
        tg.hessian(lambda w: tg.fuse(loss(w)).output, u), tg.hessian(loss, u), rtol=1e-9, atol=1e-11
    )


def test_names_are_taken_over():
    t = leaves()
    result = tg.fuse(tg.cross_entropy(t["x"] @ t["u"], T).named("nll"))
    assert (result.output.name, result.rewrites[0].made.name) == ("nll", "nll")


def test_a_second_task_of_the_same_structure_keeps_its_own_options():
    t = leaves()
    z = [t["x"] @ t["w"].T for _ in range(2)]
    for output in (
        tg.cross_entropy(z[0], T, temperature=2.0), tg.cross_entropy(z[1], T[::-1], weight=W8)
    ):  # fmt: skip
        agree(tg.fuse(output), output, t)


def test_backward_uses_the_logits_that_are_there():
    """Inside `fusing` they were computed and kept already: doing it again saves nothing."""
    t = leaves()
    loss = naive(t["x"] @ t["w"].T + t["b"])
    with tg.fusing():
        trace = loss.backward(trace=True)
    assert [step.node.op for step in trace.steps][:2] == ["SoftmaxWithLoss", "add"]
    t["x"].zero_grad()
    with tg.fusing(rules=RULES):
        trace = loss.backward(trace=True)
    assert trace.steps[0].node.op == "LinearSoftmaxWithLoss"
    np.testing.assert_allclose(t["x"].grad, tg.grad(loss, t["x"]), rtol=1e-11)


def test_a_loss_that_is_computed_again_leaves_the_given_one_as_it_was():
    """A softmax before the layer is fused, so the loss after it runs once more."""
    t = leaves()
    e = t["a"].exp()
    z = (e / e.sum(axis=1, keepdims=True)).tanh()
    given = tg.cross_entropy(z, T, reduction="none")
    fused = tg.fuse(given).output
    g = np.arange(1.0, N + 1)
    one, other = tg.grad(given, z, g), tg.grad(fused, t["a"], -g)
    np.testing.assert_allclose(one, tg.grad(tg.cross_entropy(z, T, reduction="none"), z, g))
    np.testing.assert_allclose(other, -tg.grad(given, t["a"], g), rtol=1e-11)


def test_logits_that_are_not_finite_are_named():
    t = leaves()
    x = tg.Tensor(np.where(np.arange(N)[:, None] == 4, np.nan, 1.0) * np.ones((N, D)), name="x")
    with np.errstate(all="ignore"):
        output = naive(x @ t["u"])
    with pytest.raises(tg.TinygradError) as caught:
        tg.fuse(output)
    assert str(caught.value) == (
        "fuse: div of shape () cannot become LinearSoftmaxWithLoss of leaf 'x' of shape (6, 3) "
        "and transpose of shape (4, 3): logits must be finite, or -inf to mask a class; "
        "row 4 of the logits holds NaN or +inf"
    )
