"""Derivatives of a plain NumPy function from its values alone: the oracle of the engine's tests.

Computed in the longest float there is, so they are good to more digits than what they check.
"""

import numpy as np

LONG = np.longdouble
EPS = float(np.finfo(LONG).eps)
NOISE = 100 * EPS**0.8  # relative error to be expected of a first derivative from here


def _moved(arrays, steps, t):
    return [a if v is None else a + LONG(t) * v for a, v in zip(arrays, steps, strict=True)]


def along(f, arrays, steps):
    """d/dt f(arrays + t·steps) at t = 0, of a scalar f; a step None leaves its array alone."""
    h = EPS ** (1 / 5) / 4
    outer, inner = (
        f(*_moved(arrays, steps, t)) - f(*_moved(arrays, steps, -t)) for t in (2 * h, h)
    )
    return float((8 * inner - outer) / (12 * h))


def gradient(f, arrays, k):
    """∂f/∂arrays[k] of a scalar f, element by element."""
    found = np.zeros(arrays[k].shape)
    for index in np.ndindex(found.shape):
        unit = np.zeros(found.shape, LONG)
        unit[index] = 1
        found[index] = along(f, arrays, [unit if i == k else None for i in range(len(arrays))])
    return found


def second(f, arrays, u, v):
    """∂²f/∂u∂v of a scalar f along the steps u and v."""
    h = EPS ** (1 / 6)

    def mixed(h):
        total = LONG(0)
        for s in (1, -1):
            for t in (1, -1):
                at = _moved(_moved(arrays, u, s * h), v, t * h)
                total += s * t * f(*at)
        return total / (4 * h * h)

    return float((4 * mixed(h / 2) - mixed(h)) / 3)
