"""Train the variants of stages of the learning study; one CSV row per finished run.

`python benchmarks/learning.py STAGE …` reads benchmarks/learning.yaml, trains what is missing in
docs/studies/learning/STAGE.csv through train.py, several runs at a time, and prints the table.
It can be stopped and started again, on another machine too: rows are never made twice, and a run
that was stopped continues. Rows of one fingerprint of the code that learns are compared.
A row stands for its variant as it was then: where conf/ changes a variant, rename its old rows.
Recordings of another kind of CPU can differ (docs/results.md); then "the data" has two numbers.
"""

from __future__ import annotations

import argparse
import ast
import csv
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from offline_cql.commands.load_run import load_config
from offline_cql.io import read_json
from offline_cql.render.table import Table, to_markdown
from offline_cql.report.statistics import LEVEL, interval, iqm, mean, resample
from offline_cql.runs.folder import CONFIG, EVALUATION, RESULT, saved_updates
from offline_cql.simulation.evaluation import normalized_score

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "src" / "offline_cql"
LEARNS = ("losses.py", "transitions.py", "random_streams.py", "agents", "data", "networks")
FAST = ("cpu_mlp.py", "cuda_graph.py")  # tests hold these equal to the plain code
# Codes whose runs left the weights of a later one, bit for bit (pendulum and cartpole after 300
# updates; hopper in bf16 with the default and the old default after 200): compared as that one.
EQUAL_CODES = {
    "595fd5d7b837": "05485a517f7b",  # before divergence was checked at every update
    "c00eab02ed4f": "05485a517f7b",  # before flags were left as they are: these tasks have none
    "c8dfb941f96d": "05485a517f7b",  # after dataset.time_unit, which these tasks do not set
    "7fa4983be46e": "05485a517f7b",  # after dataset.td_lambda, which is null
    "aa21ece51d1c": "05485a517f7b",  # after cql.bc_saturated_action: only "new" sets it
    "f306fb89bf0f": "05485a517f7b",  # after bc.saturated_action instead of bc.action_clip
    "b2d7cb94c87b": "05485a517f7b",  # after cql.return_weighted: only weighted_calibrated sets it
    "b49d7bc7ca43": "05485a517f7b",  # clips cloned actions too: "unclipped" and "old" do not clip
}
COLORS = ("#0b6e4f", "#c44536", "#355070", "#e09f3e", "#6d597a")
COLUMNS = (
    *("stage", "variant", "task", "seed", "config", "code", "device", "behavior", "minutes"),
    *("updates_per_second", "switch", "scores"),
)
# Settings that change neither weights nor scores.
NEUTRAL = ("run_dir", "resume", "logger", "hardware", "seed")


@dataclass(frozen=True)
class Job:
    """One run of a stage: a variant on a task (env/quality) with a seed."""

    stage: str
    variant: str
    task: str
    seed: int
    overrides: tuple[str, ...]

    @property
    def folder(self) -> Path:
        task = self.task.replace("/", "-")
        return ROOT / "outputs" / "learning" / self.stage / self.variant / f"{task}-{self.seed}"

    def config(self) -> dict[str, Any]:
        """Return the resolved settings that decide the result."""
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            composed = compose("train", [*self.overrides, "run_dir=none"])
        return decisive(composed)

    def saved_updates(self) -> int:
        """Return the updates that a stopped run of these settings has saved, or 0."""
        saved = saved_updates(self.folder)
        if not saved:
            return 0
        settings = self.config()
        settings["precision"] = str(settings["precision"])  # as a run records it
        return max(saved) if decisive(OmegaConf.load(self.folder / CONFIG)) == settings else 0


def decisive(config: Any) -> dict[str, Any]:
    """Return the settings of a run that decide its weights and scores."""
    settings = OmegaConf.to_container(config, resolve=True)
    assert isinstance(settings, dict)
    precision = settings["hardware"]["precision"]
    return {k: v for k, v in settings.items() if k not in NEUTRAL} | {"precision": precision}


