"""Random graphs with composites planted in them, and some with a flaw: fused and not, they agree.

HYPOTHESIS_PROFILE=deep runs 10 000 of them.
"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_sm as tg

FLAWS = ["none"] * 4 + ["other axis", "other exp", "added", "no axis kept", "half a shift"]


def some_logits(draw, a, b):
    """An expression of the logits' shape: leaves, and a few operations on them."""
    z = draw(st.sampled_from([a, b, a + b, a * b]))
    for _ in range(draw(st.integers(0, 3))):
        z = draw(
            st.sampled_from(
                [
                    lambda z: z * 0.5,
                    lambda z: z / 3,
                    lambda z: -z,
                    lambda z: z + a,
                    lambda z: z - 2.0,
                    lambda z: z.tanh(),
                    lambda z: z - z.max(axis=-1, keepdims=True),
                    lambda z: z - z.numpy().max(axis=-1, keepdims=True),
                    lambda z: tg.relu(z),
                    lambda z: z.T.T,
                    lambda z: z[None][0],
                ]
            )
        )(z)
    return z


def some_softmax(draw, z, other, axis, turned=False):
    """Probabilities in one of several spellings, maybe with a flaw."""
    if not turned and draw(st.booleans()):
        if draw(st.booleans()):
            return some_softmax(draw, z.T, other.T, 1 - axis, True).T
        return some_softmax(draw, z[None][0], other, axis, True)[:, ::1] ** 1
    flaw = draw(st.sampled_from(FLAWS))
    e = z.exp()
    if flaw == "other axis":
        return e / e.sum(axis=1 - axis, keepdims=True)
    if flaw == "other exp":
        return e / other.exp().sum(axis=axis, keepdims=True)
    if flaw == "added":
        return e / (e.sum(axis=axis, keepdims=True) + 0.25)
    if flaw == "no axis kept":
        return e / e.sum()
    if flaw == "half a shift":
        return (z - 1.0).exp() / e.sum(axis=axis, keepdims=True)
    spelling = draw(st.integers(0, 6))
    s = e.sum(axis=axis, keepdims=True)
    if spelling == 0:
        return e / s
    if spelling == 1:
        return z.exp() * (1 / z.exp().sum(axis=axis, keepdims=True))
    if spelling == 2:
        return np.exp(z - np.expand_dims(np.log(z.exp().sum(axis)), axis))
    if spelling == 3:
        return tg.softmax(z, axis=axis)
    if spelling == 4:
        d = z - z.max(axis=axis, keepdims=True)
        return d.exp() / d.exp().sum(axis=axis, keepdims=True)
    if spelling == 5:
        return e / np.expand_dims(e.sum(axis), axis)
    return e * s**-1


def some_loss(draw, p, axis, rng, turned=False):
    """What people make of probabilities: losses in several spellings, or something else."""
    classes, rows = p.shape[axis], p.shape[1 - axis]
    t = rng.integers(0, classes, rows)
    soft = np.moveaxis(rng.dirichlet(np.ones(classes), rows), 1, axis)
    index = (np.arange(rows), t) if axis == 1 else (t, np.arange(rows))
    weights = rng.random(rows)
    if not turned and draw(st.booleans()):
        return some_loss(draw, p.T, 1 - axis, rng, True)
    kept = np.expand_dims(t, axis)
    return draw(
        st.sampled_from(
            [
                lambda: -(soft * p.log()).sum(),
                lambda: (soft * -p.log()).sum(axis).mean(),
                lambda: -p.log()[index].mean(),
                lambda: -np.log(p[index]),
                lambda: -np.take_along_axis(p.log(), kept, axis=axis).sum() / rows,
                lambda: (weights * -p.log()[index]).sum(),
                lambda: -(weights * (soft * p.log()).sum(axis)).mean(),
                lambda: 0.9 * -p.log()[index].mean() - 0.1 * p.log().mean(),
                lambda: -(soft * p.log()).sum(1 - axis).sum(),
                lambda: -(soft * p.log()).mean(),
                lambda: (soft * (np.log(soft) - p.log())).sum(axis).mean(),
                lambda: (soft * np.log(soft / p)).sum(),
                lambda: (soft.T * (np.log(soft.T) - p.T.log())).sum(),
                lambda: ((p.log() - 1.5) * soft).sum(1 - axis),
                lambda: (2 + p.log() * soft).sum(axis),
                lambda: -np.take_along_axis(p, kept, axis).log().sum(axis),
                lambda: -(p * p.log()).sum(),  # an entropy
                lambda: -np.log(p + 1e-3)[index].sum(),
                lambda: (soft * p).sum(),
                lambda: -np.log((soft * p).sum(axis)).sum(),
                lambda: -p.log().sum(1 - axis),
                lambda: ((p - soft) ** 2).sum(),
            ]
        )
    )()


