"""The stability lab's pictures: where each form breaks, how many digits it keeps, what dies.

Drawn with matplotlib, which is loaded only when a picture is rendered (the extra `lab`). States
are told by words and hatching, not by colour alone; the palette is Okabe and Ito's.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

import numpy as np

from tinygrad_sm.engine.view import LEAF
from tinygrad_sm.errors import TinygradError
from tinygrad_sm.study.stability.report import Band, FormReport, Report, SweepReport
from tinygrad_sm.study.stability.two_losses import ConfidentlyWrong
from viz.picture import Picture, loaded
from viz.style import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT = LIGHT["ink"], LIGHT["faint"]
_SMALL: Final = 9.5  # points; nothing is set smaller
_STYLE: Final[Any] = {  # Any: matplotlib types the keys, in recent versions only
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
    "font.size": 10.5,
    "axes.labelsize": _SMALL,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "xtick.labelsize": _SMALL,
    "ytick.labelsize": _SMALL,
    "legend.fontsize": _SMALL,
    "legend.frameon": False,
    "legend.handlelength": 4,
    "hatch.linewidth": 0.7,
    "svg.hashsalt": "tinygrad_sm",  # ids in the file do not change from run to run
}
_CHANGING: Final = {"svg": "Date", "png": "Software", "pdf": "CreationDate"}  # left out of files
_FAINT: Final[Any] = {"size": _SMALL, "color": FAINT}
_FIRST: Final = 5.0  # where strips begin: nothing breaks before
_STRIP: Final = 8.0  # inches that a strip is long


class _Look(NamedTuple):
    fill: str
    hatch: str
    ink: str
    meaning: str


_LOOKS: Final = {
    "ok": _Look("#FFFFFF", "", FAINT, "ok: relative error up to {tolerance:g}"),
    "digits lost": _Look("#F0E442", "....", INK, "digits lost: error above that"),
    "0": _Look("#A6D8F5", "////", INK, "0, though the truth is not"),
    "inf": _Look("#E69F00", "xxxx", INK, "inf"),
    "NaN": _Look("#333333", "", "#FFFFFF", "NaN"),
}


class LabError(TinygradError, ImportError):
    """matplotlib is not installed."""


def require_matplotlib() -> Any:
    """Return matplotlib; or raise LabError, which says how to install it, if it is missing."""
    need = "the lab's pictures need matplotlib"
    return loaded("matplotlib", LabError, need, "'matplotlib>=3.8'", "lab")


class Plot(Picture):
    """A picture that matplotlib draws: rendered, saved, shown in a notebook.

    Attributes:
        text: what it shows, in one sentence.
    """

    formats: ClassVar[tuple[str, ...]] = tuple(_CHANGING)
    dpi: ClassVar[float] = 160

    def __init__(self, plot: Callable[[], Figure], text: str) -> None:
        self.text = text
        self._plot = plot

    def render(self, format: str, dpi: float | None = None) -> bytes:
        """Return the picture as "svg", "png" or "pdf"; the same bytes in every run.

        Raises:
            InvalidValueError: another format.
            LabError: matplotlib is not installed.
        """
        self.check_format(format)
        matplotlib = require_matplotlib()
        content = io.BytesIO()
        with matplotlib.rc_context():
            matplotlib.rcdefaults()  # whatever the user's own settings are
            with matplotlib.rc_context(_STYLE):
                undated = {_CHANGING[format]: None}
                figure = self._plot()
                figure.savefig(content, format=format, dpi=dpi or self.dpi, metadata=undated)
        return content.getvalue()


def draw_stability(report: Report) -> Plot:
    """Draw one strip per form and sweep, divided where the gradient's state changes."""
    text = f"where the gradient of each form breaks in {report.dtype}"
    return Plot(lambda: _strips(report), text)


def draw_accuracy(report: Report) -> Plot:
    """Draw the error of the right class's gradient, in ULP, as the right class gets ahead."""
    text = f"the digits that each form keeps in {report.dtype}"
    return Plot(lambda: _accuracy(report), text)


def draw_confidently_wrong(found: ConfidentlyWrong) -> Plot:
    """Draw the gradient that two losses leave at the right class of an ever worse prediction."""
    text = "squared error falls silent where cross-entropy keeps pulling"
    return Plot(lambda: _wrong(found), text)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415  loaded only to render

    return Figure(figsize=(width, height), layout="constrained")


# Strips -------------------------------------------------------------------------------------------


def _strips(report: Report) -> Figure:
    figure = _figure(10, 8.6)
    panels = figure.subplots(len(report.sweeps), 1)
    for panel, swept in zip(panels, report.sweeps, strict=True):
        _strip_panel(panel, swept)
    title = f"Where the gradient at the logits breaks, in {report.dtype}"
    figure.suptitle(title, weight="bold", size=13)
    _legend_of_states(figure, report)
    figure.set_layout_engine("constrained", h_pad=0.08)
    return figure