def jobs_of(stage: str) -> list[Job]:
    """Return the runs of a stage, in the order in which they are trained."""
    plan = OmegaConf.to_container(OmegaConf.load(Path(__file__).with_suffix(".yaml")))
    assert isinstance(plan, dict)
    if stage not in plan:
        raise SystemExit(f"stage {stage!r} must be one of {', '.join(plan)}")
    settings = plan[stage]
    jobs = []
    for seed in settings["seeds"]:
        for variant, changes in settings["variants"].items():
            for task in settings["tasks"]:
                env, _, quality = task.partition("/")
                data = [f"env={env}", *([f"dataset.quality={quality}"] if quality else [])]
                own = [o.replace("ENV", env) for o in flatten([settings["common"], changes])]
                jobs.append(Job(stage, variant, task, seed, (*data, *own, f"seed={seed}")))
    return jobs


def flatten(changes: Sequence[Any]) -> Iterator[str]:
    """Return the overrides of a variant, which may begin with those of another one (*center)."""
    for change in changes:
        if isinstance(change, str):
            yield change
        else:
            yield from flatten(change)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def fingerprint() -> str:
    """Return the identity of the code that decides what is learned, whatever its comments say."""
    files: list[Path] = []
    for name in LEARNS:
        path = SOURCES / name
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return sha("".join(statements(path) for path in files if path.name not in FAST).encode())


def statements(path: Path) -> str:
    """Return a module's code without comments, docstrings and layout."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        match getattr(node, "body", None):
            case [ast.Expr(value=ast.Constant()), *rest]:
                node.body = rest  # type: ignore[attr-defined]
    return ast.unparse(tree)


def read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_results(path: Path) -> list[dict[str, str]]:
    """Return the finished runs of a stage, each under the code that it is compared as."""
    return [row | {"code": compared_as(row["code"])} for row in read_rows(path)]


def compared_as(code: str) -> str:
    return EQUAL_CODES.get(code, code)


def missing(jobs: Sequence[Job], path: Path) -> list[Job]:
    """Return the runs that have no row of the present code."""
    code = compared_as(fingerprint())
    done = {
        (row["variant"], row["task"], row["seed"])
        for row in read_results(path)
        if row["code"] == code
    }
    return [job for job in jobs if (job.variant, job.task, str(job.seed)) not in done]


def row_of(job: Job, code: str, device: str, first: int) -> dict[str, Any]:
    """Return the row of a finished run, scores normalized: `update:score` per checkpoint.

    `wall_seconds` are those of the last process; one that continued the run at update `first`
    stands for all updates.
    """
    result, config = read_json(job.folder / RESULT), load_config(job.folder)
    returns: dict[int, list[float]] = {}
    for row in read_rows(job.folder / EVALUATION):
        returns.setdefault(int(row["update"]), []).append(float(row["return"]))
    scores = {u: normalized_score(float(np.mean(r)), config.env) for u, r in returns.items()}
    switch = (config.cql.bc_updates or "") if config.algorithm == "cql" else ""
    of_process = config.updates - first or config.updates  # a finished run keeps its result
    minutes = result["wall_seconds"] / 60 * config.updates / of_process
    return {
        **{"stage": job.stage, "variant": job.variant, "task": job.task, "seed": job.seed},
        "config": sha(json.dumps(job.config(), sort_keys=True).encode()),
        **{"code": code, "device": device, "switch": switch},
        "behavior": f"{normalized_score(result['behavior_return'], config.env):.2f}",
        "minutes": f"{minutes:.2f}",
        "updates_per_second": result["updates_per_second"],
        "scores": format_scores(scores),
    }


def format_scores(scores: Mapping[int, float]) -> str:
    """Return `update:score` per checkpoint; `curve` reads it."""
    return " ".join(f"{update}:{score:.2f}" for update, score in scores.items())


def command(job: Job, hardware: Sequence[str], first: int) -> list[str]:
    """Return the command that starts a run, or continues one that was stopped at update `first`."""
    if first:
        return [sys.executable, "train.py", f"resume={job.folder}"]
    shutil.rmtree(job.folder, ignore_errors=True)
    settings = [*job.overrides, *hardware, "logger=csv", f"run_dir={job.folder}"]
    return [sys.executable, "train.py", *settings]


def train(jobs: Sequence[Job], path: Path, slots: Mapping[str, int]) -> None:
    """Train the runs, so many at a time per kind of hardware, and append their rows."""
    waiting, running = deque(jobs), {}
    code, started, finished = fingerprint(), time.time(), 0
    signal.signal(signal.SIGTERM, stop)
    try:
        while waiting or running:
            for hardware, count in slots.items():
                used = sum(kind == hardware for _, kind, _ in running.values())
                for _ in range(min(count - used, len(waiting))):
                    job = waiting.popleft()
                    first = job.saved_updates()
                    running[start(job, hardware, first)] = (job, hardware, first)
            time.sleep(0.5)
            for process in [p for p in running if p.poll() is not None]:
                job, hardware, first = running.pop(process)
                finished += 1
                name = f"{job.variant} {job.task} seed {job.seed}"
                if process.returncode:
                    print(f"FAILED {name}: see {job.folder}.log", flush=True)
                    continue
                device = platform.machine() if hardware == "cpu" else gpu_name()
                row = row_of(job, code, device, first)
                append(path, row)
                minutes = (time.time() - started) / 60
                print(
                    f"{finished}/{len(jobs)} {minutes:.1f} min {name}: {row['scores']}", flush=True
                )
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def stop(*_: object) -> None:
    """End the study at the first signal; the runs save their state meanwhile."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def start(job: Job, hardware: str, first: int) -> subprocess.Popen[bytes]:
    """Start a run on one core, or on the GPU with a captured update."""
    settings = ["hardware=cpu"] if hardware == "cpu" else ["hardware=gpu", "hardware.capture=true"]
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    with job.folder.with_name(job.folder.name + ".log").open("ab") as log:
        return subprocess.Popen(
            command(job, settings, first),
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
        )


