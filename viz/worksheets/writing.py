"""The files of a worksheet: sheet and answer key, in each format."""

from __future__ import annotations

from collections.abc import Iterable

from tinygrad_sm.errors import InvalidValueError, shown
from viz.worksheets.latex import latex_source
from viz.worksheets.notebook import notebook_json
from viz.worksheets.sheet import Worksheet
from viz.worksheets.web import html_page

FORMATS = ("html", "tex", "ipynb")


def worksheet_files(sheet: Worksheet, formats: Iterable[str] = FORMATS) -> dict[str, bytes]:
    """Return every file of a worksheet by name: the sheet's, and the key's with ``-answers``.

    With "tex" come the pictures, one PDF for each question.

    Raises:
        InvalidValueError: a format is none of FORMATS.
        RenderError: Graphviz is missing or refuses.
    """
    files: dict[str, bytes] = {}
    for format in formats:
        if format not in FORMATS:
            raise InvalidValueError(
                f"format must be one of {', '.join(FORMATS)}; got {shown(format)}"
            )
        for answered in (False, True):
            stem = f"worksheet-{sheet.seed}" + ("-answers" if answered else "")
            name = f"{stem}.{format}"
            if format == "html":
                files[name] = html_page(sheet, answered)
            elif format == "ipynb":
                files[name] = notebook_json(sheet, answered)
            else:
                files[name] = latex_source(sheet, stem, answered)
                for question in sheet.questions:
                    drawing = question.picture(answered)
                    files[f"{stem}-{question.number}.pdf"] = drawing.render("pdf")
    return files
