"""Shows the signature of a class that is made by `__new__`, for the page of the public names."""

from __future__ import annotations

from typing import Any

import griffe


class MadeByNew(griffe.Extension):
    """Let `__new__` stand for `__init__`, where the reader of a class looks for its parameters."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Called with every class, once its members are there."""
        new = cls.members.get("__new__")
        if isinstance(new, griffe.Function) and "__init__" not in cls.members:
            made = griffe.Function("__init__", parameters=new.parameters, runtime=True)
            cls.set_member("__init__", made)
