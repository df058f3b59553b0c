"""Guarantee: the plot against alpha scales its axes by the runs' values alone."""

from pathlib import Path

from matplotlib.figure import Figure
from support.run_dirs import write_run

from offline_cql.report.load_runs import load_runs
from offline_cql.report.model_selection import Limits
from offline_cql.report.plots import alpha_plot
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
