"""Charts as inline SVG strings: text stays text, colours are the page's CSS variables, equal input gives equal bytes.

Colours are drawn as place holders and replaced by `var(--...)`, so one chart suits a light and a dark page. Series also
differ by dash or hatch, so colour is never the only cue. matplotlib is imported on first use: it takes half a second.
"""

import hashlib
import html
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fairlead.algos.agreement import ReliabilityBin
from fairlead.evaluate.wording import fixed, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = Sequence[tuple[float, float]]

LONGEST_OF_TWO, LONGEST_NAME = 19, 24  # letters that fit half the width, and the whole of it beside a mean
MAX_POINTS = 400  # per series; more cannot be seen and only make the page heavy

_CSS = {  # place holder -> what the page defines
    "#010203": "var(--ink-2)",
    "#010204": "var(--line)",
    "#010205": "var(--series-1)",
    "#010206": "var(--series-2)",
    "#010207": "var(--series-3)",
    "#010208": "var(--series-4)",
    "#010209": "var(--paper)",
}
_INK, _LINE, *_SERIES, _PAPER = _CSS
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))


@dataclass(frozen=True, slots=True)
class Bar:
    """One measured value with its interval; `mark` draws a second value to beat, such as a length-only rule."""

    label: str
    value: float
    low: float
    high: float
    mark: float | None = None


