"""Evaluate every kept checkpoint of a stage's runs with more episodes; one CSV row per run.

`python benchmarks/checkpoint_scores.py STAGE VARIANT TASK …` reads the runs that
`python benchmarks/learning.py STAGE` left in outputs/learning and prints its table by task. The
episodes start from other seeds than those during training. Rows are never made twice.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from learning import ROOT, Job, append, by_task, format_scores, jobs_of, missing, read_rows
from rich.progress import track

from offline_cql.commands.load_run import load_agent
from offline_cql.config import RolloutConfig
from offline_cql.render.table import to_markdown
from offline_cql.runs.folder import RESULT, kept_updates
from offline_cql.simulation.evaluation import evaluate, score

SEED = 777


def scores(job: Job, episodes: int) -> dict[int, float]:
    """Return the normalized score of each kept checkpoint of a run."""
    means = {}
    for updates in kept_updates(job.folder):
        config, agent = load_agent(job.folder, str(updates))
        settings = RolloutConfig(episodes=episodes, environments=10, seed=SEED)
        results = evaluate(agent, config.env, settings)
        mean = score(results, config.env).normalized_score
        assert mean is not None  # the stages' tasks have reference returns
        means[updates] = mean
    return means


def evaluated(jobs: Sequence[Job], episodes: int) -> list[dict[str, str]]:
    """Return the rows of the runs, after evaluating those that have none."""
    path = ROOT / "docs" / "studies" / "learning" / f"{jobs[0].stage}_{episodes}_episodes.csv"
    finished = {
        (row["variant"], row["task"], row["seed"]): row
        for row in read_rows(path.with_name(f"{jobs[0].stage}.csv"))
    }
    waiting = [job for job in missing(jobs, path) if (job.folder / RESULT).exists()]
    for job in track(waiting, "runs"):
        row = finished[job.variant, job.task, str(job.seed)]
        append(path, row | {"scores": format_scores(scores(job, episodes))})
    return read_rows(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage")
    parser.add_argument("variant")
    parser.add_argument("tasks", nargs="+", metavar="TASK", help="as halfcheetah/medium-expert")
    parser.add_argument("--episodes", type=int, default=100)
    arguments = parser.parse_args()
    jobs = [
        job
        for job in jobs_of(arguments.stage)
        if job.variant == arguments.variant and job.task in arguments.tasks
    ]
    if not jobs:
        raise SystemExit(f"stage {arguments.stage} has no runs of this variant on these tasks")
    rows = evaluated(jobs, arguments.episodes)
    print(to_markdown(by_task(rows, f"of {arguments.episodes} episodes")))


if __name__ == "__main__":
    main()
