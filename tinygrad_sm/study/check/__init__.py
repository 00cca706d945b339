"""gradcheck: what the vjps say, held against what the function itself does."""

from tinygrad_sm.study.check.examination import gradcheck
from tinygrad_sm.study.check.report import GradcheckEntry, GradcheckReport

__all__ = ["GradcheckEntry", "GradcheckReport", "gradcheck"]
