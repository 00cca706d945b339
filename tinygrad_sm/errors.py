"""The errors of the engine: one base, and for each kind the built-in exception that fits."""


class TinygradError(Exception):
    """Base of every error that this package raises on purpose."""


class InvalidValueError(TinygradError, ValueError):
    """An argument has the right type but a value that is not allowed."""


class InvalidTypeError(TinygradError, TypeError):
    """An argument has a type that is not allowed."""


class LabelError(TinygradError, IndexError):
    """A class index lies outside the classes that the logits have."""


class ChangedDataError(TinygradError, RuntimeError):
    """A Tensor's data was changed after the forward pass that used it."""


class LossWarning(RuntimeWarning):
    """A loss is defined by convention here, or infinite."""
