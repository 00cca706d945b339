"""The ways in which people write softmax-cross-entropy: all are found, and stay right."""

from types import SimpleNamespace

import numpy as np
import pytest

import tinygrad_sm as tg
from tinygrad_sm.fusion import RULES, rewriting
from tinygrad_sm.fusion.plan import Plan
from tinygrad_sm.fusion.snapshot import Snapshot

N, C = 5, 4
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(N, C))
K = SimpleNamespace(
    t=np.array([2, 0, 3, 3, 1]),
    y=np.eye(C)[[2, 0, 3, 3, 1]],
    soft=RNG.dirichlet(np.ones(C), N),
    w=RNG.random(N) + 0.5,
    i=np.arange(N),
)


def softmax(a):
    e = a.exp()
    return e / e.sum(axis=1, keepdims=True)


def shifted_by_hand(a):
    m = a.numpy().max(axis=1, keepdims=True)
    e = (a - m).exp()
    return -(K.y * (e / e.sum(axis=1, keepdims=True)).log()).sum() / N


def logsumexp_by_hand(a):
    m = a.numpy().max(axis=1)
    lse = m + np.log(np.exp(a - m[:, None]).sum(axis=1))
    return (lse - a[range(N), K.t]).mean()


def logsumexp_kept_by_hand(a):
    m = a.max(axis=1, keepdims=True)
    return (K.soft * (m + np.log(np.exp(a - m).sum(axis=1, keepdims=True)) - a)).sum() / N


def logsumexp_of_the_maximum_primitive(a):
    m = a.max(axis=1)
    return (m + np.log(np.exp(a - m[:, None]).sum(axis=1)) - a[range(N), K.t]).mean()


def differences_first(a):
    d = a - a.numpy().max(axis=1, keepdims=True)
    return -(d[range(N), K.t] - np.log(np.exp(d).sum(axis=1))).mean()


def logs_of_numerator_and_denominator(a):
    e = np.exp(a)
    return -(K.y * (np.log(e) - np.log(e.sum(axis=1, keepdims=True)))).sum()


