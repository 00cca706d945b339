"""What `fuse` promises: the result, what is shared and remembered, what is refused."""

import cProfile
import gc
import pstats
import weakref
from fractions import Fraction

import numpy as np
import pytest

import tinygrad_sm as tg
from tinygrad_sm.fusion import RULES, Number, Op, Rule, Var
from tinygrad_sm.fusion.front import Plans
from tinygrad_sm.fusion.rules import ALMOST
from tinygrad_sm.fusion.snapshot import Snapshot
from tinygrad_sm.fusion.vocabulary import times, total

RNG = np.random.default_rng(2)
Y = np.eye(3)[[0, 2]]
LOGITS = RNG.normal(size=(2, 3))


def naive(a, y=Y):
    e = a.exp()
    p = e / e.sum(axis=1, keepdims=True)
    return -(y * p.log()).sum() / len(y)


# The result ---------------------------------------------------------------------------------------


def test_the_result_tells_the_story():
    loss = naive(tg.Tensor(LOGITS, name="a"))
    loss.name = "L"
    result = tg.fuse(loss)
    (rewrite,) = result.rewrites
    assert rewrite.rule == "loss of a distribution"
    assert rewrite.because.endswith("is the cross-entropy of y, one-hot or soft.")
    assert [node.op for node in rewrite.matched] == [
        "exp",
        "sum",
        "div",
        "log",
        "mul",
        "sum",
        "neg",
        "div",
    ]
    assert all(node in result.before.nodes for node in rewrite.matched)
    assert rewrite.made.op == "SoftmaxWithLoss"
    assert rewrite.made in result.after.nodes
    assert rewrite.operations_saved == 7
    # four arrays of 2×3, one of 2×1 and three numbers go; a number and the gradient come
    assert rewrite.bytes_saved == 8 * (4 * 6 + 2 + 3) - 8 * (1 + 6)
    assert "softmax" in rewrite.steps
    assert result.output.name == "L"
    story = str(result)
    assert "The graph had 8 operations and now has 1." in story
    assert "8 operations (exp #1, " in story
    assert "became one node, SoftmaxWithLoss #2 'L', of shape ()" in story


def test_a_graph_without_a_match_is_returned_as_it_is():
    a = tg.Tensor(LOGITS)
    output = (a * 2).tanh().sum()
    result = tg.fuse(output)
    assert result.output is output
    assert result.rewrites == []
    assert str(result) == "Nothing to fuse was found."


@pytest.mark.parametrize(
    "make", [lambda: tg.Tensor(LOGITS), lambda: tg.Tensor(LOGITS, requires_grad=False)]
)
def test_a_leaf_is_returned_as_it_is(make):
    leaf = make()
    assert tg.fuse(leaf).output is leaf


def test_the_given_graph_stays_as_it_is():
    a = tg.Tensor(LOGITS)
    e = a.exp()
    p = e / e.sum(axis=1, keepdims=True)
    loss = -(Y * p.log()).sum()
    before = tg.graph(loss).to_dict(), p.numpy().copy()
    tg.fuse(loss).output.backward()
    assert tg.graph(loss).to_dict() == before[0]
    np.testing.assert_array_equal(p.numpy(), before[1])
    assert p.grad is None
    fused = a.grad.copy()
    a.zero_grad()
    loss.backward()
    np.testing.assert_allclose(a.grad, fused, rtol=1e-12)


def test_what_does_not_change_is_shared():
    x, w = tg.Tensor(RNG.normal(size=(2, 4)), name="x"), tg.Tensor(RNG.normal(size=(4, 3)))
    h = (x @ w).tanh()
    result = tg.fuse(naive(h) + 0.1 * (w * w).sum())
    tensors = [node.tensor for node in result.after.nodes]
    assert any(tensor is h for tensor in tensors)
    assert [node.op for node in result.after.nodes if node.inputs] == [
        "matmul", "tanh", "mul", "sum", "mul", "SoftmaxWithLoss", "add",
    ]  # fmt: skip


def test_p_used_elsewhere_keeps_its_own_softmax():
    a = tg.Tensor(LOGITS)
    e = a.exp()
    p = e / e.sum(axis=1, keepdims=True)
    output = -(Y * p.log()).sum() + (p * p).sum()
    result = tg.fuse(output)
    assert {rewrite.made.op for rewrite in result.rewrites} == {"softmax", "SoftmaxWithLoss"}
    np.testing.assert_allclose(tg.grad(result.output, a), tg.grad(output, a), rtol=1e-12)


