"""Guarantee: a table has the same cells in HTML, Markdown and LaTeX, whatever they contain."""

from offline_cql.render.table import Table, to_latex, to_markdown


def test_the_last_letter_of_align_applies_to_all_further_columns():
    table = Table(title="t", columns=("a", "b", "c", "d"), rows=[], align="llr")
    assert table.alignment == "llrr"
    assert Table(title="t", columns=("a",), rows=[]).alignment[0] == "l"


def test_a_pipe_in_a_cell_does_not_end_it():
    table = Table(title="t", columns=("a", "b"), rows=[("x|y", "1")])
    assert to_markdown(table) == "## t\n\n| a | b |\n| --- | ---: |\n| x\\|y | 1 |\n"


def test_latex_escapes_what_latex_reads():
    table = Table(title="50 %", columns=("a_b", "n"), rows=[("x & {y}\\z", "1 ± 2")])
    assert to_latex(table).splitlines() == [
        r"\begin{table}",
        r"\centering",
        r"\caption{50 \%}",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"a\_b & n \\",
        r"\midrule",
        r"x \& \{y\}\textbackslash{}z & 1 $\pm$ 2 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
