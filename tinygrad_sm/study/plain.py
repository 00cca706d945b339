"""What a study found, in the types that JSON has."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from tinygrad_sm.engine.view import Node


def jsonable(value: Any) -> Any:
    """Return a value in types that JSON has: arrays as lists, numbers that are not finite as text.

    Takes dicts, lists, tuples and dataclasses of them too; numbers of arrays become floats, and
    a node is what it is called.
    """
    if isinstance(value, Node):
        return {"id": value.id, "op": value.op, "name": value.name, "shape": list(value.shape)}
    if is_dataclass(value):
        return {field.name: jsonable(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {key: jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(inner) for inner in value]
    if isinstance(value, np.ndarray | np.generic):
        numbers = value.astype(np.float64).tolist()
        return numbers if np.isfinite(value).all() else jsonable(numbers)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value