def test_what_differs_by_a_factor_is_made_of_what_is_there():
    a = tg.Tensor(LOGITS)
    log_p, minus = a - tg.logsumexp(a, keepdims=True), tg.logsumexp(a, keepdims=True) - a
    output = (log_p * log_p * minus).sum()
    result = tg.fuse(output)
    assert [(r.rule, r.made.op) for r in result.rewrites] == [
        ("log_softmax", "log_softmax"), ("negative log_softmax", "neg"),
    ]  # fmt: skip
    np.testing.assert_allclose(tg.grad(result.output, a), tg.grad(output, a), rtol=1e-12)


@pytest.mark.parametrize(
    ("f", "made"),
    [
        (lambda a, lp: (lp * lp).sum() + lp[[0, 1], [2, 0]].sum(), []),
        (lambda a, lp: (lp * lp.exp()).sum(), []),  # p from log p costs less than p anew
        (lambda a, lp: (lp * lp).sum() + -lp[[0, 1], [2, 0]].sum(), ["SoftmaxWithLoss"]),
        (lambda a, lp: np.exp(-np.negative(lp[[0, 1], [2, 0]])), ["SoftmaxWithLoss"]),
    ],
)
def test_a_rewrite_that_saves_nothing_is_not_made(f, made):
    a = tg.Tensor(LOGITS)
    output = f(a, tg.log_softmax(a))
    result = tg.fuse(output)
    assert [rewrite.made.op for rewrite in result.rewrites] == made
    assert all(rewrite.operations_saved > 0 for rewrite in result.rewrites)
    np.testing.assert_allclose(result.output.numpy(), output.numpy(), rtol=1e-13)


def test_what_overflowed_is_made_anew_even_where_nothing_is_saved():
    a = tg.Tensor([1000.0, 0.0])
    with np.errstate(all="ignore"):
        e = a.exp()
        s = e.sum()
        result = tg.fuse((e / s).named("p")[0] + 0 * e.sum() + 0 * s)
    p = next(node for node in result.after.nodes if node.name == "p")
    assert (p.op, p.value.tolist()) == ("softmax", [1.0, 0.0])


def test_what_two_rewrites_do_without_is_saved_once():
    a = tg.Tensor(LOGITS)
    e = a.exp()
    p = e / e.sum(axis=1, keepdims=True)
    result = tg.fuse(-(Y * p.log()).sum() + (p * p).sum())
    before, after = (sum(bool(n.inputs) for n in g.nodes) for g in (result.before, result.after))
    assert sum(rewrite.operations_saved for rewrite in result.rewrites) == before - after == 5


def test_gradients_of_other_inputs_are_unchanged():
    a, b, c = (tg.Tensor(RNG.normal(size=(2, 3))) for _ in range(3))
    output = naive(a * b + c) * (b * c).sum()
    fused = tg.fuse(output).output
    for leaf in (a, b, c):
        np.testing.assert_allclose(
            tg.grad(fused, leaf, allow_unused=True),
            tg.grad(output, leaf, allow_unused=True),
            rtol=1e-12,
        )


def test_a_shift_with_a_gradient_of_its_own_keeps_it():
    a, m = tg.Tensor(LOGITS), tg.Tensor(RNG.normal(size=(2, 1)))
    result = tg.fuse(naive(a - m))
    assert any(node.tensor is m for node in result.after.nodes)
    np.testing.assert_allclose(
        tg.grad(result.output, m, allow_unused=True), np.zeros((2, 1)), atol=1e-15
    )