def gpu_name() -> str:
    import torch

    return torch.cuda.get_device_name().replace(" ", "-")


def append(path: Path, row: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


# --- The table -----------------------------------------------------------------------------------


def curve(row: Mapping[str, str]) -> dict[int, float]:
    """Return the normalized score per checkpoint."""
    pairs = (pair.split(":") for pair in row["scores"].split())
    return {int(update): float(score) for update, score in pairs}


def data_score(rows: Sequence[Mapping[str, str]]) -> str:
    """Return the score of a task's data; several where rows are of different recordings."""
    return "/".join(f"{float(score):.0f}" for score in dict.fromkeys(r["behavior"] for r in rows))


def lines(rows: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, ...]]:
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    data = (data_score([row for row in rows if row["task"] == task]) for task in tasks)
    yield ("the data", "", "", "", "", "", *data)
    for variant in dict.fromkeys(row["variant"] for row in rows):
        of_task = {
            task: [r for r in rows if (r["variant"], r["task"]) == (variant, task)]
            for task in tasks
        }
        curves = {task: list(map(curve, runs)) for task, runs in of_task.items() if runs}
        finals = {task: [c[max(c)] for c in runs] for task, runs in curves.items()}
        cells = (f"{np.mean(finals[task]):.0f}" if task in finals else "–" for task in tasks)
        kept = [
            smallest_share(runs, int(of_task[task][0]["switch"]))
            for task, runs in curves.items()
            if of_task[task][0]["switch"]
        ]
        count = str(sum(map(len, finals.values())))
        strata = [np.array(scores) for scores in finals.values()]
        point, low, high = interval(strata, iqm, resamples=2_000, seed=0)
        worst = f"{min(kept):.2f}" if kept else "–"
        steady = np.median([last_half(c) for runs in curves.values() for c in runs])
        scores = f"{point:.1f} ({low:.1f} to {high:.1f})"
        two = np.mean([np.mean([last_two(c) for c in runs]) for runs in curves.values()])
        yield (variant, scores, f"{two:.1f}", worst, f"{steady:.2f}", count, *cells)


def smallest_share(curves: Sequence[Mapping[int, float]], switch: int) -> float:
    """Return the lowest score after the switch over the score at the switch, means over seeds."""
    worst = [min(score for update, score in c.items() if update > switch) for c in curves]
    return float(np.mean(worst) / np.mean([c[switch] for c in curves]))


def last_two(curve: Mapping[int, float]) -> float:
    """Return the mean score of the last two evaluations, which most of the study's rules take."""
    return float(np.mean([curve[update] for update in sorted(curve)[-2:]]))


def last_half(curve: Mapping[int, float]) -> float:
    """Return the worst score of the last half of a run over the best one there."""
    scores = [score for update, score in curve.items() if update > max(curve) / 2]
    return min(scores) / max(scores)