BATCH = {
    "operators": lambda a: -(K.y * softmax(a).log()).sum(),
    "exp written twice": lambda a: (
        -(K.y * (a.exp() / a.exp().sum(axis=1, keepdims=True)).log()).sum()
    ),
    "NumPy's functions": lambda a: (
        -np.sum(K.y * np.log(np.exp(a) / np.sum(np.exp(a), axis=1, keepdims=True)))
    ),
    "soft target": lambda a: -(K.soft * softmax(a).log()).sum() / N,
    "sum of rows, then mean": lambda a: -(K.y * softmax(a).log()).sum(1).mean(),
    "minus inside the mean": lambda a: (-(K.y * softmax(a).log()).sum(axis=-1)).mean(),
    "minus at log p": lambda a: (K.y * -softmax(a).log()).sum() / N,
    "minus at y": lambda a: ((-K.y) * softmax(a).log()).sum(),
    "double negation": lambda a: -np.negative(-(K.y * softmax(a).log()).sum()),
    "log p picked": lambda a: -softmax(a).log()[range(N), K.t].mean(),
    "p picked": lambda a: -np.log(softmax(a)[K.i, K.t]).mean(),
    "p picked by lists": lambda a: -softmax(a)[list(range(N)), list(K.t)].log().sum(),
    "numerator picked": lambda a: -(np.exp(a)[K.i, K.t] / np.exp(a).sum(1)).log().mean(),
    "logs of what is picked": lambda a: (
        -np.log(np.exp(a)[K.i, K.t]) + np.log(np.exp(a).sum(1))
    ).mean(),
    "negative indices": lambda a: -softmax(a).log()[range(N), K.t - C].mean(),
    "the same class of each row": lambda a: -softmax(a)[:, 2].log().mean(),
    "log p taken": lambda a: -np.take_along_axis(softmax(a).log(), K.t[:, None], axis=1).mean(),
    "p taken": lambda a: -np.log(np.take_along_axis(softmax(a), K.t[:, None], axis=-1)).sum() / N,
    "logits taken": lambda a: (
        (np.log(np.exp(a).sum(1, keepdims=True)) - np.take_along_axis(a, K.t[:, None], 1)).sum()
        * (1 / N)
    ),
    "p chosen by a mask": lambda a: -np.log(softmax(a)[K.y == 1]).mean(),
    "where": lambda a: -np.sum(np.where(K.y == 1, softmax(a).log(), 0)) / N,
    "axis added by None": lambda a: -(K.y * (a.exp() / a.exp().sum(1)[:, None]).log()).sum() / N,
    "axis added by reshape": lambda a: (
        -(K.y * (a.exp() / a.exp().sum(1).reshape(-1, 1)).log()).sum() / N
    ),
    "axis added by expand_dims": lambda a: (
        -(K.y * (a.exp() / np.expand_dims(a.exp().sum(1), 1)).log()).sum() / N
    ),
    "shifted by an array": shifted_by_hand,
    "shifted by the maximum": lambda a: (
        -(K.y * softmax(a - a.max(axis=1, keepdims=True)).log()).sum() / N
    ),
    "shifted by the largest of all": lambda a: -(K.y * softmax(a - a.max()).log()).mean(0).sum(),
    "shifted by a number": lambda a: -(K.y * softmax(a - 3).log()).sum() / N,
    "shifted by a NumPy number": lambda a: -(K.y * softmax(a - a.numpy().max()).log()).sum() / N,
    "shifted upwards": lambda a: -(K.y * softmax(2 + a).log()).sum() / N,
    "log(e) - log(s)": logs_of_numerator_and_denominator,
    "a - logsumexp(a)": lambda a: -(K.y * (a - tg.logsumexp(a, keepdims=True))).sum(),
    "logsumexp(a) - a": lambda a: (K.y * (tg.logsumexp(a, axis=1)[:, None] - a)).sum(),
    "-a + logsumexp(a)": lambda a: (-a[K.i, K.t] + tg.logsumexp(a)).mean(),
    "exp(a - logsumexp(a))": lambda a: (
        -(K.y * np.exp(a - tg.logsumexp(a, keepdims=True)).log()).sum()
    ),
    "logsumexp by hand": logsumexp_by_hand,
    "logsumexp by hand, axes kept": logsumexp_kept_by_hand,
    "logsumexp by hand, maximum recorded": logsumexp_of_the_maximum_primitive,
    "differences first": differences_first,
    "sums apart": lambda a: np.log(np.exp(a).sum(1)).sum() - a[range(N), K.t].sum(),
    "log(1/p)": lambda a: (K.y * np.log(1 / softmax(a))).sum(),
    "log(s/e)": lambda a: (K.y * np.log(a.exp().sum(1, True) / a.exp())).sum(),
    "e times 1/s": lambda a: -(K.y * np.log(a.exp() * (1 / a.exp().sum(1, True)))).sum(),
    "e times s to the -1": lambda a: -(K.y * np.log(a.exp() * a.exp().sum(1, True) ** -1)).sum(),
    "power of e": lambda a: -(K.y * np.log(np.e**a / (np.e**a).sum(1, True))).sum(),
    "softmax": lambda a: -(K.y * tg.softmax(a).log()).sum(),
    "log_softmax": lambda a: -(K.y * tg.log_softmax(a, axis=1)).sum(),
    "temperature": lambda a: -(K.y * softmax(a / 2.5).log()).sum() / N,
    "inverse temperature": lambda a: -(K.y * softmax(0.25 * a).log()).sum() / N,
    "temperature after a shift": lambda a: (
        -(K.y * softmax((a - a.numpy().max(1, keepdims=True)) / 2.5).log()).sum() / N
    ),
    "scaled": lambda a: 3 * (softmax(a).log() * K.soft).sum() * -2.0 / N,
    "smoothed target": lambda a: -((0.9 * K.y + 0.1 / C) * softmax(a).log()).sum() / N,
    "smoothing apart": lambda a: (
        -0.9 * softmax(a).log()[K.i, K.t].mean() - 0.1 * softmax(a).log().mean()
    ),
    "uniform target": lambda a: -softmax(a).log().mean(),
    "weighted rows": lambda a: -(K.w * softmax(a).log()[K.i, K.t]).sum() / K.w.sum(),
    "weighted rows, soft": lambda a: -(K.w * (K.soft * softmax(a).log()).sum(1)).sum() / K.w.sum(),
    "weighted classes": lambda a: -(K.y * np.arange(1.0, C + 1) * softmax(a).log()).sum(),
    "one loss per row": lambda a: -softmax(a).log()[range(N), K.t],
    "target in a Tensor": lambda a: -(tg.Tensor(K.y, requires_grad=False) * softmax(a).log()).sum(),
    "axis 0": lambda a: -(K.soft * (a.exp() / a.exp().sum(axis=0)).log()).sum() / C,
    "axis 0, picked": lambda a: (
        -(a.exp() / a.exp().sum(axis=0)).log()[np.array([4, 1, 0, 2]), range(C)].mean()
    ),
    "taken, then the first": lambda a: (
        -np.take_along_axis(softmax(a).log(), K.t[:, None], 1)[:, 0].sum()
    ),
    "taken, then the last": lambda a: (
        -np.take_along_axis(tg.log_softmax(a), K.t[:, None], 1)[..., -1]
    ),
    "taken and squeezed": lambda a: (
        -np.log(np.squeeze(np.take_along_axis(softmax(a), K.t[:, None], 1), 1)).mean()
    ),
    "taken and reshaped": lambda a: (
        -np.take_along_axis(softmax(a), K.t[:, None], 1).reshape(-1).log()
    ),
    "cast to what it is": lambda a: -(K.y * softmax(a).astype(float).log()).sum(),
    "p to the 1": lambda a: -(K.y * (softmax(a) ** 1).log()).sum(),
    "wrapped and unwrapped": lambda a: -(K.y * softmax(a)[None][0].log()).sum(),
    "all of p": lambda a: -(K.y * softmax(a)[:, :][...][0:N].log()).sum(),
    "many that do nothing": lambda a: (
        -(K.y * ((softmax(a) * 1.0) / 1)[:, None, ::1][:, 0].reshape(N, C).log().T.T).sum()
    ),
    "turned": lambda a: -(K.y * (np.exp(a.T) / np.exp(a.T).sum(0)).T.log()).sum(),
    "turned, picked": lambda a: -(np.exp(a.T) / np.exp(a.T).sum(0)).log()[K.t, np.arange(N)].mean(),
    "turned target": lambda a: -(K.soft.T * tg.log_softmax(a.T, axis=0)).sum(0).mean(),
    "turned twice": lambda a: -(K.y * tg.log_softmax(a.T.tanh().T)).sum(),
    "turned, logsumexp": lambda a: (np.log(np.exp(a.T).sum(0)) - a.T[K.t, range(N)]).mean(),
    "turned, class in the middle": lambda a: (
        -(K.soft * tg.log_softmax(a[None].transpose(2, 1, 0), axis=0).transpose(2, 1, 0)[0]).sum()
    ),
    "KL of a constant teacher": lambda a: (
        (K.soft * (np.log(K.soft) - tg.log_softmax(a))).sum(1).mean()
    ),
    "KL, student first": lambda a: -((tg.log_softmax(a) - np.log(K.soft)) * K.soft).sum() / N,
    "KL of a quotient": lambda a: (K.soft * np.log(K.soft / softmax(a))).sum() / N,
    "KL, apart": lambda a: (K.soft * np.log(K.soft)).sum() - (K.soft * softmax(a).log()).sum(),
    "KL, warm": lambda a: 4 * (K.soft * (np.log(K.soft) - tg.log_softmax(a / 2))).sum(-1).mean(),
    "ours, naive": lambda a: tg.composite_cross_entropy(a, K.t),
    "ours, shifted": lambda a: tg.composite_cross_entropy(
        a, K.soft, form="shifted", temperature=2.0
    ),
    "ours, logsumexp": lambda a: tg.composite_cross_entropy(
        a, K.t, form="logsumexp", weight=np.arange(1.0, C + 1), label_smoothing=0.1
    ),
}
ROW = {
    "1-D": lambda a: -(K.y[0] * (a.exp() / a.exp().sum()).log()).sum(),
    "1-D, log p picked": lambda a: -(a.exp() / a.exp().sum()).log()[2],
    "1-D, p picked": lambda a: -np.log((a.exp() / np.sum(np.exp(a)))[2]),
    "1-D, logsumexp": lambda a: np.log(a.exp().sum()) - a[2],
    "1-D, inner product": lambda a: -(K.y[0] @ np.log(a.exp() / a.exp().sum())),
    "1-D, y of one row": lambda a: -(K.y[0].reshape(1, -1) * (a.exp() / a.exp().sum()).log()).sum(),
    "1-D, y of one row, summed along it": lambda a: (
        -np.sum(K.soft[:1] * np.log(a.exp() / a.exp().sum()), axis=1)
    ),
    "1-D, mask": lambda a: -np.log((a.exp() / a.exp().sum())[K.y[0] == 1]).sum(),
    "1-D, article's code": lambda a: -np.sum(K.y[0] * np.log(np.exp(a) / np.sum(np.exp(a)))),
}
SEQUENCE = 0.1 * RNG.normal(
    size=(2, 3, C)
)  # (batch, position, class), or with the classes elsewhere
B, S, T = np.arange(2)[:, None], np.arange(3), np.array([[3, 0, 2], [1, 1, 3]])
PICKS = {
    "3-D": lambda a: -tg.log_softmax(a)[B, S, T].mean(),
    "3-D, p picked": lambda a: -np.log((a.exp() / a.exp().sum(2, keepdims=True))[B, S, T]),
    "3-D, grid": lambda a: -tg.log_softmax(a)[(*np.indices((2, 3)), T)].sum(),
    "3-D, open grid": lambda a: -tg.log_softmax(a)[(*np.ogrid[:2, :3], T)].sum(),
    "3-D, logits picked": lambda a: (tg.logsumexp(a) - a[B, S[None], T]).mean(),
    "3-D, one class": lambda a: -tg.log_softmax(a)[B, S, 1].sum(),
    "3-D, taken": lambda a: -np.take_along_axis(tg.log_softmax(a), T[..., None], 2)[..., 0].mean(),
    "3-D, classes in the middle": lambda a: (
        -tg.log_softmax(a, axis=1)[B, [[0, 2, 1, 0], [2, 2, 0, 1]], np.arange(C)].mean()
    ),
    "3-D, classes first": lambda a: (
        -tg.log_softmax(a, axis=0)[[[1], [0], [1]], S[:, None], np.arange(C)].sum()
    ),
}
SQUARE = 0.1 * RNG.normal(size=(4, 4))
I4 = np.arange(4)
DIAGONALS = {
    "contrastive": lambda s: -tg.log_softmax(s, axis=1)[I4, I4].mean(),
    "contrastive, the other way": lambda s: -tg.log_softmax(s, axis=0)[I4, I4].mean(),
    "contrastive, by columns": lambda s: -np.log((s.exp() / s.exp().sum(0))[range(4), range(4)]),
    "contrastive, turned": lambda s: -tg.log_softmax(s.T)[I4, I4].mean(),
}
CASES = [(name, f, LOGITS) for name, f in BATCH.items()]
CASES += [(name, f, LOGITS[0]) for name, f in ROW.items()]
CASES += [(name, f, SEQUENCE) for name, f in PICKS.items()]
CASES += [(name, f, SQUARE) for name, f in DIAGONALS.items()]
# what is left beside the fused node
EXTRA = {
    "minus at y": {"neg"},
    "turned twice": {"transpose", "tanh"},
    "turned, class in the middle": {"getitem"},
    "1-D, y of one row, summed along it": {"reshape"},
    **{
        name: {"add", "sub", "neg", "mul", "div", "reshape"}  # what the teacher's own entropy takes
        for name in BATCH
        if name.startswith("KL")
    },
}
AS_WIDE = np.finfo(np.longdouble).maxexp == np.finfo(np.float64).maxexp