def some_layer(draw, rng, shape):
    """The result of a linear layer, of the given shape, and its leaves; some are no plain layer."""
    (rows, classes), inner = shape, draw(st.integers(1, 3))
    x, w, c = (
        tg.Tensor(rng.normal(size=s), name=name)
        for s, name in (((rows, inner), "x"), ((classes, inner), "w"), ((classes,), "c"))
    )
    turned = tg.Tensor(w.numpy().T, name="turned")
    product = draw(
        st.sampled_from(
            [
                lambda: x @ w.T,
                lambda: x @ turned,
                lambda: np.matmul(x, w.transpose(1, 0)),
                lambda: (x.tanh() / 2) @ w.T,
                lambda: (w @ x.T).T,
                lambda: x[None] @ w.T,
                lambda: x @ (w * 2.0).T,
            ]
        )
    )().reshape(shape)
    bias = draw(
        st.sampled_from([None, c, c.reshape(1, classes), c[:1], x[:, :1], np.ones(classes)])
    )
    z = product if bias is None else draw(st.sampled_from([product + bias, bias + product]))
    return z, (x, w, c, turned)


def some_fused_loss(draw, z, axis, rng):
    """`cross_entropy` as a user calls it himself."""
    rows, classes = z.shape[1 - axis], z.shape[axis]
    soft = np.moveaxis(rng.dirichlet(np.ones(classes), rows), 1, axis)
    target = draw(st.sampled_from([rng.integers(0, classes, rows), soft]))
    return tg.cross_entropy(
        z,
        target,
        axis=axis,
        reduction=draw(st.sampled_from(["mean", "sum", "none"])),
        label_smoothing=draw(st.sampled_from([0.0, 0.1])),
        temperature=draw(st.sampled_from([1.0, 2.0])),
        weight=draw(st.sampled_from([None, rng.random(classes) + 0.1])),
    )


@st.composite
def graphs(draw):
    """An output, and the leaves that it may depend on."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    a, b = (tg.Tensor(rng.normal(size=shape), name=name) for name in "ab")
    axis = draw(st.integers(0, 1))
    z, other = some_logits(draw, a, b), some_logits(draw, a, b)
    of_layer: tuple = ()
    if draw(st.booleans()):
        layer, of_layer = some_layer(draw, rng, shape)
        z = draw(st.sampled_from([layer, layer, some_logits(draw, layer, b)]))
        axis = draw(st.sampled_from([0, 1, 1, 1]))
    p = some_softmax(draw, z, other, axis)
    if draw(st.integers(0, 3 - 2 * bool(of_layer))):
        output = some_loss(draw, p, axis, rng)
    else:
        output = some_fused_loss(draw, z, axis, rng)
    if draw(st.booleans()):  # p or the logits used elsewhere, too
        elsewhere = draw(st.sampled_from([p, z, other]))
        output = output.sum() + (elsewhere * elsewhere).sum() * draw(st.sampled_from([1.0, -0.5]))
    if draw(st.booleans()):
        output = some_loss(draw, some_softmax(draw, other, z, axis), axis, rng).sum() + output
    return output, (a, b, *of_layer)


@st.composite
def layers(draw):
    """A loss of a linear layer, its leaves, and whether something else needs the logits."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(2, 4)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    z, leaves = some_layer(draw, rng, shape)
    if draw(st.booleans()):
        output = some_fused_loss(draw, z, 1, rng)
    else:
        output = some_loss(draw, tg.softmax(z), 1, rng)
    shared = draw(st.booleans())
    return (output.sum() + (z * z).sum() if shared else output), leaves, shared


@given(graphs())
def test_fused_and_unfused_graphs_agree(case):
    agree(*case)


@given(layers())
def test_fused_and_unfused_layers_agree(case):
    output, leaves, shared = case
    ops = {node.op for node in tg.graph(tg.fuse(output).output).nodes}
    assert not (shared and "LinearSoftmaxWithLoss" in ops)
    agree(output, leaves)


def agree(output, leaves):
    fused = tg.fuse(output).output
    assert fused.shape == output.shape
    assert fused.dtype == output.dtype
    np.testing.assert_allclose(fused.numpy(), output.numpy(), rtol=1e-9, atol=1e-11)
    seed = np.linspace(0.5, 1.5, output.size).reshape(output.shape)
    for leaf in leaves:
        np.testing.assert_allclose(
            tg.grad(fused, leaf, seed, allow_unused=True),
            tg.grad(output, leaf, seed, allow_unused=True),
            rtol=1e-7,
            atol=1e-9,
        )
