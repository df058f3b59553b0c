"""Guarantee: the recommended alpha and checkpoint follow from the data alone, by the rule of
docs/selection.md."""

import json
import math
from pathlib import Path

import pytest
from support.run_dirs import write_grid, write_run

from offline_cql.report.load_runs import load_runs
from offline_cql.report.messages import checkpoint_file, sentences
from offline_cql.report.model_selection import Limits, Selection, TdErrorMinimum, grid_runs, select
from offline_cql.report.summary import summarize

LIMITS = Limits(above_best_share=0.05, bc_margin=0.1)


def recommend(root: Path) -> Selection:
    """Return the recommendation for the only grid under a folder."""
    summary = summarize(load_runs(str(root)), LIMITS, resamples=100, seed=0)
    (selection,) = summary.selections.values()
    return selection


def chosen(selection: Selection) -> tuple[float, int, int] | None:
    policy = selection.chosen
    return None if policy is None else (policy.alpha, policy.updates, policy.seed)


# --- The choice ----------------------------------------------------------------------------------


def test_the_point_with_the_largest_mean_lower_bound_is_chosen_and_its_best_run(tmp_path: Path):
    """alpha=1 has the single best bound, 70, but a mean of 60; alpha=5 at 100 updates has 63, of
    which seed 0 has the larger bound and seed 1 the larger estimate."""
    for seed, one, five, high in ((0, 70.0, 64.0, 66.0), (1, 50.0, 62.0, 90.0)):
        write_run(tmp_path / f"one{seed}", alpha=1, seed=seed, bounds={100: (one, 90)})
        bounds = {100: (five, high), 200: (five - 4, 95.0)}
        write_run(tmp_path / f"five{seed}", alpha=5, seed=seed, bounds=bounds)
    selection = recommend(tmp_path)
    assert chosen(selection) == (5, 100, 0)
    assert selection.point is not None
    assert selection.point.low == 63
    assert checkpoint_file(selection) == f"{tmp_path}/five0/checkpoints/100.ckpt"


def test_a_wide_interval_loses_to_a_narrow_one_with_a_smaller_estimate(tmp_path: Path):
    write_run(tmp_path / "wide", alpha=1, bounds={100: (20, 99)})
    write_run(tmp_path / "narrow", alpha=5, bounds={100: (54, 56)})
    assert chosen(recommend(tmp_path)) == (5, 100, 0)


def test_equal_bounds_go_to_the_larger_alpha_and_the_earlier_checkpoint(tmp_path: Path):
    for alpha in (1, 5, 2):
        write_run(tmp_path / f"{alpha}", alpha=alpha, bounds={100: (60, 70), 200: (60, 70)})
    assert chosen(recommend(tmp_path)) == (5, 100, 0)


@pytest.mark.parametrize(("low", "ship"), [(50.1, True), (50.0, False), (30.0, False)])
def test_shipping_needs_a_lower_bound_above_the_return_of_the_data(
    low: float, ship: bool, tmp_path: Path
):
    """The behavior's estimate is 50; its interval, 45 to 55, does not matter."""
    write_run(tmp_path / "run", bounds={200: (low, 80)})
    assert recommend(tmp_path).ship is ship


def test_a_single_run_can_be_recommended(tmp_path: Path):
    write_run(tmp_path / "run", alpha=5, seed=3, bounds={100: (60, 70)})
    assert chosen(recommend(tmp_path)) == (5, 100, 3)


def test_the_sentences_name_numbers_and_assumptions(tmp_path: Path):
    selection = recommend(write_grid(tmp_path))
    assert sentences(selection) == [
        "Ship alpha=5 after 100 updates, seed 1",
        "Its lower bound 61 is above the return of the data, 50 (+11). The estimate is 65 "
        "[61, 69] (fqe).",
        "It has the largest lower bound (60.5, the mean over 2 runs) of 4 of 6 grid points, the "
        "others being rejected. The maximum over many is biased upwards.",
        "The validation TD error of alpha=5 is lowest at the last evaluation, 200 updates. This "
        "rejects nothing.",
        "alpha=0 is too small: seed 0: 90% of validation states are valued above every return in "
        "the data (limit 5%).",
        "alpha=20 is close to behavior cloning: action distance 0.1, that of behavior cloning 0.1.",
        "This holds if the data cover the actions that the policy takes.",
    ]


# --- Too small -----------------------------------------------------------------------------------


