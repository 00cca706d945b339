"""What is no array to compute with here, though it looks like one: a sentence for each."""

from __future__ import annotations

from typing import Any

from tinygrad_sm.errors import InvalidTypeError


def check_not_refused(data: Any, what: str) -> None:
    """Raise InvalidTypeError for data of no kind that cannot be converted without a loss."""
    reason = _why_refused(data)
    if reason is not None:
        raise InvalidTypeError(f"{what} {reason}")


def _why_refused(data: Any) -> str | None:
    """Why, to follow the name of the data; None if they may be converted."""
    cls = type(data)
    if hasattr(cls, "todense"):  # scipy.sparse and pydata's sparse, which convert unasked or not
        dense = "toarray" if hasattr(cls, "toarray") else "todense"
        return f"is sparse, and softmax leaves no zero as it is: give its {dense}()"
    if hasattr(cls, "__primitive__"):
        return None
    if getattr(data, "requires_grad", False) is True:
        return (
            f"requires a gradient of {cls.__module__.partition('.')[0]}'s, which would end here: "
            "give its detach()"
        )
    if "bfloat16" in str(getattr(data, "dtype", "")):
        return "must be of a dtype that NumPy has; bfloat16 is none: convert it to float32"
    return None
