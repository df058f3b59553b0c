"""Guarantee: each kind of recommendation is stated in whole sentences."""

import dataclasses

import pytest

from offline_cql.ope.estimate import Estimate
from offline_cql.report.messages import checkpoint_file, commands, export_command, sentences
from offline_cql.report.model_selection import Candidate, GridPoint, Selection, TdErrorMinimum


def estimate(value: float, low: float, high: float, *assumptions: str) -> Estimate:
    return Estimate(method="fqe", value=value, low=low, high=high, assumptions=assumptions)


BEHAVIOR = estimate(50, 45, 55, "the data are stationary")


def candidate(alpha: float = 5.0, *, seed: int = 0, low: float = 60.0) -> Candidate:
    return Candidate(
        run=f"runs/{alpha:g}",
        file="checkpoints/100.ckpt",
        alpha=alpha,
        seed=seed,
        updates=100,
        estimate=estimate(low + 10, low, low + 20, "the data cover the actions"),
        above_best=0.0,
    )


def point(
    alpha: float = 5.0,
    *,
    lows: tuple[float, ...] = (60.0,),
    too_small: tuple[str, ...] = (),
    incomplete: str | None = None,
) -> GridPoint:
    candidates = tuple(candidate(alpha, seed=seed, low=low) for seed, low in enumerate(lows))
    reasons = {"too_small": too_small, "incomplete": incomplete}
    return GridPoint(alpha=alpha, updates=100, candidates=candidates, **reasons)


def selection(*points: GridPoint, **values: object) -> Selection:
    """Return a selection whose first point is the recommended one, unless it is rejected."""
    best = points[0] if points and points[0].eligible else None
    base = Selection(
        runs=(),
        points=points,
        point=best,
        chosen=None if best is None else best.best,
        behavior=None if best is None else BEHAVIOR,
        too_small={},
        too_large={},
        td_error_minimum={},
        without_estimates=(),
        without_validation=False,
        notes=(),
    )
    return dataclasses.replace(base, **values)


# --- The verdict and its reason ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "verdict", "reason"),
    [
        (60.0, "Ship alpha=5", "Its lower bound 60 is above the return of the data, 50 (+10)."),
        (50.0, "Do not ship; ", "Its lower bound 50 is not above the return of the data, 50 (0)."),
        (
            42.5,
            "Do not ship; ",
            "Its lower bound 42.5 is not above the return of the data, 50.0 (-7.5).",
        ),
    ],
)
def test_the_verdict_compares_the_lower_bound_with_the_data(low: float, verdict: str, reason: str):
    first, second, *_ = sentences(selection(point(lows=(low,))))
    assert first.startswith(verdict)
    assert first.endswith("alpha=5 after 100 updates, seed 0")
    assert second.startswith(reason)


def test_the_estimate_is_stated_with_its_interval_and_method():
    assert sentences(selection(point()))[1].endswith(" The estimate is 70 [60, 80] (fqe).")


def test_assumptions_of_both_estimates_are_stated_once():
    same = dataclasses.replace(BEHAVIOR, assumptions=("the data cover the actions", "b"))
    last = sentences(selection(point(), behavior=same))[-1]
    assert last == "This holds if the data cover the actions; b."


# --- The choice ----------------------------------------------------------------------------------


SMALL, MISSING = point(0, too_small=("x",)), point(2, incomplete="y")
LARGEST, BIAS = "It has the largest lower bound", "The maximum over many is biased upwards."


@pytest.mark.parametrize(
    ("points", "text"),
    [
        ([point()], "It is the only grid point (alpha and checkpoint): there was no choice."),
        (
            [point(), SMALL, MISSING],
            "It is the only eligible grid point (alpha and checkpoint) of 3.",
        ),
        ([point(), point(1)], f"{LARGEST} (60) of all 2 grid points. {BIAS}"),
        (
            [point(lows=(60.0, 65.0)), point(1)],
            f"{LARGEST} (62.5, the mean over 2 runs) of all 2 grid points. {BIAS}",
        ),
        (
            [point(), point(1), SMALL],
            f"{LARGEST} (60) of 2 of 3 grid points, the others being rejected. {BIAS}",
        ),
    ],
)
def test_a_choice_states_among_how_many_points_it_was_made(points: list[GridPoint], text: str):
    assert sentences(selection(*points))[2] == text


