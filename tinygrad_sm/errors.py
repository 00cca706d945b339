"""The errors of the engine: one base, and for each kind the built-in exception that fits."""


class TinygradError(Exception):
    """Base of every error that this package raises on purpose."""


class InvalidValueError(TinygradError, ValueError):
    """An argument has the right type but a value that is not allowed."""


class InvalidTypeError(TinygradError, TypeError):
    """An argument has a type that is not allowed."""


class InvalidIndexError(TinygradError, IndexError):
    """An index lies outside the array, or is of no kind that NumPy has."""


class LabelError(TinygradError, IndexError):
    """A class index lies outside the classes that the logits have."""


class GradcheckError(TinygradError, AssertionError):
    """A derivative is not what the function itself says; the message is the report."""


class ChangedDataError(TinygradError, RuntimeError):
    """A Tensor's data was changed after the forward pass that used it."""


class LossWarning(RuntimeWarning):
    """A loss is defined by convention here, or infinite, or most likely not what was meant."""


class GradientWarning(UserWarning):
    """A gradient is lost here, or a graph grows with every step: likely a mistake."""


def shown(value: object) -> str:
    """Return what was given as a sentence quotes it, also if it is long or cannot be printed."""
    try:
        text = repr(value) if isinstance(value, str) else str(value)
    except Exception:  # Python prints no integer of 4300 digits and more
        return f"an unprintable {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:80]}…"