def test_values_above_the_data_reject_a_checkpoint_and_not_its_neighbor(tmp_path: Path):
    """At 200 updates 6 % of the states: over the limit; at 100 exactly 5 %: not over it."""
    share = {"validation/above_best_share": (0.05, 0.06)}
    write_run(tmp_path / "run", bounds={100: (60, 70), 200: (80, 90)}, validation=share)
    selection = recommend(tmp_path)
    assert chosen(selection) == (5, 100, 0)
    assert selection.too_small == {}
    (rejected,) = [point for point in selection.points if point.too_small]
    assert (rejected.updates, rejected.eligible) == (200, False)
    assert "6% of validation states" in rejected.too_small[0]


def test_one_seed_is_enough_to_reject_a_point(tmp_path: Path):
    for seed in (0, 1):
        share = {"validation/above_best_share": (0.0, 0.5 * seed)}
        bounds = {100: (55.0, 70.0), 200: (80.0, 90.0)}
        write_run(tmp_path / f"{seed}", seed=seed, bounds=bounds, validation=share)
    assert chosen(recommend(tmp_path)) == (5, 100, 0)


def test_an_estimate_above_the_best_episode_rejects_a_point(tmp_path: Path):
    """The best episode returned 100; 101 is the middle of 95 to 107, 100 of 95 to 105."""
    write_run(tmp_path / "run", bounds={100: (95, 107), 200: (95, 105)})
    selection = recommend(tmp_path)
    assert chosen(selection) == (5, 200, 0)
    assert selection.points[0].too_small == (
        "seed 0: the estimate 101 exceeds the best episode in the data, 100",
    )


def test_an_estimate_that_is_not_finite_rejects_a_point(tmp_path: Path):
    write_run(tmp_path / "run", bounds={100: (math.nan, math.nan), 200: (10, 20)})
    selection = recommend(tmp_path)
    assert chosen(selection) == (5, 200, 0)
    assert selection.points[0].too_small == ("seed 0: the estimate is not finite",)


def test_a_seed_that_diverged_rejects_its_alpha(tmp_path: Path):
    write_run(tmp_path / "a", alpha=1, seed=0, bounds={100: (80, 90)})
    write_run(tmp_path / "b", alpha=1, seed=1, bounds={100: (80, 90)}, status="diverged")
    write_run(tmp_path / "c", alpha=5, bounds={100: (60, 70)})
    selection = recommend(tmp_path)
    assert chosen(selection) == (5, 100, 0)
    assert selection.too_small == {1: "seed 1: the run diverged after 200 updates"}


def test_nothing_is_recommended_when_every_point_is_rejected(tmp_path: Path):
    share = {"validation/above_best_share": (0.5, 0.5)}
    write_run(tmp_path / "run", bounds={100: (60, 70)}, validation=share)
    selection = recommend(tmp_path)
    assert (chosen(selection), selection.ship) == (None, None)
    assert "50% of validation states" in selection.too_small[5]


def test_notes_name_what_could_not_be_checked(tmp_path: Path):
    folder = write_run(tmp_path / "run", bounds={100: (60, 70)}, best_return=None)
    (folder / "validation.csv").unlink()
    selection = recommend(tmp_path)
    assert chosen(selection) == (5, 100, 0)
    assert [note.partition(":")[0] for note in selection.notes] == [
        "Some runs have no validation episodes",
        "Some ope.json have no best_return",
        "No validation episodes",
    ]


# --- Too large -----------------------------------------------------------------------------------


def distances(root: Path, by_alpha: dict[float, float], cloning: float | None = None) -> Selection:
    for alpha, distance in by_alpha.items():
        columns = {"validation/action_distance": (9.0, distance)}
        write_run(root / f"{alpha}", alpha=alpha, bounds={100: (60, 70)}, validation=columns)
    if cloning is not None:
        columns = {"validation/action_distance": (9.0, cloning)}
        write_run(root / "bc", algorithm="bc", validation=columns)
    return recommend(root)


def test_an_alpha_that_acts_like_behavior_cloning_is_labeled_and_stays_eligible(tmp_path: Path):
    """Cloning is 0.1 away from the data; 0.11 is within its margin of a tenth, 0.12 is not."""
    selection = distances(tmp_path, {1: 0.3, 5: 0.12, 20: 0.1099}, cloning=0.1)
    assert selection.too_large == {20: "action distance 0.11, that of behavior cloning 0.1"}
    assert chosen(selection) == (20, 100, 0)