# --- What else is known --------------------------------------------------------------------------


RISING = TdErrorMinimum(updates=100, value=1.25, last_updates=2000, last_value=4)
FALLING = TdErrorMinimum(updates=2000, value=4, last_updates=2000, last_value=4)


@pytest.mark.parametrize(
    ("minimum", "text"),
    [
        (RISING, "at 100 updates (1.25) and 4 at 2,000."),
        (FALLING, "at the last evaluation, 2,000 updates."),
    ],
)
def test_the_lowest_td_error_is_stated_and_rejects_nothing(minimum: TdErrorMinimum, text: str):
    line = f"The validation TD error of alpha=5 is lowest {text} This rejects nothing."
    assert sentences(selection(point(), td_error_minimum={5.0: minimum}))[3] == line
    other = sentences(selection(point(), td_error_minimum={1.0: minimum}))
    assert not any("TD error" in line for line in other)


def test_alphas_that_are_too_small_or_too_large_are_stated_with_their_reason():
    lines = sentences(selection(point(), too_small={0: "seed 0: x"}, too_large={20: "y", 5: "z"}))
    assert "alpha=0 is too small: seed 0: x." in lines
    close = "is close to behavior cloning:"
    assert f"alpha=20 {close} y." in lines
    # The recommended alpha comes with an expectation.
    assert f"alpha=5 {close} z. Expect about the return of behavior cloning." in lines


# --- No recommendation ---------------------------------------------------------------------------


def test_without_estimates_there_is_no_recommendation():
    minimum = TdErrorMinimum(updates=100, value=1, last_updates=200, last_value=4)
    assert sentences(selection(td_error_minimum={0.5: minimum})) == [
        "No recommendation: there are no estimates of what these policies would earn",
        "The validation TD error of alpha=0.5 is lowest at 100 updates (1) and 4 at 200.",
    ]


def test_when_every_point_is_rejected_each_reason_is_stated_once():
    result = selection(
        point(0, too_small=("seed 0: x",)),
        point(5, incomplete="no estimate for seed 1"),
        too_small={0.0: "seed 0: x"},
    )
    assert sentences(result) == [
        "No recommendation: every grid point (alpha and checkpoint) is rejected",
        "alpha=5 after 100 updates: no estimate for seed 1.",
        "alpha=0 is too small: seed 0: x.",
    ]


# --- Commands ------------------------------------------------------------------------------------


FILE, EXPORT = "runs/5/checkpoints/100.ckpt", "python export.py run=runs/5 checkpoint=100"


@pytest.mark.parametrize(
    ("points", "file", "command"),
    [([point()], FILE, EXPORT), ([point(lows=(1.0,))], FILE, None), ([], None, None)],
    ids=["ship", "do not ship", "no recommendation"],
)
def test_only_a_policy_to_ship_has_an_export_command(points, file, command):
    result = selection(*points)
    assert (checkpoint_file(result), export_command(result)) == (file, command)


@pytest.mark.parametrize(
    ("runs", "arguments"), [((), None), (("a",), "run=a"), (("a b", "c"), "-m 'run=\"a b\",c'")]
)
def test_missing_estimates_come_with_the_command_that_computes_them(runs, arguments):
    command = f"python evaluate.py {arguments} ope=fqe evaluation.episodes=0 checkpoint=all"
    assert commands(selection(without_estimates=runs)) == ([command] if runs else [])


def test_commands_can_be_pasted_whatever_a_folder_is_called():
    chosen = dataclasses.replace(candidate(), run="runs/$(rm) a")
    command = export_command(selection(point(), chosen=chosen))
    assert command == "python export.py 'run=\"runs/$(rm) a\"' checkpoint=100"
