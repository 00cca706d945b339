"""Softmax-cross-entropy written once more, from PyTorch's documentation, in the longest float.

Row by row and term by term, with none of the package's code: what the tests hold it against.
"""

import numpy as np

LONG = np.longdouble


def target_rows(target, shape, axis, *, weight=None, ignore_index=-100, label_smoothing=0.0):
    """The weight of every −log p_j, as (rows, classes); and what each row adds to a mean."""
    n = shape[axis]
    w = np.ones(n, LONG) if weight is None else np.asarray(weight, LONG)
    target = np.asarray(target)
    if target.shape == tuple(shape):
        y = np.moveaxis(target.astype(LONG), axis, -1).reshape(-1, n)
        return w * ((1 - LONG(label_smoothing)) * y + LONG(label_smoothing) / n), np.ones(len(y))
    q, counts = [], []
    for t in target.reshape(-1):
        if t == ignore_index:
            q.append(np.zeros(n, LONG))
            counts.append(0.0)
            continue
        row = np.full(n, LONG(label_smoothing) / n) * w
        row[t] += (1 - LONG(label_smoothing)) * w[t]
        q.append(row)
        counts.append(w[t])
    return np.array(q, LONG).reshape(-1, n), np.array(counts, LONG)


def log_softmax(rows, temperature=1.0):
    z = rows.astype(LONG) / LONG(temperature)
    m = z.max(axis=1, keepdims=True, initial=-np.inf)
    d = z - np.where(np.isneginf(m), 0, m)
    with np.errstate(divide="ignore", invalid="ignore"):
        return d - np.log(np.exp(d).sum(axis=1, keepdims=True))


def loss_and_gradient(
    logits, target, *, axis=-1, reduction="mean", temperature=1.0, cotangent=1.0, **options
):
    """Loss, gradient of Σ cotangent·loss, and the sizes of the terms that both are sums of.

    The loss is Σ q (lse − z): its size is Σ |q| (|lse| + |z| + 1). The gradient is the term
    through the numerator, −q, and that through the denominator, +p·Σq: its size is the sum of both
    magnitudes. Rounding is relative to these.
    """
    logits = np.asarray(logits)
    axis %= logits.ndim
    n = logits.shape[axis]
    rest = logits.shape[:axis] + logits.shape[axis + 1 :]
    a = np.moveaxis(logits, axis, -1).reshape(-1, n)
    q, counts = target_rows(target, logits.shape, axis, **options)
    log_p = log_softmax(a, temperature)
    p = np.exp(log_p)
    s = q.sum(axis=1, keepdims=True)
    terms = -np.where(q == 0, 0, np.where(q == 0, 0, log_p) * q)
    rows = terms.sum(axis=1)
    z = np.where(np.isfinite(a), a, 0).astype(LONG) / LONG(temperature)
    lse = (z - np.where(np.isfinite(a), log_p, z)).max(axis=1, keepdims=True, initial=-np.inf)
    sizes = (np.abs(q) * (np.abs(lse) + np.abs(z) + 1)).sum(axis=1)
    divisor = (counts.sum() or 1) if reduction == "mean" else 1
    g = np.broadcast_to(cotangent, rest).reshape(-1, 1).astype(LONG) / divisor / LONG(temperature)
    gradient = g * (s * p - q)
    gradient_size = np.abs(g) * (np.abs(s) * p + np.abs(q))

    def back(x):
        return np.moveaxis(x.reshape(*rest, n), -1, axis)

    if reduction == "none":
        return rows.reshape(rest), back(gradient), sizes.reshape(rest), back(gradient_size)
    return rows.sum() / divisor, back(gradient), sizes.sum() / divisor, back(gradient_size)


TOLERANCE = {"float64": 1e-12, "float32": 2e-5, "float16": 4e-3}


def check_loss(value, exact, size):
    """The loss is right to TOLERANCE of the size of its terms, and keeps its dtype."""
    value = np.asarray(value)
    assert value.shape == np.shape(exact)
    smallest = np.finfo(value.dtype).tiny
    error = np.abs(value.astype(LONG) - exact)
    assert (error <= TOLERANCE[str(value.dtype)] * np.asarray(size) + smallest).all(), error


check_gradient = check_loss
