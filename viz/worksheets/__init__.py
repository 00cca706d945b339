"""Worksheets for a class: the same problems as HTML, LaTeX and a notebook, with an answer key."""

from viz.worksheets.sheet import Question, Worksheet
from viz.worksheets.writing import FORMATS, worksheet_files

__all__ = ["FORMATS", "Question", "Worksheet", "worksheet_files"]