def gradient_of(output, leaf):
    seed = np.linspace(0.5, 1.5, output.size).reshape(output.shape)
    return tg.grad(output, leaf, seed, allow_unused=True)


@pytest.mark.parametrize(("name", "f", "logits"), CASES, ids=[case[0] for case in CASES])
def test_every_spelling_is_found_and_stays_right(name, f, logits):
    a = tg.Tensor(logits, name="a")
    loss = f(a)
    result = tg.fuse(loss)
    ops = {node.op for node in result.after.nodes if node.inputs}
    assert ops - EXTRA.get(name, set()) == {"SoftmaxWithLoss"}, str(result)
    assert all(rewrite.made.op == "SoftmaxWithLoss" for rewrite in result.rewrites)
    assert sum(rewrite.operations_saved for rewrite in result.rewrites) > 0
    np.testing.assert_allclose(result.output.numpy(), loss.numpy(), rtol=1e-13)
    np.testing.assert_allclose(
        gradient_of(result.output, a), gradient_of(loss, a), rtol=1e-12, atol=1e-15
    )


@pytest.mark.skipif(AS_WIDE, reason="longdouble is no wider here, so that it overflows, too")
@pytest.mark.parametrize(("name", "f", "logits"), CASES, ids=[case[0] for case in CASES])
def test_every_spelling_is_accurate_where_it_overflowed(name, f, logits):
    large = 1000 + 30 * logits
    a, wide = tg.Tensor(large), tg.Tensor(large, dtype=np.longdouble)
    with np.errstate(all="ignore"):
        output, exact = tg.fuse(f(a)).output, f(wide)
    np.testing.assert_allclose(output.numpy(), exact.numpy().astype(float), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(
        gradient_of(output, a), gradient_of(exact, wide).astype(float), rtol=1e-10, atol=1e-300
    )


def test_no_search_comes_near_the_bound_on_steps(monkeypatch):
    """A rule of ours that led on and on would be refused as one of the user's is."""
    monkeypatch.setattr(rewriting, "STEPS_PER_TERM", rewriting.STEPS_PER_TERM / 10)
    for _, f, logits in CASES:
        Plan(Snapshot(f(tg.Tensor(logits))), RULES)


def test_the_list_is_long_enough():
    assert len(CASES) >= 30