def test_second_derivatives_of_the_fused_graph():
    hessian = tg.hessian(lambda a: tg.fuse(naive(a)).output, LOGITS)
    np.testing.assert_allclose(hessian, tg.hessian(naive, LOGITS), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtypes_are_kept(dtype):
    a = tg.Tensor(LOGITS, dtype=dtype)
    for y in (Y, Y.astype(dtype), Y.astype(int)):
        loss = naive(a, y)
        result = tg.fuse(loss)
        assert [r.made.op for r in result.rewrites] == ["SoftmaxWithLoss"]
        assert result.output.dtype == loss.dtype
        assert tg.grad(result.output, a).dtype == dtype


def test_a_long_chain_is_searched_without_recursion():
    a = tg.Tensor(LOGITS)
    z = a
    for _ in range(5_000):
        z = z + 0.001
    assert [r.made.op for r in tg.fuse(naive(z)).rewrites] == ["SoftmaxWithLoss"]


def work(make):
    """How many calls of functions it takes to fuse what `make` makes, and to tell of it."""
    output, profile = make(), cProfile.Profile()
    profile.runcall(lambda: str(tg.fuse(output, rules=list(RULES))))
    return sum(stat[0] for stat in pstats.Stats(profile).stats.values())


def repeated(f, n):
    z = tg.Tensor(LOGITS)
    for i in range(n):
        z = f(z, i)
    return z


@pytest.mark.parametrize(
    "make",
    [
        lambda n: naive(repeated(lambda z, i: z + 0.001, n)),
        lambda n: naive(repeated(lambda z, i: z - z.max(axis=1, keepdims=True), n)),
        lambda n: naive(repeated(lambda z, i: z * 1.01, n)),
        lambda n: repeated(lambda z, i: tg.softmax(z), n).log().sum(),
        lambda n: repeated(lambda z, i: tg.log_softmax(z.T).T, n).sum(),
        lambda n: repeated(lambda z, i: z.exp().log().tanh(), n).sum(),
        lambda n: naive(tg.Tensor(LOGITS)).sum() + sum(naive(tg.Tensor(LOGITS)) for _ in range(n)),
        lambda n: sum(map(naive, [tg.Tensor(LOGITS).tanh()] * n)),
        lambda n: sum(naive(repeated(lambda z, i: z.tanh(), 1), i + Y) for i in range(n)),
        lambda n: sum((tg.softmax(tg.Tensor(LOGITS)) + 1e-7).log().sum() for _ in range(n)),
    ],
)
def test_the_work_grows_with_the_graph_and_no_faster(make):
    make(3)
    assert work(lambda: make(100)) < 5.5 * work(lambda: make(25))


def test_exact_numbers_stay_short_however_many_factors_there_are():
    z = repeated(lambda z, i: z * (1 + 1e-6 * i), 300)
    result = tg.fuse(naive(z))
    steps = [step.after for found in result._plan.found for step in found.steps]
    assert max(step.params.get("by", Fraction(1)).denominator.bit_length() for step in steps) < 2300
    np.testing.assert_allclose(result.output.numpy(), naive(z).numpy(), rtol=1e-12)


def test_names_and_groups_are_taken_over():
    a = tg.Tensor(LOGITS)
    with tg.group("loss"):
        loss = naive(a)
        loss.name = "L"
        output = loss.tanh()
    output.name = "out"
    fused = tg.fuse(output).output
    (node,) = (n for n in tg.graph(fused).nodes if n.op == "SoftmaxWithLoss")
    assert (node.name, node.groups) == ("L", ("loss",))
    assert (fused.name, fused._operation.groups) == ("out", ("loss",))


def test_nothing_is_kept_alive_by_what_is_remembered():
    a = tg.Tensor(LOGITS)
    loss = naive(a)
    tg.fuse(loss)
    (y,) = (slot for slot in Snapshot(loss).slots if np.ndim(slot) == 2)
    gone = [weakref.ref(a), weakref.ref(y)]
    del a, y, loss
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


# fusing -------------------------------------------------------------------------------------------


def test_fusing_makes_naive_code_stable():
    a = tg.Tensor([[1000.0, 0.0, 0.0], [0.0, -1000.0, 1000.0]])
    with np.errstate(all="ignore"):
        loss = naive(a, np.eye(3)[[1, 2]])
        with tg.fusing():
            loss.backward()
    np.testing.assert_allclose(a.grad, [[0.5, -0.5, 0.0], [0.0, 0.0, 0.0]], atol=1e-300)
    np.testing.assert_array_equal(loss.grad, 1.0)


def test_fusing_adds_up_and_ends():
    a = tg.Tensor(LOGITS)
    with tg.fusing():
        naive(a).backward()
        once = a.grad.copy()
        naive(a).backward()
    np.testing.assert_allclose(a.grad, 2 * once)
    p = a.exp()
    (p / p.sum(axis=1, keepdims=True)).log().sum().backward()
    assert p.grad is not None  # outside, every Tensor of the graph as written has its gradient


def test_fusing_takes_a_gradient_and_a_trace():
    a = tg.Tensor(LOGITS)
    e = a.exp()
    losses = -np.log(e / e.sum(axis=1, keepdims=True))[range(2), [0, 2]]
    expected = tg.grad(losses, a, [2.0, 3.0])
    with tg.fusing():
        trace = losses.backward([2.0, 3.0], trace=True)
    assert [step.node.op for step in trace.steps] == ["SoftmaxWithLoss", "leaf"]
    np.testing.assert_allclose(a.grad, expected, rtol=1e-12)


def test_fusing_inside_no_grad_still_finds_the_gradient():
    a = tg.Tensor(LOGITS)
    loss = naive(a)
    with tg.no_grad(), tg.fusing():
        loss.backward()
    np.testing.assert_allclose(a.grad, tg.grad(loss, a), rtol=1e-12)


# What is remembered -------------------------------------------------------------------------------


def searches(*losses):
    plans = Plans()
    for loss in losses:
        plans.plan(Snapshot(loss), RULES)
    return plans.searches


def test_a_structure_seen_before_is_not_searched_again():
    a, b = tg.Tensor(LOGITS), tg.Tensor(RNG.normal(size=(2, 3)))
    assert searches(naive(a), naive(b), naive(b, Y[::-1].copy())) == 1


def test_numbers_count_only_where_a_rule_looked_at_them():
    def shifted(a, m):
        e = (a - m).exp()
        return -(Y * (e / e.sum(axis=1, keepdims=True)).log()).sum()

    a = tg.Tensor(LOGITS)
    assert searches(shifted(a, 1.5), shifted(a, 2.5)) == 1
    assert searches(naive(a) / 3.0, naive(a) / 4.0) == 2


def test_another_class_picked_is_no_other_structure():
    a = tg.Tensor(LOGITS[0])
    losses = [-(a.exp() / a.exp().sum()).log()[t] for t in range(3)]
    assert searches(*losses) == 1
    for t, loss in enumerate(losses):
        np.testing.assert_allclose(tg.fuse(loss).output.item(), loss.item(), rtol=1e-12)
        np.testing.assert_allclose(tg.grad(tg.fuse(loss).output, a)[t], tg.grad(loss, a)[t])


def test_rows_that_do_not_count_up_are_another_structure():
    a = tg.Tensor(LOGITS)
    log_p = tg.log_softmax(a)
    assert searches(log_p[[0, 1], [2, 2]].sum(), log_p[[1, 0], [2, 2]].sum()) == 2


def test_what_is_remembered_is_bounded():
    plans = Plans(most_rows=30)
    a = tg.Tensor(LOGITS)
    for n in range(1, 20):
        z = a
        for _ in range(n):
            z = z.tanh()
        plans.plan(Snapshot(naive(z)), RULES)
    assert sum(len(key[1][0]) for key in plans._known) <= 30


# The rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_is_justified_in_one_sentence(rule):
    assert rule.because.endswith(".")
    assert rule.because.count(". ") == 0
    assert len(rule.because) < 100


def test_names_of_fusing_rules_are_unique():
    names = [rule.name for rule in RULES if not rule.helps]
    assert len(names) == len(set(names))
    assert all(almost.name in names for almost in ALMOST)


def test_a_rule_that_does_not_lower_the_cost_is_refused():
    tanh = Op("tanh", Var("x"))
    grows = Rule("grows", "tanh(x) = 2·tanh(x)/2.", tanh, times(Fraction(1, 2), times(2, tanh)))
    with pytest.raises(ValueError, match="'grows' does not lower the cost"):
        tg.fuse(tg.Tensor(LOGITS).tanh(), rules=[grows])


def test_a_rule_that_changes_the_shape_is_refused():
    drops = Rule("drops", "A sum is its operand.", total(Var("x"), Var("k")), Var("x"))
    with pytest.raises(ValueError, match="'drops' turns an array of shape"):
        tg.fuse(tg.Tensor(LOGITS).sum(), rules=[drops])


def test_a_rule_that_goes_on_for_ever_is_refused():
    x = Var("x")
    onwards = Rule("onwards", "tanh(x) is tanh(x + 1).", Op("tanh", x), Op("tanh", x + 1))
    with pytest.raises(ValueError, match="'onwards' does not lower the cost"):
        tg.fuse(tg.Tensor(LOGITS).tanh(), rules=[onwards])


def test_a_rule_that_asks_for_a_name_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="the pattern of the rule 'typo' has no name 'y'"):
        Rule("typo", "tanh is odd.", Op("tanh", Var("x")), lambda y: y)


