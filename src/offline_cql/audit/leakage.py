"""Find observation columns that tell what is not known when the policy acts.

Five detectors: the action, the reward, the outcome of the episode, the future, an identifier. Each
compares columns with a quantity, in both directions: the action of a policy follows from its
observation, but the observation rarely follows from the action.
docs/data.md explains the measures and their limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from offline_cql.audit.block_reader import BlockReader
from offline_cql.audit.columns import find_one_hot_groups
from offline_cql.audit.distribution import Array
from offline_cql.audit.relation import (
    FEW_VALUES,
    bins,
    class_spread,
    explained,
    explained_by_bins,
    explained_by_columns,
    explained_linearly,
    ranks,
    separation,
    skill,
    two_way,
)
from offline_cql.transitions import ActionMap

MAX_ROWS = 5_000  # of the sample
MAX_ELEMENTS = 2**20  # of the sample; a wide observation has fewer rows
MIN_ROWS = 200
MIN_EPISODES = 20  # with fewer, a column tells an outcome by chance
MAX_EPISODES = 100_000  # whose first values are compared
SEED = 0x1EAC

MIN_EXPLAINED = 0.98  # of ranks; noise of 14 % of the spread leaves as much
MIN_CLASS = 0.9  # for classes: 1 - class_spread and skill
MIN_SEPARATION = 0.99
MIN_CASES = 5  # rows or episodes of the rarer value of a binary column
EQUAL_SHARE = 0.99  # of the rows in which a copy equals its original
EARLIER = 2.0  # the previous step's quantity leaves so many times as much unexplained
SAME = 1e-3  # differences of measures that mean nothing
REDUNDANT = 0.9  # explained by the other columns: the column tells nothing new
CARRIED = 0.5  # the previous step leaves at most so much of what the other columns leave
LEAD = 0.02  # of what a column leaves unexplained of its own next value
MIN_LEAD_VALUES = 10  # with fewer, columns equal another's next value by chance
EFFECT = 0.05  # of what is unexplained; less is chance
MIN_CHANGE = 1e-9  # of a column's variance, from step to step
PROFIT = 0.5  # of the reward that the change of a column explains
PADDED = 0.9  # share of the episodes whose first value is filled in
MONOTONE = 0.99
COLLISIONS = 10.0  # expected among random numbers; none is then no chance

Found = tuple[int, "Leak"]


@dataclass(frozen=True)
class Leak:
    """One observation column that tells what is not known when the policy acts.

    kind: action, reward, outcome, future or identifier. source: the quantity in words. measure: how
    well column and quantity tell each other, 0 to 1 (`relation.two_way`); of an identifier the
    share of the episodes that it tells apart. copy: equal numbers.
    """

    column: str
    kind: str
    source: str
    measure: float
    copy: bool = False


def describe_measure(leak: Leak) -> str:
    """Return the measure in words: `equal`, or a share cut to three digits, at most 1."""
    return "equal" if leak.copy else f"{int(leak.measure * 1000) / 1000:.3f}"


class Quantity(NamedTuple):
    """What columns are compared with, [n], NaN in rows that do not count; earlier: a step before.

    copies: names and values [n] that a copy may have.
    """

    kind: str
    name: str
    values: Array
    earlier: Array | None = None
    copies: Sequence[tuple[str, Array]] = ()


@dataclass(frozen=True)
class Leakage:
    """The leaks, at most one per column, and the number of rows that were compared."""

    rows: int
    leaks: list[Leak]


def find_leaks(reader: BlockReader) -> Leakage | None:
    """Compare the columns on a sample of rows drawn with a fixed seed.

    None for images, and with fewer than MIN_ROWS rows.
    """
    if reader.transitions.images is not None or len(reader.transitions) < MIN_ROWS:
        return None
    sample = _Sample(reader)
    for found in (
        _identifiers(sample),
        _episode_outcomes(sample),
        _action_categories(sample),
        _tellers(sample, _own_actions(sample)),
        _next_values(sample),
        _tellers(sample, _rewards(sample)),
        _tellers(sample, _outcomes(sample)),
        _tellers(sample, _next_actions(sample)),
    ):
        for column, leak in found:
            sample.leaks.setdefault(column, leak)
    leaks = [sample.leaks[column] for column in sorted(sample.leaks)]
    return Leakage(len(sample.rows), leaks)


class _Sample:
    """Rows of the data, and what the detectors need of them.

    rows [n], ascending; observations [n, C]; step [n]: number in the episode; inner [n]: the
    previous row belongs to the same episode. groups: one-hot groups of at least three columns;
    numeric [M]: the other columns that vary. leads: pairs of columns, the first holds the next
    value of the second. leaks: those that were found, by column.
    """

    def __init__(self, reader: BlockReader):
        self.reader, self.data = reader, reader.transitions
        count = max(MIN_ROWS, MAX_ELEMENTS // max(1, len(reader.column_indices)))
        self.rows = self.draw(len(self.data), min(count, MAX_ROWS))
        self.episode = np.searchsorted(self.data.ends, self.rows, side="right")
        self.step = self.rows - self.data.starts[self.episode]
        self.inner = self.step > 0
        self.last = self.rows + 1 == self.data.ends[self.episode]
        self.names = reader.column_names()
        self.observations = reader.observations(self.rows).astype(np.float64)
        low, high = self.observations.min(axis=0), self.observations.max(axis=0)
        self.binary = ((self.observations == 0) | (self.observations == 1)).all(axis=0)
        # A category that does not occur is a column of zeros inside its group.
        groups = find_one_hot_groups(self.observations, self.binary & (low == 0))
        self.groups = [group for group in groups if high[group].sum() > 2]
        grouped = {k for group in self.groups for k in group}
        varies = np.flatnonzero(low < high)
        self.numeric = np.array([k for k in varies if k not in grouped], int)
        self.ranks = ranks(self.observations[:, self.numeric])
        self.before = self.previous(reader.observations)
        self.after = reader.next_observations(self.rows).astype(np.float64)
        self.leads = _find_leads(self)
        self.leaks: dict[int, Leak] = {}

    @staticmethod
    def draw(size: int, count: int) -> Array:
        """Return `count` distinct numbers below `size`, ascending, or all of them."""
        generator = np.random.default_rng(SEED)
        return np.sort(generator.choice(size, min(size, count), replace=False))

    def previous(self, read: Callable[[Array], Array]) -> Array:
        """Return what `read` returns for the previous rows, [n, …]; NaN at first steps."""
        values = read(np.maximum(self.rows - 1, 0)).astype(np.float64)
        values[~self.inner] = np.nan
        return values

    def following(self, read: Callable[[Array], Array]) -> Array:
        """Return what `read` returns for the next rows, [n, …]; NaN at last steps."""
        values = read(np.minimum(self.rows + 1, len(self.data) - 1)).astype(np.float64)
        values[self.last] = np.nan
        return values

    def actions(self, rows: Array) -> Array:
        """Return the actions [n, A] of rows as they are stored; [n, 1] if discrete."""
        return self.data.rows[rows][:, self.data.columns.action].astype(np.float64)

    def encoded_actions(self) -> Array:
        """Return the actions [n, A] of the sample; discrete ones one-hot encoded."""
        actions = self.actions(self.rows)
        if not self.data.spaces.discrete:
            return actions
        return np.asarray(actions == np.unique(actions)).astype(np.float64)

    def rewards(self, rows: Array) -> Array:
        return self.data.rewards[rows].astype(np.float64)


# --- Quantities that numbers are compared with ---------------------------------------------------


def _own_actions(sample: _Sample) -> Iterator[Quantity]:
    """Yield each dimension of the action, or the discrete action."""
    values, earlier = sample.actions(sample.rows), sample.previous(sample.actions)
    environment = _environment(sample, values)
    for k, name in enumerate(_action_names(sample)):
        copies = [(name, environment[:, k])]
        if not sample.data.spaces.discrete:
            copies.append((f"{name}, scaled to [-1, 1]", values[:, k]))
        yield Quantity("action", name, values[:, k], earlier[:, k], copies)


def _rewards(sample: _Sample) -> Iterator[Quantity]:
    """Yield the reward of the row's own step and that of the next."""
    reward, name = sample.rewards(sample.rows), "the reward"
    yield Quantity("reward", name, reward, sample.previous(sample.rewards), [(name, reward)])
    yield Quantity("future", f"{name} of the next step", sample.following(sample.rewards), reward)


