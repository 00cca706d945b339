"""Whose array is whose: data that is given away to be changed, gradients that are handed out.

A node's array is private. What `data` gives out of a leaf is never the array that a recorded
operation keeps for backward, so changing it cannot spoil a gradient: backward notices, and says so.
Threads may share leaves; all that may change of one changes under `changing`.
"""

from __future__ import annotations

import sys
import threading
from typing import Any, cast

import numpy as np

from tinygrad_sm.arrays.kinds import kind_for, kind_of
from tinygrad_sm.engine.intake import float_array, rectangular
from tinygrad_sm.engine.node import Recorded
from tinygrad_sm.engine.threads.large import LARGE, add_in_place, in_pieces
from tinygrad_sm.errors import ChangedDataError, InvalidTypeError

# Once an array of nearly 32 MB was freed, glibc keeps what smaller ones free for the next, up to
# 64 MB. To give it back to the system and fetch it again costs more than the operations: a whole
# step of 1024 × 100 logits takes four times as long. This one is not written to, and costs nothing.
np.empty(2**25 - 2**13, np.uint8)

changing = threading.RLock()
"""Held while what several threads may share about a node changes: its gradient, its lent data."""


class Notes:
    """What is remembered of a node beside the mathematics.

    Attributes:
        lent: a leaf's values, once `data` gave them away to be changed; else None.
        grad_is_own: whether nobody but its reader holds the array of the gradient.
    """

    __slots__ = ("grad_is_own", "lent")

    def __init__(self) -> None:
        self.lent: np.ndarray | None = None
        self.grad_is_own = False


def notes(node: Recorded) -> Notes:
    """Return the notes of a node, to write on."""
    if node._notes is None:
        node._notes = Notes()
    found: Notes = node._notes
    return found


# Data ---------------------------------------------------------------------------------------------


def is_lent(node: Recorded) -> bool:
    """Return whether somebody may change the values."""
    return node._notes is not None and node._notes.lent is not None


def current(node: Recorded) -> np.ndarray:
    """Return the values as they are now, whoever may change them."""
    return node._notes.lent if is_lent(node) else node._array


def current_of(x: Any) -> Any:
    """Return the values of a node; anything else as it is."""
    return current(x) if isinstance(x, Recorded) else x


def unexposed(node: Recorded) -> np.ndarray:
    """Return the values now, as an array that nobody else can change."""
    return current(node).copy() if is_lent(node) else node._array


def read_only(array: np.ndarray, locked: bool = True) -> np.ndarray:
    """Return a read-only view; `locked` makes what is behind it read-only too, its `base`."""
    if type(array) is not np.ndarray and kind_of(array) is not None:
        return array
    view = array.view()
    view.setflags(write=False)
    owner = view.base
    while locked and isinstance(owner, np.ndarray):
        owner.setflags(write=False)
        owner = owner.base
    return view


def floats(
    data: Any, dtype: Any, copy: bool = True, what: str = "data", like: Any = None
) -> np.ndarray:
    """Do what `float_array` does, for Tensors too: a copy, since a Tensor's array is its own.

    If `like` is an array of another kind than NumPy's, so is the result.
    """
    if isinstance(data, Recorded):
        data, copy = current(data), True
    kind = None if like is None else kind_of(like)
    if kind is not None:
        return cast(np.ndarray, kind.beside(rectangular(data, what), like))
    return float_array(data, dtype, copy, what)


def lend(leaf: Recorded) -> np.ndarray:
    """Return the values as an array that the caller may change."""
    if type(leaf._array) is not np.ndarray:  # which nobody can change
        return leaf._array
    with changing:
        found = notes(leaf)
        if found.lent is None:
            found.lent = leaf._array.copy()
        return found.lent


def check_changeable(leaf: Recorded) -> None:
    """Raise InvalidTypeError if the values are of a kind that nobody can change in place."""
    if type(leaf._array) is not np.ndarray:
        raise InvalidTypeError(
            f"data of a Tensor of {kind_for(leaf._array).name} cannot be changed; make another "
            "Tensor of the new values"
        )


