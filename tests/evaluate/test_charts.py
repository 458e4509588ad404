import re
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest

from fairlead.algos import agreement
from fairlead.evaluate.charts import MAX_POINTS, Bar, curve, histogram, intervals, reliability, running_mean


def some_charts():
    line = [(float(i), 3.0 / (i + 1)) for i in range(60)]
    bars = [Bar("held-out", 0.8, 0.7, 0.9, 0.55), Bar("dpo_en_demo", 0.5, 0.4, 0.6)]
    bins = agreement.reliability([0.1, 0.4, -0.3, 1.5, 2.0, 2.1, -4.0])
    return {
        "reliability": reliability(bins, title="As sure as right"),
        "curve": curve({"loss": line}, title="Loss"),
        "two curves": curve({"a": line[:9], "b": line[3:9]}, title="Two"),
        "histogram": histogram([0.0, 1.0, 2.0], [1.0, 2.0, 2.5], title="Scores", names=("SFT", "PPO")),
        "intervals": intervals(bars, title="Accuracy", x_label="accuracy", mark_name="length rule", chance=0.5),
    }


@pytest.mark.parametrize("name", some_charts())
def test_a_chart_is_a_small_well_formed_svg_without_foreign_names(name):
    svg = some_charts()[name]
    root = ET.fromstring(svg)  # noqa: S314 - our own text
    assert root.tag == "svg"
    assert root.attrib["role"] == "img"
    assert "http" not in svg
    assert "<style" not in svg
    assert len(svg) < 40_000


@pytest.mark.parametrize("name", some_charts())
def test_colours_are_the_pages(name):
    svg = some_charts()[name]
    colours = set(re.findall(r"(?:fill|stroke): ?([^;\"]+)", svg))
    assert all(colour == "none" or colour.startswith(("var(--", "url(#")) for colour in colours), colours


def drawn_width(svg):
    """Of the grid lines, which run from end to end."""
    lines = re.findall(r"M ([\d.]+) ([\d.]+) \nL ([\d.]+) \2", svg)
    return max(float(end) - float(start) for start, _, end in lines if float(start) > 0)  # not the frame


@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "runs/" + "a-very-long-name" * 9 + "/02-sft"])
def test_a_long_name_leaves_room_for_the_chart(name):
    short = histogram([0.0, 1.0], [1.0, 2.0], title="Scores", names=("SFT", "PPO"))
    long = histogram([0.0, 1.0], [1.0, 2.0], title="Scores", names=(name, "SFT"))
    assert drawn_width(long) > 0.95 * drawn_width(short)
    assert f"{name[-20:]}, mean" in long


def test_a_reliability_chart_says_how_many_pairs_each_point_stands_for():
    counts = [9, 40, 123]
    differences = [d for d, count in zip((0.05, -1.0, 9.0), counts, strict=True) for _ in range(count)]
    svg = reliability(agreement.reliability(differences), title="x")
    assert [text for text in re.findall(r">(\d+)</text>", svg) if int(text) > 1] == [str(count) for count in counts]


def test_equal_input_gives_equal_bytes():
    assert some_charts() == some_charts()


def test_ids_of_two_charts_on_one_page_never_collide():
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in some_charts().values()]
    assert any(ids)
    assert sum(len(one) for one in ids) == len(set().union(*ids))
    for svg in some_charts().values():
        used = set(re.findall(r"url\(#([^)]+)\)", svg)) | set(re.findall(r'href="#([^"]+)"', svg))
        assert used <= set(re.findall(r' id="([^"]+)"', svg))


def test_titles_and_labels_are_escaped():
    svg = intervals([Bar("<b>&", 0.5, 0.4, 0.6)], title='"<script>', x_label="x")
    assert "<script>" not in svg
    assert "<b>" not in svg
    ET.fromstring(svg)  # noqa: S314 - our own text


def test_points_that_are_not_finite_are_left_out():
    whole = curve({"loss": [(0.0, 1.0), (2.0, 3.0)]}, title="t")
    assert curve({"loss": [(0.0, 1.0), (1.0, float("nan")), (2.0, 3.0)]}, title="t") == whole


def test_degenerate_input_still_draws():
    assert "<svg" in curve({"loss": [(1.0, 2.0)]}, title="one point")
    assert "<svg" in histogram([1.0], [1.0], title="all equal", names=("a", "b"))


def test_a_long_run_is_thinned():
    svg = curve({"loss": [(float(i), float(i % 7)) for i in range(50 * MAX_POINTS)]}, title="long")
    assert len(svg) < 100_000


def test_running_mean_by_hand():
    assert running_mean([1.0, 3.0, 5.0, 7.0], 2) == [1.0, 2.0, 4.0, 6.0]


def test_matplotlib_waits_until_a_chart_is_drawn():
    code = "import sys, fairlead.evaluate.report; sys.exit('matplotlib' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
