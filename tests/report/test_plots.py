"""Guarantee: the plot against alpha scales its axes by the runs' values alone."""

import warnings
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from support.run_dirs import write_mixed, write_run

from offline_cql.render.svg import STYLE
from offline_cql.report.load_runs import load_runs
from offline_cql.report.model_selection import Limits
from offline_cql.report.plots import alpha_plot, score_plots, task_plots
from offline_cql.report.run import methods
from offline_cql.report.summary import summarize


def test_the_line_at_the_recommended_alpha_does_not_count_as_a_value(tmp_path: Path):
    """Gaps of 2, 3 and 1000 are positive: logarithmic, not linear near 0."""
    for alpha, gap in ((1.0, 1000.0), (5.0, 3.0), (20.0, 2.0)):
        write_run(
            tmp_path / f"{alpha}",
            alpha=alpha,
            bounds={200: (60.0, 70.0)},
            validation={"validation/gap": (gap, gap)},
        )
    limits = Limits(above_best_share=0.05, bc_margin=0.1)
    summary = summarize(load_runs(str(tmp_path)), limits, resamples=100, seed=0)
    (task,), (selection,) = summary.tasks, summary.selections.values()
    assert selection.point is not None
    figure = Figure()
    alpha_plot(task, selection, 0).draw(figure)
    scales = {axes.get_ylabel(): axes.get_yscale() for axes in figure.axes}
    assert scales["gap [reward]"] == "log"


def test_labels_of_mixed_runs_stay_inside_their_plot(tmp_path: Path):
    """Legends are below the axes; matplotlib gives up, with a warning, where there is no space."""
    summary = summarize(
        load_runs(str(write_mixed(tmp_path))),
        Limits(above_best_share=0.05, bc_margin=0.1),
        resamples=20,
        seed=0,
    )
    plots = score_plots(summary.aggregates, resamples=20, seed=0)
    for task in summary.tasks:
        plots += task_plots(task, share_limit=0.05, resamples=20, seed=0)
    assert len(plots) > 20
    for plot in plots:
        with mpl.rc_context(STYLE), warnings.catch_warnings(action="error"):
            figure = Figure(figsize=plot.size, layout="constrained")
            plot.draw(figure)
            FigureCanvasAgg(figure).draw()
        width, height = figure.bbox.size
        ticks = {label for axes in figure.axes for label in axes.get_xticklabels()}  # also undrawn
        for text in set(figure.findobj(Text)) - ticks:
            if text.get_text():
                box = text.get_window_extent()
                assert box.x0 >= -2, (plot.stem, text.get_text())
                assert box.x1 <= width + 2, (plot.stem, text.get_text())
        for legend in figure.legends:
            top = legend.get_window_extent().y1
            assert all(top < axes.bbox.y0 for axes in figure.axes), plot.stem
        assert all(axes.bbox.height > 0.4 * height / len(figure.axes) for axes in figure.axes)


def test_a_label_has_only_what_is_set(tmp_path: Path):
    write_run(tmp_path / "a", settings={"cql.bc_weight": 0.5})
    write_run(tmp_path / "b", settings={"cql.target_gap": 2.0})
    labels = methods(load_runs(str(tmp_path)).runs)
    assert sorted(labels.values()) == ["alpha=5 bc_weight=0.5", "alpha=5 target_gap=2"]