def test_without_behavior_cloning_an_alpha_is_too_large_when_a_larger_one_acts_like_it(
    tmp_path: Path,
):
    selection = distances(tmp_path, {1: 0.3, 5: 0.105, 20: 0.1})
    assert set(selection.too_large) == {5, 20}
    assert "that of alpha=20 0.1" in selection.too_large[5]


def test_without_behavior_cloning_the_largest_alpha_alone_is_not_labeled(tmp_path: Path):
    assert distances(tmp_path, {1: 0.3, 5: 0.2, 20: 0.1}).too_large == {}


def test_when_all_alphas_act_alike_a_note_says_that_the_check_is_missing(tmp_path: Path):
    selection = distances(tmp_path, {1: 0.1, 5: 0.1})
    assert selection.too_large == {}
    assert selection.notes == (
        "The same action distance at every alpha and no run of algorithm=bc: it was not checked "
        "whether alpha is too large.",
    )


def test_behavior_cloning_of_other_data_is_not_a_reference(tmp_path: Path):
    columns = {"validation/action_distance": (9.0, 0.3)}
    write_run(tmp_path / "other", algorithm="bc", sha256="b" * 64, validation=columns)
    split = {"dataset.split_seed": 1}
    write_run(tmp_path / "split", algorithm="bc", validation=columns, settings=split)
    assert distances(tmp_path, {1: 0.3, 5: 0.2}).too_large == {}


# --- Without estimates ---------------------------------------------------------------------------


def test_without_estimates_the_td_error_is_compared_all_the_same(tmp_path: Path):
    rising = {"validation/td_error": (1.0, 4.0)}
    write_run(tmp_path / "a", alpha=0, validation=rising)
    write_run(tmp_path / "b", alpha=5)
    selection = recommend(tmp_path)
    assert chosen(selection) is None
    assert selection.without_estimates == (f"{tmp_path}/a", f"{tmp_path}/b")
    assert selection.td_error_minimum == {
        0: TdErrorMinimum(updates=100, value=1, last_updates=200, last_value=4),
        5: TdErrorMinimum(updates=200, value=1, last_updates=200, last_value=1),
    }


def test_a_point_without_the_estimate_of_one_seed_is_not_chosen(tmp_path: Path):
    """At 200 updates only seed 0 has an estimate, which may be the better seed."""
    write_run(tmp_path / "0", seed=0, bounds={100: (60, 70), 200: (90, 95)})
    write_run(tmp_path / "1", seed=1, bounds={100: (60, 70)})
    selection = recommend(tmp_path)
    assert chosen(selection) == (5, 100, 0)
    assert [point.incomplete for point in selection.points] == [None, "no estimate for seed 1"]


def test_runs_without_estimates_are_named_beside_a_recommendation(tmp_path: Path):
    write_run(tmp_path / "a", alpha=1)
    write_run(tmp_path / "b", alpha=5, bounds={100: (60, 70)})
    selection = recommend(tmp_path)
    assert chosen(selection) == (5, 100, 0)
    assert selection.without_estimates == (f"{tmp_path}/a",)


# --- Simulator returns ---------------------------------------------------------------------------


def test_simulator_returns_change_nothing(tmp_path: Path):
    """Absurd returns and scores that would favor another run: the same choice, word by word."""
    before = recommend(write_grid(tmp_path))
    for number, folder in enumerate(sorted(tmp_path.iterdir())):
        absurd = 1e9 if "alpha20" in folder.name else -1e9 * number
        lines = (folder / "evaluation.csv").read_text().splitlines()
        rows = [",".join([*line.split(",")[:3], str(absurd), "1"]) for line in lines[1:]]
        (folder / "evaluation.csv").write_text("\n".join([lines[0], *rows]) + "\n")
        result = json.loads((folder / "result.json").read_text())
        numbers = dict.fromkeys(("return_mean", "normalized_score", "behavior_return"), absurd)
        (folder / "result.json").write_text(json.dumps(result | numbers))
    after = recommend(tmp_path)
    assert load_runs(str(tmp_path)).runs[0].simulated.behavior_return == 0  # the files did change
    assert sentences(after) == sentences(before)
    assert chosen(after) == chosen(before)
    assert [(p.low, p.too_small) for p in after.points] == [
        (p.low, p.too_small) for p in before.points
    ]


def test_behavior_cloning_alone_is_not_a_grid(tmp_path: Path):
    write_run(tmp_path / "bc", algorithm="bc")
    assert summarize(load_runs(str(tmp_path)), LIMITS, resamples=100, seed=0).selections == {}
    assert grid_runs(load_runs(str(tmp_path)).runs) == ()
    assert select((), (), LIMITS).chosen is None