def _next_actions(sample: _Sample) -> Iterator[Quantity]:
    values, following = sample.actions(sample.rows), sample.following(sample.actions)
    for k, name in enumerate(_action_names(sample)):
        yield Quantity("future", f"{name} of the next step", following[:, k], values[:, k])


def _action_names(sample: _Sample) -> list[str]:
    spaces, names = sample.data.spaces, sample.data.action_names
    if spaces.discrete:
        return ["the action"]
    return [f"action {name}" for name in names or range(spaces.action_dim)]


def _environment(sample: _Sample, actions: Array) -> Array:
    spaces = sample.data.spaces
    if spaces.discrete:
        return actions
    return np.asarray(ActionMap(spaces.action_low, spaces.action_high).to_environment(actions))


def _outcomes(sample: _Sample) -> Iterator[Quantity]:
    """Yield the return to go, the steps left of episodes that terminate, and the last step."""
    data, rows = sample.data, sample.rows
    if len(data.ends) < MIN_EPISODES:
        return
    ends = data.ends[sample.episode]
    sums = np.append(0.0, np.cumsum(data.rewards, dtype=np.float64))
    yield Quantity("outcome", "the return to go", sums[ends] - sums[rows])
    terminates = data.rows[ends - 1, data.columns.terminated] != 0
    left = np.where(terminates, ends - rows, np.nan)
    yield Quantity("outcome", "the number of steps left", left)
    yield Quantity("outcome", "the end of the episode", sample.last.astype(np.float64))