def _strip_panel(panel: Axes, swept: SweepReport) -> None:
    sweep = swept.sweep
    panel.set(xscale="log", xlim=(_FIRST, sweep.stop), ylim=(len(swept.forms) - 0.5, -0.5))
    for lane, form in enumerate(swept.forms):
        for band in form.gradient:
            _band(panel, lane, band, _fitting(panel, band, form.gradient))
    panel.set_yticks(range(len(swept.forms)), [form.form.label for form in swept.forms])
    panel.get_yticklabels()[-1].set_fontweight("bold")
    panel.tick_params(axis="y", length=0)
    panel.set_title(sweep.title[:1].upper() + sweep.title[1:])
    panel.set_xlabel(f"{sweep.symbol},  with {sweep.formula}")
    panel.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}".replace(",", " "))


def _band(panel: Axes, lane: int, band: Band, text: str) -> None:
    look = _LOOKS[band.state]
    panel.barh(
        lane, band.stop - band.start, left=band.start, height=0.86,
        color=look.fill, edgecolor=FAINT, linewidth=0.8, hatch=look.hatch,
    )  # fmt: skip
    if text:
        middle = float(np.sqrt(max(band.start, panel.get_xlim()[0]) * band.stop))
        panel.text(
            middle, lane, text, size=_SMALL, color=look.ink, ha="center", va="center_baseline",
            bbox={"facecolor": look.fill, "edgecolor": "none", "pad": 1.0},
        )  # fmt: skip


def _fitting(panel: Axes, band: Band, lane: tuple[Band, ...]) -> str:
    """The fullest wording that fits into a band, or nothing."""
    low, high = np.log10(panel.get_xlim())
    start = max(np.log10(band.start), low)
    room = (np.log10(band.stop) - start) / (high - low) * _STRIP * 72
    return next((words for words in _wordings(band, lane) if _width(words) + 3 <= room), "")


def _wordings(band: Band, lane: tuple[Band, ...]) -> list[str]:
    if band.cause is None:
        # what broke recovers only where the truth has become too small for the dtype
        return ["ok", ""] if band is lane[0] else ["ok: the truth rounds to 0", "ok"]
    place = "the logits" if band.cause.op == LEAF else band.cause.op
    words = f"{band.state} from {band.start_text}"
    short = "lost" if band.state == "digits lost" else band.state
    return [f"{words}, at {place}", words, band.state, short]


def _width(text: str) -> float:
    """Width in points, as the strips set it."""
    from matplotlib.font_manager import FontProperties  # noqa: PLC0415  loaded only to render
    from matplotlib.textpath import TextToPath  # noqa: PLC0415

    font = FontProperties(family=_STYLE["font.family"], size=_SMALL)
    width, _, _ = TextToPath().get_text_width_height_descent(text, font, ismath=False)
    return float(width)


def _legend_of_states(figure: Figure, report: Report) -> None:
    from matplotlib.patches import Patch  # noqa: PLC0415  loaded only to render

    seen = {band.state for s in report.sweeps for form in s.forms for band in form.gradient}
    patches = []
    for state, look in _LOOKS.items():
        if state in seen:
            meaning = look.meaning.format(tolerance=report.tolerance)
            patches.append(
                Patch(facecolor=look.fill, edgecolor=FAINT, hatch=look.hatch, label=meaning)
            )
    figure.legend(
        handles=patches, loc="outside lower center", ncols=len(patches),
        handleheight=1.4, handlelength=2.2,
    )  # fmt: skip


# Accuracy -----------------------------------------------------------------------------------------

_LINES: Final[dict[str, tuple[str, Any, str]]] = {  # colour, dashes, marker
    "naive": ("#D55E00", (0, (6, 2)), "s"),
    "textbook": ("#CC79A7", (0, (1, 1.5)), "^"),
    "shifted": ("#56B4E9", (0, (4, 1.5, 1, 1.5)), "D"),
    "clipped": ("#E69F00", (0, (3, 3)), "v"),
    "logsumexp": ("#009E73", (0, (8, 2, 2, 2)), "P"),
    "fused": ("#000000", "solid", "o"),
}
_LEAST: Final = 0.05  # ULP; smaller errors are drawn here, since a log axis has no 0
_NEIGHBOURS: Final = 4


