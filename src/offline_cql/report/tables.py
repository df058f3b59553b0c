"""The tables of a report: what stands in them, and how they are written as Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from offline_cql.report.aggregate import Aggregate
from offline_cql.report.messages import figure
from offline_cql.report.model_selection import Pair, Selection
from offline_cql.report.run import LeftOut, Run, differences

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "·": r"$\cdot$",
    "±": r"$\pm$",
    "α": r"$\alpha$",
    "–": "--",
    "−": "--",
}


@dataclass(frozen=True, kw_only=True)
class Table:
    """words: how many columns from the left hold words, the rest numbers."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    words: int = 1


def choices(selections: Mapping[str, Selection]) -> Table:
    """One line a grid: what is recommended."""
    rows = []
    for name, each in selections.items():
        policy, behavior = each.policy, each.behavior
        if policy is None or behavior is None:
            rows.append((name, "no recommendation", *["–"] * 5))
            continue
        found = policy.estimate
        interval = f"{figure(found.value)} [{figure(found.low)}, {figure(found.high)}]"
        rows.append(
            (
                *(name, "ship" if each.ship else "do not ship", f"{policy.alpha:g}"),
                *(f"{policy.updates:,}", str(policy.seed), interval, figure(behavior.value)),
            )
        )
    columns = ("task", "verdict", "alpha", "updates", "seed", "estimate", "data's policy")
    return Table(title="Recommendation", columns=columns, rows=rows, words=2)


def judged(selection: Selection, name: str) -> Table:
    """One line for each alpha and checkpoint of a grid: the figures of the rule."""
    columns = ("alpha", "updates", "runs", "estimate", "lower bound", "above data", "judged")
    rows = [
        (
            *(f"{pair.alpha:g}", f"{pair.updates:,}", str(len(pair.policies))),
            *(figure(pair.value), figure(pair.low), _above(pair), _judgement(selection, pair)),
        )
        for pair in selection.pairs
    ]
    return Table(title=f"{name}: alphas and checkpoints", columns=columns, rows=rows, words=0)


def _above(pair: Pair) -> str:
    known = [p.above_best for p in pair.policies if p.above_best is not None]
    return f"{max(known):.1%}" if known else "–"


def _judgement(selection: Selection, pair: Pair) -> str:
    if pair == selection.pair:
        return "chosen"
    if pair.too_small:
        return f"too small: {pair.too_small[0]}"
    if pair.incomplete:
        return pair.incomplete
    return "close to cloning" if pair.alpha in selection.too_large else ""


def scores(found: Sequence[Aggregate]) -> Table:
    """Normalized scores of the last policies: a column a task, then over all of them."""
    tasks = sorted({name for each in found for name in each.scores})
    rows = []
    for each in found:
        cells = [_spread(each.scores.get(name)) for name in tasks]
        rows.append((each.method, *cells, _interval(each.mean), _interval(each.iqm)))
    columns = ("method", *tasks, "mean [95 %]", "IQM [95 %]")
    return Table(title="Normalized scores of the last policies", columns=columns, rows=rows)


def _spread(scores: object) -> str:
    values = [] if scores is None else list(scores)  # type: ignore[call-overload]
    if not values:
        return "–"
    middle = sum(values) / len(values)
    if len(values) == 1:
        return f"{middle:.1f}"
    spread = (sum((v - middle) ** 2 for v in values) / (len(values) - 1)) ** 0.5
    return f"{middle:.1f} ± {spread:.1f}"


def _interval(found: tuple[float, float, float] | None) -> str:
    return "–" if found is None else f"{found[0]:.1f} [{found[1]:.1f}, {found[2]:.1f}]"


def own_settings(found: Sequence[Run]) -> dict[str, str]:
    """By run name: only those that not all runs of its task share, as they are typed."""
    own = differences(found)
    return {name: " ".join(f"{k}={v}" for k, v in each.items()) for name, each in own.items()}


def runs(found: Sequence[Run], names: Mapping[str, str], settings: Mapping[str, str]) -> Table:
    """One line a run. names, settings: what the cells say, by run name."""
    rows = []
    for run in found:
        last = run.offline.estimates.get(run.updates)
        rows.append(
            (
                *(names[run.name], run.task_name, settings[run.name], run.status),
                *(str(run.seed), f"{run.updates:,}", figure(run.simulated.return_mean)),
                figure(run.simulated.normalized_score),
                "–"
                if last is None
                else f"{figure(last.value)} [{figure(last.low)}, {figure(last.high)}]",
            )
        )
    columns = ("run", "task", "settings", "status", "seed", "updates", "return", "score")
    return Table(title="Runs", columns=(*columns, "estimate, last"), rows=rows, words=4)


def left_out(found: Sequence[LeftOut]) -> Table:
    rows = [(each.name, each.reason) for each in found]
    return Table(title="Left out", columns=("folder", "reason"), rows=rows, words=2)


def markdown(table: Table) -> str:
    """A heading and a pipe table."""
    align = ["---" if k < table.words else "---:" for k in range(len(table.columns))]
    lines = [table.columns, tuple(align), *table.rows]
    body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines]
    return f"## {table.title}\n\n" + "\n".join(body) + "\n"


def latex(table: Table) -> str:
    """A table of booktabs."""
    align = "".join("l" if k < table.words else "r" for k in range(len(table.columns)))
    rows = [" & ".join(map(_escaped, row)) + r" \\" for row in table.rows]
    head = " & ".join(map(_escaped, table.columns)) + r" \\"
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escaped(table.title)}}}",
            rf"\begin{{tabular}}{{{align}}}",
            *(r"\toprule", head, r"\midrule", *rows, r"\bottomrule"),
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _escaped(text: str) -> str:
    return re.sub("|".join(map(re.escape, LATEX)), lambda match: LATEX[match[0]], text)