# --- Numbers -------------------------------------------------------------------------------------


def _tellers(sample: _Sample, quantities: Iterator[Quantity]) -> Iterator[Found]:
    """Yield the numeric columns that tell a quantity, and that it tells."""
    for quantity in quantities:
        counts = np.isfinite(quantity.values)
        y = quantity.values[counts]
        if len(y) < MIN_ROWS or y.min() == y.max():
            continue
        for k in _candidates(sample, y, counts):
            leak = _judge(sample, k, quantity, counts)
            if leak is not None:
                yield int(sample.numeric[k]), leak


def _candidates(sample: _Sample, y: Array, counts: Array) -> Array:
    """Return the positions in `numeric` of the columns that y may tell, the clearest first."""
    values = sample.observations[np.ix_(counts, sample.numeric)]
    distinct, codes = np.unique(y, return_inverse=True)
    if len(distinct) <= FEW_VALUES:
        measures, threshold = 1 - class_spread(codes, values), MIN_CLASS
    else:
        measures, threshold = explained(bins(y), values, sample.ranks[counts]), MIN_EXPLAINED
    order = np.argsort(-measures, kind="stable")
    return np.asarray(order[measures[order] >= threshold])


def _judge(sample: _Sample, k: int, quantity: Quantity, counts: Array) -> Leak | None:
    """Return the leak if column and quantity tell each other and nothing legal explains it."""
    column = int(sample.numeric[k])
    x, y = sample.observations[counts, column], quantity.values[counts]
    measure, threshold = _relation(sample, column, x, y, quantity.kind)
    if measure < threshold:
        return None
    name = sample.names[column]
    for source, values in quantity.copies:
        if _equal_share(x, values[counts]) >= EQUAL_SHARE and not _is_earlier_copy(
            sample, column, quantity
        ):
            return Leak(name, quantity.kind, source, measure, copy=True)
    if explained_by_bins(bins(sample.step[counts]), ranks(x[:, None]))[0] >= MIN_EXPLAINED:
        return None  # a clock
    if quantity.earlier is None:
        known = _explained_by_others(sample, column, counts, measure) >= REDUNDANT
    else:
        known = _tells_earlier(sample, column, quantity, measure) or _is_state(
            sample, column, quantity, measure
        )
    return None if known else Leak(name, quantity.kind, quantity.name, measure)


def _relation(sample: _Sample, column: int, x: Array, y: Array, kind: str) -> tuple[float, float]:
    """Return the measure of a column x [n] and a quantity y [n], and its threshold."""
    few = len(np.unique(y)) <= FEW_VALUES
    if sample.binary[column] and not few:
        # A policy with two modes has a flag that its action tells, too.
        rare = min(x.sum(), len(x) - x.sum()) < MIN_CASES
        return (0.0 if kind == "action" or rare else separation(x, y)), MIN_SEPARATION
    return two_way(x, y), MIN_CLASS if few else MIN_EXPLAINED