def summary(rows: Sequence[Mapping[str, str]], code: str) -> Table:
    """Return the normalized scores of a code's rows at the last checkpoint, means over seeds.

    `last two`: the mean over tasks of the last two evaluations.
    """
    tasks = dict.fromkeys(re.sub(r"medium-(\w)\w+", r"m-\1", row["task"]) for row in rows)
    columns = ("variant", "IQM", "last two", "worst / switch", "last half", "runs", *tasks)
    return Table(title=f"Normalized score, code {code}", columns=columns, rows=list(lines(rows)))


def by_task(rows: Sequence[Mapping[str, str]], code: str) -> Table:
    """Return, per task and variant, what a code's runs give and take."""
    runs: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for row in rows:
        runs.setdefault((row["task"], row["variant"]), []).append(row)
    lines = []
    for (task, variant), of_both in sorted(runs.items()):
        curves = [curve(row) for row in of_both]
        finals = np.array([c[max(c)] for c in curves])
        center, low, high = interval([finals], mean, resamples=2_000, seed=0)
        minutes = np.median([float(row["minutes"]) for row in of_both])
        switch = of_both[0]["switch"]
        lines.append(
            (
                *(task, variant, data_score(of_both)),
                f"{center:.0f} ({low:.0f} to {high:.0f})",
                f"{finals.min():.0f} to {finals.max():.0f}",
                f"{smallest_share(curves, int(switch)):.2f}" if switch else "–",
                *(f"{max(curves[0]):,}", f"{minutes:.1f}", str(len(of_both))),
            )
        )
    columns = (
        *("task", "variant", "the data", "score (95% interval)", "smallest to largest"),
        *("worst / switch", "updates", "minutes", "runs"),
    )
    title = f"Normalized score at the last checkpoint, code {code}"
    return Table(title=title, columns=columns, rows=lines, align="llr")