def _accuracy(report: Report) -> Figure:
    figure = _figure(10, 4.6)
    panel = figure.subplots()
    swept = report.sweep("ahead")
    vanishes = _vanishing_margin(report.dtype)
    most = 1e18 if report.dtype == "float64" else 1e9
    panel.set(xscale="log", yscale="log", xlim=(1, 1.6 * vanishes), ylim=(_LEAST, most))
    for number, form in enumerate(swept.forms):
        _curve(panel, swept.x, form, number)
    _level(panel, 1.06, 2.0 ** np.finfo(report.dtype).nmant, "no digit is left", "left")
    _level(panel, 0.8 * vanishes, 5.0, "5 ULP: what the fused node promises", "right")
    panel.text(0.8 * vanishes, 2e2, "the truth fades to 0 →", ha="right", **_FAINT)
    panel.set_title(f"Error of the right class's gradient, in {report.dtype}")
    panel.set_xlabel(f"margin m,  with {swept.sweep.formula}")
    panel.set_ylabel("ULP (worst of 9 neighbours)")
    panel.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    panel.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _curve(panel: Axes, x: np.ndarray, form: FormReport, number: int) -> None:
    color, dashes, marker = _LINES[form.form.name]
    panel.plot(
        x, np.maximum(_worst_nearby(form.ulps), _LEAST), label=form.form.label,
        color=color, linestyle=dashes, linewidth=2.6 if form.form.name == "fused" else 1.8,
        # lines that lie on one another show by their markers
        marker=marker, markersize=5, markevery=(7 * number, 45),
    )  # fmt: skip


def _worst_nearby(values: np.ndarray) -> np.ndarray:
    """The largest of each value and its neighbours; NaN where the value itself is."""
    padded = np.pad(values, _NEIGHBOURS, constant_values=0.0)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * _NEIGHBOURS + 1)
    worst = np.max(np.nan_to_num(windows, nan=0.0), axis=1)
    return np.where(np.isnan(values), np.nan, worst)


def _vanishing_margin(dtype: str) -> float:
    """The margin at which exp(−m) leaves the dtype."""
    return float(-np.log(np.finfo(dtype).smallest_subnormal))


def _level(panel: Axes, x: float, y: float, text: str, side: str) -> None:
    panel.axhline(y, color=FAINT, linewidth=0.9, zorder=0)
    panel.text(x, y * 1.3, text, va="bottom", ha=side, **_FAINT)


# Confidently wrong --------------------------------------------------------------------------------

_TARGET: Final = 0  # the right class of every ConfidentlyWrong


def _wrong(found: ConfidentlyWrong) -> Figure:
    figure = _figure(10, 4.6)
    near, far = figure.subplots(1, 2)
    cross, squared = (np.abs(x[:, _TARGET]) for x in (found.cross, found.squared))
    look = {"color": "#D55E00", "linestyle": (0, (5, 2))}
    for panel in (near, far):
        panel.plot(found.margins, cross, color=INK, linewidth=2.4, label="softmax + cross-entropy")
        panel.plot(found.margins, squared, linewidth=2.4, label="softmax + squared error", **look)
        panel.set_xlabel("margin m by which the right class is behind")
    near.set(xlim=(-6, 12), ylim=(-0.02, 1.08), title="|gradient| at the right class's logit")
    near.text(4.2, 0.90, "cross-entropy → 1", size=_SMALL, va="top")
    near.text(3.2, 0.12, "squared error → 0", size=_SMALL)
    vanishes = _vanishing_margin(str(found.cross.dtype))
    depth = int(vanishes / np.log(10))  # decades above 0 that the dtype has
    far.set(yscale="log", xlim=(0, 1.08 * vanishes), ylim=(np.exp(-vanishes), 10.0 ** (depth / 12)))
    far.set_yticks([10.0**n for n in range(0, -depth, -100 if depth > 100 else -10)])
    far.set_title("The same, far out")
    _deaths(far, found, squared)
    figure.legend(*near.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _deaths(panel: Axes, found: ConfidentlyWrong, squared: np.ndarray) -> None:
    """Mark where finite precision makes an end of what mathematics only makes small."""
    inside = panel.transAxes
    panel.text(0.42, 0.6, "falls like $p_i\\,p_j$ of the Jacobian", size=_SMALL, transform=inside)
    naive = ~np.isfinite(found.naive[:, _TARGET])
    if naive.any():
        at = float(found.margins[np.argmax(naive)])
        panel.plot([at], [1.0], "X", markersize=11, color="#CC79A7", markeredgecolor=INK)
        _note(panel, f"naive composite:\nNaN from {at:.4g}", (at, 1.0), (0.7, 0.76))
    behind = found.margins > 0
    gone = behind & (squared == 0)
    if gone.any():
        at = float(found.margins[np.argmax(gone)])
        _note(panel, f"exactly 0\nfrom {at:.4g}", (at, squared[behind & ~gone].min()), (0.6, 0.08))


def _note(panel: Axes, text: str, at: tuple[float, float], beside: tuple[float, float]) -> None:
    panel.annotate(
        text, at, beside, textcoords="axes fraction", size=_SMALL, va="center", ha="center",
        arrowprops={"arrowstyle": "->", "color": FAINT},
    )  # fmt: skip