def _equal_share(x: Array, y: Array) -> float:
    return float(np.isclose(x, y, rtol=1e-5, atol=1e-6).mean())


def _is_earlier_copy(sample: _Sample, column: int, quantity: Quantity) -> bool:
    """Return True if the column repeats the previous step's quantity at least as often."""
    x, rows = sample.observations[:, column], sample.inner
    if quantity.earlier is None or not rows.any():
        return False
    now, before = (_equal_share(x[rows], y[rows]) for y in (quantity.values, quantity.earlier))
    return before >= max(now, EQUAL_SHARE)


def _tells_earlier(sample: _Sample, column: int, quantity: Quantity, measure: float) -> bool:
    """Return True if the column tells the previous step's quantity about as well."""
    assert quantity.earlier is not None
    rows = np.isfinite(quantity.earlier) & np.isfinite(quantity.values)
    if rows.sum() < MIN_ROWS:
        return False
    x, y = sample.observations[rows, column], quantity.earlier[rows]
    earlier, _ = _relation(sample, column, x, y, quantity.kind)
    return 1 - earlier <= max(EARLIER * (1 - measure), SAME)


def _is_state(sample: _Sample, column: int, quantity: Quantity, measure: float) -> bool:
    """Return True if the column is carried over from the previous step and no other tells it.

    So is the temperature that a controller answers in proportion; an echo of the action is as
    unpredictable as the action. An action that was held tells nothing: those steps do not count.
    """
    assert quantity.earlier is not None
    rows = sample.inner & np.isfinite(quantity.values)
    if quantity.kind == "action":
        if sample.data.spaces.discrete:
            return False
        rows &= quantity.values != quantity.earlier
    if rows.sum() < MIN_ROWS:
        return False
    before = np.hstack([sample.before[rows], sample.previous(sample.actions)[rows]])
    x = sample.observations[rows, column]
    carried = explained_by_columns(before, x, sample.episode[rows])
    history = [
        k
        for k in sample.numeric
        if _squared_correlation(sample.observations[rows, k], quantity.earlier[rows]) >= 1 - SAME
    ]
    others = _explained_by_others(sample, column, rows, measure, history)
    return others < REDUNDANT and 1 - carried <= CARRIED * (1 - others)


def _explained_by_others(
    sample: _Sample, column: int, rows: Array, measure: float, history: Sequence[int] = ()
) -> float:
    """Return how well the other columns tell a column in its row.

    Without clearer leaks, without the columns of `history`, and without those that hold this
    column's previous or next value.
    """
    left_out = {column, *history} | {k for pair in sample.leads if column in pair for k in pair}
    left_out |= {
        k for k, leak in sample.leaks.items() if EARLIER * (1 - leak.measure) < 1 - measure
    }
    others = np.delete(sample.observations[rows], sorted(left_out), axis=1)
    return explained_by_columns(others, sample.observations[rows, column], sample.episode[rows])


def _squared_correlation(x: Array, y: Array) -> float:
    return float(np.corrcoef(x, y)[0, 1] ** 2) if x.std() > 0 and y.std() > 0 else 0.0


# --- Categories ----------------------------------------------------------------------------------


def _action_categories(sample: _Sample) -> Iterator[Found]:
    """Yield the one-hot groups and the flags that name the discrete action one-to-one."""
    if not sample.data.spaces.discrete:
        return
    used, codes = np.unique(sample.actions(sample.rows)[:, 0], return_inverse=True)
    for group in sample.groups:
        measure = _same_classes(sample, group, codes)
        if measure >= MIN_CLASS:
            for column in group:
                yield column, Leak(sample.names[column], "action", "the action", measure)
    flags = _action_flags(sample, codes)
    # One flag alone may be an input that decides when a policy takes this action.
    if len(used) > 2 and len(set(flags.values())) >= len(used) - 1:
        for column in flags:
            yield column, Leak(sample.names[column], "action", "the action", 1.0)


def _action_flags(sample: _Sample, codes: Array) -> dict[int, int]:
    """Return the columns that are 1 where one action is taken, and the code of this action."""
    columns = sample.numeric[sample.binary[sample.numeric]]
    return {
        int(column): action
        for column in columns
        for action, count in enumerate(np.bincount(codes))
        if count >= MIN_CASES
        and (sample.observations[:, column] == (codes == action)).mean() >= 1 - SAME
    }


