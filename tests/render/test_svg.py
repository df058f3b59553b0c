"""Guarantee: a plot is legible in any page, has a text for screen readers, and cannot break the
page that contains it."""

import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from support.pages import ParsedPage

from offline_cql.render.svg import (
    Plot,
    describe_lines,
    draw_line,
    draw_reference,
    render_plot,
    series_styles,
    set_log_scale,
    set_wide_scale,
)

HOSTILE = "</title><script>alert('$x$')</script>&"


def plot_of(stem: str = "one", *, label: str = "alpha=5", **values: str) -> Plot:
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        x, y = np.array([100.0, 200.0]), np.array([3.0, 4.5])
        draw_line(axes, x, (y, y - 1, y + 1), label=label, **series_styles([label])[label])
        draw_reference(axes, 4.0)
        axes.set(xlabel="updates", ylabel=label)
        axes.legend()

    return Plot(stem=stem, draw=draw, **{"title": "Return", "caption": "Mean.", **values})


def test_a_plot_has_a_role_a_title_and_a_description():
    svg = render_plot(plot_of(description="One method.")).svg
    head = svg[: svg.index(">")]
    assert 'role="img"' in head
    assert 'aria-labelledby="one-title one-desc"' in head
    assert '<title id="one-title">Return</title>' in svg
    described = re.findall(r'<desc id="one-desc">(.*?)</desc>', svg)
    text = "One method. Horizontal axis: updates, vertical axis: alpha=5."
    assert described == [f"{text} alpha=5: 3 at 100 to 4.5 at 200."]


def test_the_description_states_the_ends_of_labeled_lines_only():
    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 2, 3], [0.5, 9, 2000], label="a")
    axes.plot([1], [7], label="b")
    axes.plot([1, 2], [7, 8])
    assert describe_lines(figure) == "a: 0.5 at 1 to 2000 at 3. b: 7 at 1."


def test_a_plot_without_data_is_described_by_its_caption():
    plot = Plot(stem="x", title="t", caption="Nothing here.", draw=lambda figure: None)
    assert '<desc id="x-desc">Nothing here.</desc>' in render_plot(plot).svg


def test_names_are_shown_literally_and_run_nothing():
    svg = render_plot(plot_of(label=HOSTILE, title=HOSTILE, description=HOSTILE)).svg
    read = ParsedPage(svg)
    assert "script" not in read.tags
    assert read.words.count(HOSTILE) >= 3  # title, axis, legend; not taken for a formula


def test_colors_are_variables_of_the_page():
    svg = render_plot(plot_of()).svg
    styles = " ".join(re.findall(r'style="([^"]*)"', svg))
    assert "var(--series-1)" in styles
    assert "var(--plot-text)" in styles
    assert "var(--plot-reference)" in styles
    assert set(re.findall(r"#[0-9a-f]{6}", styles)) <= {"#ffffff"}


def test_two_plots_of_a_page_share_no_id_and_apply_no_style_to_the_page():
    first, second = (ParsedPage(render_plot(plot_of(stem)).svg) for stem in ("one", "two"))
    assert first.ids
    assert not set(first.ids) & set(second.ids)
    assert "style" not in first.tags
    assert "metadata" not in first.tags


def test_an_svg_refers_to_its_own_ids_only_and_to_no_address():
    svg = render_plot(plot_of()).svg
    read = ParsedPage(svg)
    assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg)) <= set(read.ids)
    assert not re.search(r"https?:|xmlns", svg)


def test_a_plot_scales_with_its_column():
    head = render_plot(plot_of()).svg.partition(">")[0]
    assert 'viewBox="0 0 ' in head
    assert not re.search(r" (width|height)=", head)


def test_the_same_plot_gives_the_same_files():
    first, second = render_plot(plot_of()), render_plot(plot_of())
    assert first.svg == second.svg
    assert first.png == second.png
    assert first.png.startswith(b"\x89PNG")


def test_series_differ_in_color_marker_and_line_style():
    styles = series_styles([str(k) for k in range(42)])
    first = list(styles.values())[:5]
    for key in ("color", "marker", "linestyle"):
        assert len({str(style[key]) for style in first}) == 5
    assert len({str(style) for style in styles.values()}) == 42


def scale_of(values: list[float]) -> str:
    axes = Figure().subplots()
    axes.plot(values)
    set_wide_scale(axes, np.array(values))
    return axes.get_yscale()


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1.0, 2, 20], "linear"),  # the largest is 10 times the median
        ([1.0, 2, 41], "log"),  # 20.5 times
        ([-1.0, 2, 41], "symlog"),
        ([0.0, 0.0, 100.0], "linear"),  # a single value that is not 0
        ([np.nan, np.inf, 1.0, 2.0, -100.0], "symlog"),
    ],
)
def test_an_axis_becomes_logarithmic_where_few_values_would_flatten_the_others(values, scale):
    assert scale_of(values) == scale


def test_logarithmic_axes_have_plain_labels():
    figure = Figure()
    axes = figure.subplots()
    axes.plot([0.01, 100])
    set_log_scale(axes)
    figure.draw_without_rendering()
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    assert {"0.01", "100"} <= set(labels)
    assert not any("$" in label for label in labels)
