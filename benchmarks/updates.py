"""Measure updates per second on this machine, beside a baseline loop and d3rlpy; `make bench`.

Every implementation is a process; they run alternately, in rounds, and medians and ratios are
printed. --scaling varies one size at a time, and --plot draws the curves; --profile prints where
the time of an update goes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from implementations import IMPLEMENTATIONS, Sizes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch.profiler import ProfilerActivity, profile

from offline_cql.commands.fit import keep_freed_memory
from offline_cql.render.table import Table, to_markdown
from offline_cql.runs.provenance import processor

HERE = Path(__file__).parent
OURS = ("float32", "float32, Lightning", "bf16", "bf16, Lightning")
SCALES: dict[str, list[int]] = {
    "batch": [64, 128, 256, 512],
    "width": [64, 128, 256, 512],
    "n_action_samples": [1, 4, 10, 20],
    "critics": [1, 2, 4, 8],
    "transitions": [10_000, 100_000, 1_000_000],
}
RATES = (2, 5, 10, 20, 50)  # ticks of the plot, updates/s
SCALED = {"baseline": "#6b6f76", "float32": "#2b4a6b", "bf16": "#d98200"}  # name: color


class Process:
    """A process that runs one implementation."""

    def __init__(self, python: str, name: str, sizes: Sizes) -> None:
        command = [python, str(HERE / "implementations.py"), name, json.dumps(asdict(sizes))]
        self.name = name
        self.process = subprocess.Popen(
            command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def rate(self, updates: int) -> float:
        """Make this many updates; return updates per second."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{updates}\n")
        self.process.stdin.flush()
        if not (answer := self.process.stdout.readline()):
            raise SystemExit(f"{self.name} failed")
        return updates / float(json.loads(answer))


@contextmanager
def processes_of(names: Sequence[str], sizes: Sizes, d3rlpy: str | None) -> Iterator[list[Process]]:
    with ExitStack() as stack:
        processes = []
        for name in names:
            python = d3rlpy if name == "d3rlpy" else sys.executable
            assert python is not None
            processes.append(Process(python, name, sizes))
            stack.callback(processes[-1].process.kill)
        yield processes


def medians(
    names: Sequence[str], sizes: Sizes, *, d3rlpy: str | None, repeats: int, updates: int
) -> dict[str, float]:
    """Return updates per second of each implementation, the median over its rounds."""
    rates: dict[str, list[float]] = {name: [] for name in names}
    with processes_of(names, sizes, d3rlpy) as processes:
        for number in range(repeats):
            for process in processes:
                show(f"{sizes.task}: round {number + 1} of {repeats}, {process.name}")
                rates[process.name].append(process.rate(updates))
    show("")
    return {name: statistics.median(values) for name, values in rates.items()}


def show(text: str) -> None:
    """Replace the last line on the terminal."""
    print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def peak(dtype: torch.dtype, size: int = 2048, repeats: int = 20) -> float:
    """Return the fastest measured rate of a matrix product, FLOP/s."""
    first, second = (torch.randn(size, size).to(dtype) for _ in range(2))
    out, rates = torch.empty(size, size, dtype=dtype), []
    for _ in range(repeats):
        start = time.perf_counter()
        torch.mm(first, second, out=out)
        rates.append(2 * size**3 / (time.perf_counter() - start))
    return max(rates)


def profile_table(updates: int = 10) -> Table:
    """Return milliseconds per update by kind of operation, the profiler's own cost included."""
    kinds = ("matrix products", "casts and copies", "ReLU", "sums and biases", "all else")
    milliseconds: dict[str, dict[str, float]] = {}
    for name in ("float32", "bf16"):
        run = IMPLEMENTATIONS[name](Sizes())
        run(5)
        with profile(activities=[ProfilerActivity.CPU]) as record:
            run(updates)
        times = dict.fromkeys(kinds, 0.0)
        for event in record.key_averages():
            times[kind_of(event.key)] += event.self_cpu_time_total / 1e3 / updates
        milliseconds[name] = times
    rows = [(kind, *(f"{times[kind]:.1f}" for times in milliseconds.values())) for kind in kinds]
    return Table(title="Milliseconds per update", columns=("operations", *milliseconds), rows=rows)


def kind_of(operation: str) -> str:
    """Return the kind of one of torch's operations."""
    name = operation.removeprefix("aten::").rstrip("_")
    if name in ("mm", "addmm", "bmm", "baddbmm", "mkldnn::_linear_pointwise"):
        return "matrix products"
    if name in ("copy", "to", "_to_copy"):
        return "casts and copies"
    if name in ("relu", "clamp_min", "threshold_backward"):
        return "ReLU"
    return "sums and biases" if name in ("add", "sum", "mul") else "all else"


def hopper(arguments: argparse.Namespace) -> Table:
    """Measure all implementations at Hopper's size."""
    sizes = Sizes()
    names = ["baseline", *(["d3rlpy"] if arguments.d3rlpy else []), *OURS]
    peaks = {"float32": peak(torch.float32), "bf16": peak(torch.bfloat16)}
    rates = medians(
        names,
        sizes,
        d3rlpy=arguments.d3rlpy,
        repeats=arguments.repeats,
        updates=arguments.updates,
    )
    rows = []
    for name, rate in rates.items():
        kind = name.partition(",")[0]
        share = f"{rate * sizes.flops / peaks[kind]:.0%}" if kind in peaks else "–"
        others = (f"{rate / rates[o]:.2f}" if o in rates else "–" for o in ("baseline", "d3rlpy"))
        rows.append((name, f"{rate:.1f}", f"{1000 / rate:.1f}", *others, share))
    seen = ", ".join(f"{name} {value / 1e9:.0f}" for name, value in peaks.items())
    return Table(
        title=f"{sizes.flops / 1e9:.1f} GFLOP per update; matrix products' peak, GFLOP/s: {seen}",
        columns=("implementation", "updates/s", "ms", "/ baseline", "/ d3rlpy", "of the peak"),
        rows=rows,
    )