def set_data(leaf: Recorded, values: np.ndarray) -> None:
    """Put other values in the place of a leaf's; whoever gave the array may still change it."""
    with changing:
        notes(leaf).lent = values


def check_unchanged(nodes: list[Any]) -> None:
    """Raise ChangedDataError if a leaf no longer holds what one of these nodes was made of."""
    if not [node for node in nodes if node._notes is not None and node._notes.lent is not None]:
        return
    for node in nodes:
        for x, used in zip(node._operands, node._values, strict=True):
            if not isinstance(x, Recorded) or not is_lent(x):
                continue
            if not np.array_equal(current(x), used, equal_nan=True):
                name = "a Tensor" if x.name is None else f"the Tensor {x.name!r}"
                raise ChangedDataError(
                    f"backward: the data of {name} of shape {x.shape} was changed after the "
                    "forward pass that used it; run the forward pass again"
                )


# Gradients ----------------------------------------------------------------------------------------


def grad_of(node: Recorded) -> Any:
    """Return the gradient of a node; the first reader of an array that others hold gets a copy."""
    with changing:
        if isinstance(node._grad, np.ndarray) and not notes(node).grad_is_own:
            node._grad = node._grad.copy()
            notes(node).grad_is_own = True
        return node._grad


def set_grad(node: Recorded, value: Any) -> None:
    """Put a gradient, or None, in the place of what has been added up."""
    with changing:
        node._grad = value
        if value is not None or node._notes is not None:
            notes(node).grad_is_own = True


def add_to_grads(cotangents: dict[Any, Any]) -> int:
    """Add its cotangent to the gradient of every node, as a pass ends.

    Returns how many computed nodes had a gradient before.
    """
    again = 0
    with changing:
        for node in cotangents:  # noqa: PLC0206  items() would hold each array once more
            g = cotangents[node]
            if node._grad is None:
                node._grad = g
                if node._first is None:  # only leaves are read often enough to save them a copy
                    notes(node).grad_is_own = not _held_elsewhere(cotangents, node, known=2)
                elif node._notes is not None:
                    node._notes.grad_is_own = False
            else:
                again += node._first is not None
                node._grad = total(node._grad, g)
                notes(node).grad_is_own = True
    return again


def add_up(cotangents: dict[Any, Any], node: Any, contribution: Any) -> None:
    """Do what the sweep's `add` does: in place, if the array is large and nobody else holds it."""
    known = cotangents.get(node)
    if known is None:
        cotangents[node] = contribution
    elif known.size < LARGE or not type(known) is type(contribution) is np.ndarray:
        cotangents[node] = total(known, contribution)
    else:
        del known  # else it would count as somebody who holds the array
        if _held_elsewhere(cotangents, node):
            cotangents[node] = in_pieces(np.add, [cotangents[node], contribution])
        else:
            add_in_place(cotangents[node], contribution)


def handed_out(cotangents: dict[Any, Any], node: Any) -> Any:
    """Return a cotangent for the caller to keep: a copy, if anybody else holds the array."""
    return cotangents[node].copy() if _held_elsewhere(cotangents, node) else cotangents[node]


def total(known: Any, contribution: Any) -> Any:
    """Return the sum of two gradients: a node, or an array even where NumPy makes a scalar."""
    found = known + contribution
    if type(found) is np.ndarray or not isinstance(found, np.generic):
        return found
    return np.asarray(found)


def _held_elsewhere(cotangents: dict[Any, Any], node: Any, known: int = 0) -> bool:
    """Whether anybody but these cotangents, and so many `known` holders, holds the memory."""
    if _references(cotangents, node) > _ONE + known:
        return True
    array = cotangents[node]
    return not (type(array) is np.ndarray and array.flags.owndata and array.flags.writeable)


def _references(values: dict[Any, Any], key: Any) -> int:
    """How many hold a value: as many as `_ONE`, if only the dictionary does."""
    return sys.getrefcount(values[key])


_ONE = _references({0: object()}, 0)