def curve(series: Mapping[str, Points], *, title: str, x_label: str = "step") -> str:
    """Lines of (x, y) points, one per name; non-finite points are left out. One series needs no legend."""
    with _chart(title, height=1.95) as (axes, out):
        for index, (name, points) in enumerate(series.items()):
            x, y = _columns(_thin([p for p in points if math.isfinite(p[1])]))
            smooth = len(x) >= 40
            style = {"color": _SERIES[index % 4], "linestyle": _DASHES[index % 4]}
            axes.plot(x, y, linewidth=0.9 if smooth else 1.7, alpha=0.35 if smooth else 1.0, label=name, **style)
            if smooth:  # the faint line is what was measured
                axes.plot(x, running_mean(y, max(5, len(y) // 20)), linewidth=1.8, label="_mean", **style)
            elif len(x) == 1:
                axes.plot(x, y, marker="o", color=_SERIES[index % 4])
        axes.set_xlabel(x_label)
        axes.locator_params(axis="x", integer=True, nbins=6)
        if len(series) > 1:
            _legend_above(axes)
    return out[0]


def histogram(parent: Sequence[float], child: Sequence[float], *, title: str, names: tuple[str, str]) -> str:
    """Two distributions on the same bins, with their means; `names` are (parent, child)."""
    low, high = min(*parent, *child), max(*parent, *child)
    width = (high - low) or 1.0
    num_bins = max(6, min(24, round(math.sqrt(len(child)) * 1.5)))
    edges = [low + width * i / num_bins for i in range(num_bins + 1)]
    with _chart(title, height=1.95) as (axes, out):
        for values, name, color, hatch in (
            (parent, names[0], _SERIES[1], "////"),
            (child, names[1], _SERIES[0], None),
        ):
            mean = sum(values) / len(values)
            legend = f"{shortened(name, LONGEST_NAME)}, mean {fixed(mean)}"
            fill = {"color": color, "edgecolor": color, "linewidth": 0, "alpha": 0.30, "hatch": hatch}
            axes.hist(values, bins=edges, label=legend, **fill)
            axes.hist(values, bins=edges, histtype="step", color=color, linewidth=1.4)
            axes.axvline(mean, color=color, linewidth=1.6, linestyle="--" if hatch else "-")
        axes.set_xlabel("score of the reward model")
        axes.set_ylabel("responses")
        _legend_above(axes)
    return out[0]


def intervals(
    bars: Sequence[Bar], *, title: str, x_label: str, mark_name: str = "", chance: float | None = None
) -> str:
    """Horizontal bars with 95 % intervals; `mark_name` names the second value, `chance` draws a dotted line."""
    with _chart(title, height=0.75 + 0.42 * len(bars)) as (axes, out):
        rows = range(len(bars))
        axes.barh(rows, [bar.value for bar in bars], height=0.5, color=_SERIES[0], alpha=0.30)
        for row, bar in zip(rows, bars, strict=True):
            axes.plot((bar.low, bar.high), (row, row), color=_SERIES[0], linewidth=2.2, solid_capstyle="butt")
            axes.plot(bar.value, row, marker="o", markersize=5, color=_SERIES[0])
            if bar.mark is not None:
                axes.plot(bar.mark, row, marker="D", markersize=5, color=_SERIES[1], linestyle="none")
        if chance is not None:
            axes.axvline(chance, color=_INK, linewidth=1.0, linestyle=":")
        axes.set_yticks(rows, [bar.label for bar in bars])
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.set_xlim(*_span(bars, chance))
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x", color=_LINE, linewidth=0.7)
        axes.set_xlabel(f"{x_label}   ◆ {mark_name}" if mark_name else x_label)
    return out[0]


def reliability(bins: Sequence[ReliabilityBin], *, title: str) -> str:
    """How often a scorer is right, with 95 % intervals, beside how sure it is; on the dotted line both are equal."""
    with _chart(title, height=2.3) as (axes, out):
        axes.plot((0.5, 1.0), (0.5, 1.0), color=_INK, linewidth=1.0, linestyle=":", label="as sure as right")
        sure, right = [one.confidence for one in bins], [one.accuracy for one in bins]
        for one in bins:
            ends = (one.low, one.high)
            axes.plot((one.confidence,) * 2, ends, color=_SERIES[0], linewidth=2.2, alpha=0.45, solid_capstyle="butt")
            axes.annotate(str(one.num_pairs), (one.confidence, -0.04), ha="center", va="top", fontsize=8, color=_INK)
        axes.plot(sure, right, color=_SERIES[0], linewidth=1.2, marker="o", markersize=5, label="right")
        axes.set_xlim(0.485, 1.015)
        axes.set_ylim(-0.17, 1.04)
        axes.set_yticks((0.0, 0.25, 0.5, 0.75, 1.0))
        axes.set_xlabel("sigmoid of the score difference; below: pairs")
        _legend_above(axes)
    return out[0]


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean of the last `window` values at each position (of fewer at the start)."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    starts = [max(0, i - window) for i in range(1, len(sums))]
    return [(sums[i] - sums[s]) / (i - s) for i, s in enumerate(starts, start=1)]


def _legend_above(axes: "Axes") -> None:
    labels = axes.get_legend_handles_labels()[1]
    columns = 2 if max(map(len, labels)) <= LONGEST_OF_TWO else 1
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderpad=0.2, columnspacing=1.2)


def _span(bars: Sequence[Bar], chance: float | None) -> tuple[float, float]:
    ends = [x for bar in bars for x in (bar.low, bar.high, bar.mark) if x is not None]
    ends += [] if chance is None else [chance]
    low, high = min(0.0, *ends), max(0.0, *ends)
    if low >= 0.0 and high <= 1.0:
        return 0.0, 1.0
    margin = 0.06 * (high - low)
    return (low - margin if low < 0.0 else 0.0), high + margin


def _columns(points: Points) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _thin(points: Points) -> Points:
    """Every k-th point, always with the last."""
    stride = math.ceil(len(points) / MAX_POINTS)
    return points if stride <= 1 else [*points[:-1:stride], points[-1]]


@contextmanager
def _chart(title: str, *, height: float) -> Iterator[tuple["Axes", list[str]]]:
    """Axes to draw on; after the block the list holds the SVG. 3.6 inches: as on a phone, elsewhere text grows."""
    from matplotlib import rc_context  # noqa: PLC0415
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": "fairlead",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": _LINE,
        "axes.labelcolor": _INK,
        "axes.axisbelow": True,
        "axes.formatter.useoffset": False,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "text.color": _INK,
        "hatch.linewidth": 0.6,
    }
    out: list[str] = []
    with rc_context(style):
        figure = Figure(figsize=(3.6, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        axes.grid(visible=True, axis="y", color=_LINE, linewidth=0.7)
        yield axes, out
        target = io.StringIO()
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    out.append(_inline(target.getvalue(), title))


def _inline(svg: str, title: str) -> str:
    """Cut an SVG file down to what belongs inside a page: no prolog, no foreign names, ids that cannot collide."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*|<defs>\s*<style.*?</defs>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href=", "href=")
    used = set(re.findall(r"url\(#([^)]+)\)", svg)) | set(re.findall(r'href="#([^"]+)"', svg))
    prefix = "c" + hashlib.sha256((title + svg).encode()).hexdigest()[:8] + "-"
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{prefix}{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}", svg)
    svg = re.sub(r'href="#', f'href="#{prefix}', svg)
    for color, variable in _CSS.items():
        svg = svg.replace(color, variable)
    svg = re.sub(r" font-family: [^;\"]+;", "", svg)  # the page's own font
    name = html.escape(title)
    viewbox = re.search(r'viewBox="[^"]+"', svg)
    assert viewbox, "matplotlib writes a viewBox"
    head = f'<svg role="img" aria-label="{name}" class="chart" {viewbox[0]}><title>{name}</title>'
    return head + svg[svg.index(">") + 1 :].strip()