def test_a_rule_of_ones_own():
    x, zero = Var("x"), Number("zero")
    rule = Rule(
        "relu",
        "max(x, 0) is relu.",
        Op("maximum", x, zero),
        Op("relu", x),
        ((lambda zero: zero == 0, "not 0"),),
    )
    a = tg.Tensor(LOGITS)
    result = tg.fuse(tg.maximum(a, 0).sum(), rules=[*RULES, rule])
    assert [r.rule for r in result.rewrites] == ["relu"]
    assert [node.op for node in result.after.nodes if node.inputs] == ["relu", "sum"]
    near = tg.fuse(tg.maximum(a, 1).sum(), rules=[*RULES, rule])
    assert near.rewrites == []
    assert [miss.missing for miss in near.near_misses] == ["not 0"]


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda a: tg.fuse(LOGITS), TypeError, "fuse: output must be a Tensor; got ndarray"),
        (lambda a: tg.fuse(None), TypeError, "fuse: output must be a Tensor; got NoneType"),
        (lambda a: tg.fuse(a, rules=3), TypeError, "fuse: rules must be a list of Rule; got int"),
        (lambda a: tg.fuse(a, rules=["x"]), TypeError, "one is of type str"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        call(tg.Tensor(LOGITS))
    assert isinstance(caught.value, tg.TinygradError)
    assert "\n" not in str(caught.value)


def test_data_changed_since_the_forward_pass_is_noticed():
    a = tg.Tensor(LOGITS)
    loss = naive(a)
    a.data[0, 0] = 7
    with pytest.raises(tg.TinygradError, match="was changed after the forward"):
        tg.fuse(loss)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("f", "start"),
    [
        (naive, "div 'L' of shape () cannot become SoftmaxWithLoss of leaf 'a' of shape (2, 3)"),
        (
            lambda a: naive(a, -Y) * 2,
            "mul 'L' of shape () cannot become SoftmaxWithLoss of leaf 'a' of shape (2, 3)",
        ),
        (
            lambda a: naive(a.tanh() - a.tanh() + tg.relu(a)),
            "div 'L' of shape () cannot become SoftmaxWithLoss of add of shape (2, 3)",
        ),
    ],
)
def test_logits_that_are_not_finite_are_named(bad, f, start):
    a = tg.Tensor([[1.0, 0.5, 0.0], [0.0, bad, 0.0]], name="a")
    with np.errstate(all="ignore"):
        loss = f(a).named("L")
        with pytest.raises(ValueError) as caught, tg.fusing():  # noqa: PT011
            loss.backward()
    assert isinstance(caught.value, tg.TinygradError)
    assert a.grad is None
    assert str(caught.value) == (
        f"fuse: {start}: logits must be finite, or -inf to mask a class; "
        "row 1 of the logits holds NaN or +inf"
    )


def test_a_masked_class_may_be_minus_inf():
    a = tg.Tensor([[1.0, 0.5, -np.inf], [-np.inf, 0.0, 1.0]])
    with np.errstate(all="ignore"), tg.fusing():
        naive(a).backward()
    np.testing.assert_allclose(a.grad, tg.grad(tg.cross_entropy(a, Y), a))
    np.testing.assert_array_equal(a.grad[[0, 1], [2, 0]], 0.0)


def test_primitives_with_the_names_of_the_search_stay_what_they_are(table_as_it_was):
    names = ("scale", "pick", "leaf", "number", "loss", "masked")
    own = [tg.def_primitive(name, lambda x: 2 * x, lambda g, y, x: 2 * g) for name in names]
    a = tg.Tensor(LOGITS)
    z = a
    for primitive in own:
        z = primitive(z)
    result = tg.fuse(naive(z) + tg.cross_entropy(z, [0, 1]) * 2)
    assert len(result.rewrites) == 1
    ops = [node.op for node in result.after.nodes if node.inputs]
    assert ops[: len(names)] == list(names)