def against(rows: Sequence[Mapping[str, str]], variant: str) -> Table:
    """Return how far a variant's interquartile mean is above those of the others, and two ceilings.

    The ceilings choose with the scores themselves: the best variant of each task and the best
    checkpoint of each run of `variant`. Intervals: stratified bootstrap, variants independent.
    """
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    curves = {
        name: [[curve(r) for r in rows if (r["variant"], r["task"]) == (name, t)] for t in tasks]
        for name in dict.fromkeys(row["variant"] for row in rows)
    }
    scores = {
        name: [np.array([c[max(c)] for c in runs]) for runs in of_task]
        for name, of_task in curves.items()
        if all(of_task)  # a run of each task has finished
    }
    if variant not in scores:
        raise SystemExit(f"--against {variant} must be one of {', '.join(scores)}")
    of_each_task = zip(*scores.values(), strict=True)
    scores |= {
        "best variant of each task": [max(runs, key=np.mean) for runs in of_each_task],
        f"best checkpoints of {variant}": [
            np.array([max(c.values()) for c in runs]) for runs in curves[variant]
        ],
    }
    own = scores.pop(variant)
    own_iqm = float(iqm(np.concatenate(own)))
    own_samples = iqm(resample(own, 2_000, np.random.default_rng(0)))
    lines = []
    for name, other in scores.items():
        other_iqm = float(iqm(np.concatenate(other)))
        other_samples = iqm(resample(other, 2_000, np.random.default_rng(1)))
        low, high = np.quantile(own_samples - other_samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        gains = [float(a.mean() - b.mean()) for a, b in zip(own, other, strict=True)]
        lowest = f"{min(gains):.1f} ({tasks[int(np.argmin(gains))]})"
        difference = f"{own_iqm - other_iqm:.1f} ({low:.1f} to {high:.1f})"
        lines.append((name, f"{other_iqm:.1f}", difference, lowest))
    columns = ("variant", "IQM", f"{variant} minus this (95% interval)", "lowest of a task")
    title = f"Interquartile mean of {variant}: {own_iqm:.1f}"
    return Table(title=title, columns=columns, rows=lines)


def plot(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Draw the scores over minutes, one panel per task: seeds thin, their mean thick."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure = Figure(figsize=(5.2 * len(tasks), 3.6), layout="constrained")
    panels = figure.subplots(1, len(tasks), squeeze=False)[0]
    for axes, task in zip(panels, tasks, strict=True):
        of_task = [row for row in rows if row["task"] == task]
        axes.axhline(float(of_task[0]["behavior"]), color="0.4", linestyle="--", label="data")
        variants = dict.fromkeys(row["variant"] for row in rows)
        for variant, color in zip(variants, COLORS, strict=False):
            curves = [curve(row) for row in of_task if row["variant"] == variant]
            minutes = [float(row["minutes"]) for row in of_task if row["variant"] == variant]
            if not curves:
                continue
            updates = np.array(sorted(curves[0]))
            scores = np.array([[values[u] for u in updates] for values in curves])
            x = updates / updates.max() * np.mean(minutes)
            axes.plot(x, scores.T, color=color, alpha=0.3, linewidth=1)
            axes.plot(x, scores.mean(axis=0), color=color, linewidth=2, label=variant)
        axes.set(title=task, xlabel="minutes on one core", ylabel="normalized score")
        axes.legend(fontsize=8)
    FigureCanvasAgg(figure).print_png(path)
    print(path)


def plot_scores(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Draw every run's last score per task, with a line at the mean of a variant's seeds."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots()
    for x, task in enumerate(tasks):
        of_task = [row for row in rows if row["task"] == task]
        behavior = float(of_task[0]["behavior"])
        label = "data" if x == 0 else None
        axes.hlines(behavior, x - 0.4, x + 0.4, color="0.4", linestyle="--", label=label)
        for number, (variant, color) in enumerate(zip(variants, COLORS, strict=False)):
            curves = [curve(row) for row in of_task if row["variant"] == variant]
            scores = [c[max(c)] for c in curves]
            center = x + 0.18 * (number - (len(variants) - 1) / 2)
            label = variant if x == 0 else None
            axes.scatter([center] * len(scores), scores, s=14, color=color, alpha=0.6, label=label)
            axes.hlines(np.mean(scores), center - 0.07, center + 0.07, color=color, linewidth=2.5)
    axes.set_xticks(range(len(tasks)), [task.replace("/", "\n") for task in tasks], fontsize=8)
    axes.set(ylabel="normalized score, last checkpoint", ylim=(0, 100))
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    axes.legend(ncols=len(variants) + 1, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1))
    FigureCanvasAgg(figure).print_png(path)
    print(path)


def wanted(arguments: argparse.Namespace, variant: str, seed: int) -> bool:
    """Return whether `--variants` and `--seeds`, where they are given, name a run."""
    variants, seeds = arguments.variants or [variant], arguments.seeds or [seed]
    return variant in variants and seed in seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="+", metavar="STAGE", help="of benchmarks/learning.yaml")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one core each")
    parser.add_argument("--gpu-jobs", type=int, default=0, help="further runs at a time on the GPU")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "studies" / "learning")
    parser.add_argument("--table", action="store_true", help="only print the table")
    parser.add_argument(
        "--by-task", action="store_true", help="only print a row per task and variant, with minutes"
    )
    parser.add_argument(
        "--against", metavar="VARIANT", help="only print how far it is above the others"
    )
    parser.add_argument(
        "--plot", type=Path, help="draw scores over minutes, the newest code's rows"
    )
    parser.add_argument(
        "--all-codes",
        action="store_true",
        help="also print the rows of older codes, each by itself",
    )
    parser.add_argument("--plot-scores", type=Path, help="draw the last scores, the same rows")
    parser.add_argument("--variants", nargs="+", help="only train and show these")
    parser.add_argument("--seeds", nargs="+", type=int, help="only train and show these")
    arguments = parser.parse_args()
    rows = []
    for stage in arguments.stages:
        path, jobs = arguments.results / f"{stage}.csv", jobs_of(stage)
        if not (arguments.table or arguments.by_task or arguments.against):
            slots = {"gpu": arguments.gpu_jobs, "cpu": arguments.jobs}
            chosen = [job for job in jobs if wanted(arguments, job.variant, job.seed)]
            train(missing(chosen, path), path, slots)
        rows += read_results(path)
    rows = [row for row in rows if wanted(arguments, row["variant"], int(row["seed"]))]
    if not rows:
        raise SystemExit("no finished run to show")
    codes: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        codes.setdefault(row["code"], []).append(row)
    newest = codes[rows[-1]["code"]]
    if arguments.against:
        print(to_markdown(against(newest, arguments.against)))
    else:
        table = by_task if arguments.by_task else summary
        shown = codes if arguments.all_codes else {newest[0]["code"]: newest}
        for code, of_code in shown.items():
            print(to_markdown(table(of_code, code)))
    if arguments.plot:
        plot(newest, arguments.plot)
    if arguments.plot_scores:
        plot_scores(newest, arguments.plot_scores)


if __name__ == "__main__":
    main()
