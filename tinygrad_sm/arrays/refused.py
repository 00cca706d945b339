"""What is no array to compute with here, though it looks like one: a sentence for each."""

from __future__ import annotations

from typing import Any


def why_refused(data: Any) -> str | None:
    """Return why data of no kind cannot be taken, to follow their name; None if they may be."""
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