def variants(arguments: argparse.Namespace) -> Table:
    """Compare cql=default, after its switch and with its own action samples, with cql=plain."""
    rows = []
    for precision in ("float32", "bf16"):
        for layers in (3, 2):
            rates = medians(
                [precision, f"{precision}, cql=default"],
                Sizes(layers=layers),
                d3rlpy=None,
                repeats=arguments.repeats,
                updates=arguments.updates,
            )
            plain, default = (1000 / rate for rate in rates.values())
            cells = (f"{plain:.1f}", f"{default:.1f}", f"{default / plain:.2f}")
            rows.append((precision, f"{layers} × {Sizes().width}", *cells))
    return Table(
        title="Milliseconds per update of Hopper's size",
        columns=("precision", "hidden layers", "cql=plain", "cql=default", "ratio"),
        rows=rows,
    )


def small(arguments: argparse.Namespace) -> Table:
    """Measure Lightning's overhead with small networks."""
    rows = []
    for task in ("pendulum", "cartpole"):
        sizes = Sizes(task=task, width=64, layers=2)
        rates = medians(
            ["float32", "float32, Lightning"],
            sizes,
            d3rlpy=None,
            repeats=arguments.repeats,
            updates=10 * arguments.updates,
        )
        bare, lightning = rates.values()
        rows.append((task, f"{bare:.0f}", f"{lightning:.0f}", f"{lightning / bare:.2f}"))
    columns = ("task", "bare, updates/s", "Lightning", "Lightning / bare")
    return Table(title="Two layers of 64", columns=columns, rows=rows)


def on_a_gpu(arguments: argparse.Namespace) -> Table:
    """Measure training on a GPU at Hopper's size."""
    names = [name for name in IMPLEMENTATIONS if name.startswith("GPU")]
    sizes, updates = Sizes(), 100 * arguments.updates
    rates = medians(names, sizes, d3rlpy=None, repeats=arguments.repeats, updates=updates)
    rows = [
        (name, f"{rate:,.0f}", f"{1000 / rate:.2f}", f"{rate * sizes.flops / 1e12:.1f}")
        for name, rate in rates.items()
    ]
    columns = ("implementation", "updates/s", "ms", "TFLOP/s")
    return Table(title=torch.cuda.get_device_name(), columns=columns, rows=rows)


def scaling() -> dict[str, dict[int, dict[str, float]]]:
    """Return updates per second while one size varies: size -> value -> implementation -> rate."""
    rates: dict[str, dict[int, dict[str, float]]] = {}
    for name, values in SCALES.items():
        for value in values:
            # The baseline always has two critics.
            shown = [n for n in SCALED if name != "critics" or n != "baseline"]
            show(f"{name}={value}")
            rates.setdefault(name, {})[value] = medians(
                shown, Sizes(**{name: value}), d3rlpy=None, repeats=3, updates=10
            )
    return rates


def scaling_table(by_size: Mapping[str, Mapping[int, Mapping[str, float]]]) -> Table:
    rows = [
        (f"{name} = {value:,}", *(f"{rates[n]:.1f}" if n in rates else "–" for n in SCALED))
        for name, values in by_size.items()
        for value, rates in values.items()
    ]
    return Table(title="Updates/s by size", columns=("size", *SCALED), rows=rows)


def draw(by_size: Mapping[str, Mapping[int, Mapping[str, float]]], path: Path) -> None:
    figure = Figure(figsize=(11, 2.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(by_size), sharey=True)
    for axes, (name, values) in zip(panels, by_size.items(), strict=True):
        for implementation, color in SCALED.items():
            points = [
                (value, rates[implementation])
                for value, rates in values.items()
                if implementation in rates
            ]
            if points:
                axes.loglog(*zip(*points, strict=True), ".-", color=color, label=implementation)
        axes.set_xlabel(name)
        axes.set_xticks(list(values), [f"{value:,}" for value in values], fontsize=7)
        axes.set_yticks(RATES, [str(rate) for rate in RATES])
        axes.minorticks_off()
        axes.grid(color="#e3e6ea")
    figure.axes[0].set_ylabel("updates/s")
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--d3rlpy", help="a Python with d3rlpy; `make bench` creates one")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--updates", type=int, default=20, help="updates per round")
    parser.add_argument("--scaling", action="store_true", help="also vary one size at a time")
    parser.add_argument("--profile", action="store_true", help="only print where the time goes")
    parser.add_argument("--plot", type=Path, help="a PNG of the curves of --scaling")
    arguments = parser.parse_args()
    print(f"{processor()}, {os.cpu_count()} cores, torch {torch.__version__}\n")
    if arguments.profile:
        keep_freed_memory()
        print(to_markdown(profile_table()))
        return
    print(to_markdown(hopper(arguments)))
    print(to_markdown(variants(arguments)))
    print(to_markdown(small(arguments)))
    if torch.cuda.is_available():
        print(to_markdown(on_a_gpu(arguments)))
    if arguments.scaling:
        by_size = scaling()
        print(to_markdown(scaling_table(by_size)))
        if arguments.plot is not None:
            draw(by_size, arguments.plot)


if __name__ == "__main__":
    main()