def _same_classes(sample: _Sample, group: list[int], codes: Array) -> float:
    """Return how well the columns of a group and the actions' codes [n] tell each other."""
    categories = sample.observations[:, group].argmax(axis=1)
    measure = min(skill(categories, codes), skill(codes, categories))
    before = sample.previous(sample.actions)[sample.inner, 0]
    if measure < MIN_CLASS or len(before) < MIN_ROWS:
        return measure
    earlier = np.unique(before, return_inverse=True)[1]
    # Logged with its action, a group tells the previous action less.
    return measure if skill(earlier, categories[sample.inner]) < measure - SAME else 0.0


# --- Outcomes of whole episodes ------------------------------------------------------------------


def _episode_outcomes(sample: _Sample) -> Iterator[Found]:
    """Yield the columns that stay the same in an episode and tell how it ends."""
    data, inner = sample.data, sample.inner
    episodes, first = np.unique(sample.episode, return_index=True)
    if len(episodes) < MIN_EPISODES or not inner.any():
        return
    values = sample.observations[first]
    ends = data.ends[episodes]
    outcomes = {
        "the return of the episode": data.episode_returns()[episodes],
        "the last reward": sample.rewards(ends - 1),
        "the length of the episode": data.lengths[episodes].astype(np.float64),
        "whether the episode terminates": data.rows[ends - 1, data.columns.terminated],
    }
    fixed = (sample.observations[inner] == sample.before[inner]).all(axis=0)
    for column in sample.numeric[fixed[sample.numeric]]:
        x = values[:, column]
        for name, outcome in outcomes.items():
            measure = _outcome_measure(x, outcome.astype(np.float64), bool(sample.binary[column]))
            if measure >= MIN_SEPARATION:
                yield int(column), Leak(sample.names[column], "outcome", name, measure)
                break


def _outcome_measure(x: Array, outcome: Array, binary: bool) -> float:
    """Return the separation of a flag's values, else the squared rank correlation."""
    if min(len(np.unique(x)), len(np.unique(outcome))) < 2:
        return 0.0
    if binary:
        return separation(x, outcome) if min(x.sum(), (1 - x).sum()) >= MIN_CASES else 0.0
    both = ranks(np.column_stack([x, outcome]))
    return float(np.corrcoef(both.T)[0, 1] ** 2)


# --- Values of the next step ---------------------------------------------------------------------


def _find_leads(sample: _Sample) -> dict[tuple[int, int], float]:
    """Return the pairs of columns of which the first holds the next value of the second.

    Or the second the previous value of the first: the same numbers. With the share of the second's
    next value that the first explains.
    """
    rows = ~sample.last
    varied = (len(np.unique(sample.observations[:, k])) > MIN_LEAD_VALUES for k in sample.numeric)
    columns = sample.numeric[[*varied]] if len(sample.numeric) else sample.numeric
    if rows.sum() < MIN_ROWS or len(columns) < 2:
        return {}
    now, after = sample.observations[rows], sample.after[rows]
    correlations = np.corrcoef(now[:, columns].T, after[:, columns].T)
    unexplained = 1 - correlations[: len(columns), len(columns) :] ** 2  # [now, after]
    own = np.diag(unexplained)
    leads = np.argwhere((unexplained <= LEAD * own) & (own > MIN_CHANGE))
    return {(int(columns[i]), int(columns[j])): 1 - float(unexplained[i, j]) for i, j in leads}


def _next_values(sample: _Sample) -> Iterator[Found]:
    """Yield the columns that hold the next value of another one, unless that one is a lag."""
    for (column, lagged), measure in sample.leads.items():
        kind = _kind_of_lead(sample, column, lagged)
        if kind is not None:
            name, source = sample.names[column], sample.names[lagged]
            yield column, Leak(name, kind, f"{source} of the next step", measure)


def _kind_of_lead(sample: _Sample, column: int, lagged: int) -> str | None:
    """Return "future" if the step's own effect shows in the column, None if it shows a step later.

    The effect: what the action changes, or the change that the reward pays. "lead" if both or
    neither shows it. None too where the first steps of episodes are filled in, as those of lagged
    columns are.
    """
    if _is_filled_in(sample, column, lagged):
        return None
    rows = ~sample.last
    now, later = sample.observations[rows], sample.after[rows, column]
    x, action = now[:, column], sample.encoded_actions()[rows]
    reward = sample.rewards(sample.rows[rows])
    shows_now = _gain(np.delete(now, column, axis=1), action, x)
    shows_later = _gain(now, action, later)
    paid_now = _paid(action, x - now[:, lagged], reward)
    paid_later = _paid(action, later - x, reward)
    is_now = shows_now >= EFFECT or paid_now >= PROFIT
    is_later = shows_later >= EFFECT or paid_later >= PROFIT
    if is_now == is_later:
        return "lead"
    return "future" if is_now else None


def _is_filled_in(sample: _Sample, column: int, lagged: int) -> bool:
    """Return True if `lagged` starts episodes with the column's own value, or with one constant."""
    starts = sample.data.starts[sample.draw(len(sample.data.ends), MAX_ROWS)]
    first = sample.reader.observations(starts)[:, [column, lagged]].astype(np.float64)
    equal = _equal_share(first[:, 0], first[:, 1])
    constant = (first[:, 1] == np.median(first[:, 1])).mean()
    return len(starts) > 1 and max(equal, constant) >= PADDED


def _gain(known: Array, added: Array, target: Array) -> float:
    """Return the share of what `known` leaves unexplained of the target that `added` explains."""
    before = explained_linearly(known, target)
    both = explained_linearly(np.hstack([known, added]), target)
    return (both - before) / max(1 - before, SAME**2)


def _paid(action: Array, change: Array, reward: Array) -> float:
    """Return the share of the reward that a change explains beyond the action: a profit."""
    products = np.column_stack([change, action * change[:, None]])
    return _gain(action, products, reward)


# --- Identifiers ---------------------------------------------------------------------------------


def _identifiers(sample: _Sample) -> Iterator[Found]:
    """Yield the columns whose values belong to one episode each: numbers of rows or episodes."""
    data = sample.data
    if len(data.ends) < MIN_EPISODES:
        return
    change = sample.observations[sample.inner] - sample.before[sample.inner]
    rises: Array = np.all(change >= 0, axis=0) & np.any(change > 0, axis=0)
    fixed: Array = np.all(change == 0, axis=0)
    for column in sample.numeric[(rises | fixed)[sample.numeric]]:
        if rises[column]:
            share, source = _disjoint_share(sample, column), "the row number or a time"
        else:
            share, source = _distinct_share(sample, column), "the episode number"
        if share >= MONOTONE:
            yield int(column), Leak(sample.names[column], "identifier", source, share)


def _disjoint_share(sample: _Sample, column: int) -> float:
    """Return the share of the episodes whose values end before those of the next begin."""
    data, episodes = sample.data, sample.draw(len(sample.data.ends), MAX_ROWS)
    where = sample.reader.column_indices[column]
    starts, ends = data.starts[episodes], data.ends[episodes] - 1
    first, last = data.observations[starts, where], data.observations[ends, where]
    order = np.argsort(first, kind="stable")
    return float((last[order][:-1] <= first[order][1:]).mean()) if (last > first).any() else 0.0


def _distinct_share(sample: _Sample, column: int) -> float:
    """Return the share of different values among the first ones; 0 if it may be chance.

    Whole numbers without a repetition where random ones of their range would have several, or
    values that only grow over the log.
    """
    _, first = np.unique(sample.episode, return_index=True)
    if _distinct(sample.observations[first, column]) < MONOTONE:
        return 0.0
    data = sample.data
    starts = data.starts[sample.draw(len(data.ends), MAX_EPISODES)]
    values = data.observations[starts, sample.reader.column_indices[column]].astype(np.float64)
    span = values.max() - values.min() + 1
    repeats = len(values) ** 2 / (2 * span) >= COLLISIONS
    return _distinct(values) if repeats or (np.diff(values) >= 0).all() else 0.0


def _distinct(values: Array) -> float:
    """Return the share of different values; 0 if they are neither whole numbers nor ascending."""
    if not ((values == np.rint(values)).all() or (np.diff(values) >= 0).all()):
        return 0.0
    return len(np.unique(values)) / len(values)
