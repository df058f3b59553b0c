"""Write example logs of a heated building, the data of docs/data.md's section on log files.

python scripts/make_example_logs.py example_logs
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

Array = npt.NDArray[np.float64]

STEPS = 96  # quarters of an hour in a day
HOURS = 24 / STEPS
LEVELS = {"off": 0.0, "half": 0.5, "full": 1.0}


class Temperatures(NamedTuple):
    """Inside and outside temperatures in degrees Celsius, one building per day, [N]."""

    inside: Array
    outside: Array


def outside_at(step: int, base: Array) -> Array:
    """Return the outside temperature, coldest at four in the morning."""
    return base + 4 * np.sin(2 * np.pi * (step / STEPS - 10 / 24))


def target_at(step: int) -> float:
    """Return the target temperature: 21 degrees from 6:00 to 22:00, 17 at night."""
    return 21.0 if 6 <= step * HOURS < 22 else 17.0


def price_at(step: int) -> float:
    """Return the price of one hour of full heating, which is highest in the evening."""
    return 1.0 if 17 <= step * HOURS < 20 else 0.4


def simulate_step(
    state: Temperatures, heating: Array, step: int, base: Array, generator: np.random.Generator
) -> tuple[Temperatures, Array]:
    """Return the temperatures a quarter of an hour later and the reward: comfort minus price."""
    loss, gain = 0.12, 4.0  # degrees per hour: per degree of difference, and at full heating
    drift = loss * (state.outside - state.inside) + gain * heating
    noise = generator.normal(0, 0.1, state.inside.shape)
    inside = state.inside + HOURS * drift + noise
    shortfall = np.maximum(target_at(step) - state.inside, 0)
    reward = -HOURS * (shortfall**2 + price_at(step) * heating)
    return Temperatures(inside, outside_at(step + 1, base)), reward


def behavior(state: Temperatures, step: int, good: npt.NDArray[np.bool_]) -> Array:
    """Return the share of full heating that a careful or a careless controller chooses, [N]."""
    target = max(target_at(step), target_at(step + 8))  # heat two hours ahead
    careful = np.clip(0.5 * (target - state.inside) + 0.3, 0, 1)
    careless = np.where(state.inside < 19, 0.9, 0.3)  # the same by day and night
    return np.where(good, careful, careless)


def simulate(days: int, *, discrete: bool, seed: int) -> dict[str, npt.NDArray[np.generic]]:
    """Return the columns of the logs: one building per day, two thirds carelessly heated."""
    generator = np.random.default_rng([seed, discrete])
    base = generator.uniform(-5, 12, days)
    state = Temperatures(generator.uniform(16, 20, days), outside_at(0, base))
    good = np.arange(days) % 3 == 0
    rows = []
    for step in range(STEPS):
        share = behavior(state, step, good)
        row = {
            "temperature": state.inside,
            "outside": state.outside,
            "hour_sin": np.full(days, np.sin(2 * np.pi * step / STEPS)),
            "hour_cos": np.full(days, np.cos(2 * np.pi * step / STEPS)),
        }
        if discrete:
            heating, probability = sample_level(share, generator)
            row["heating_level_command"], row["probability"] = heating, probability
        else:
            heating = np.clip(share + generator.normal(0, 0.2, days), 0, 1)
            row["heating_command"] = heating
        state, row["reward"] = simulate_step(state, heating, step, base, generator)
        rows.append(row)
    columns = {name: np.stack([row[name] for row in rows], axis=1).ravel() for name in rows[0]}
    if discrete:
        names, values = np.array(list(LEVELS)), np.array(list(LEVELS.values()))
        levels = columns["heating_level_command"]
        columns["heating_level_command"] = names[np.searchsorted(values, levels)]
    return {
        "day": np.repeat(np.arange(days), STEPS),
        "time_step": np.tile(np.arange(STEPS), days),
        **columns,
    }


def sample_level(share: Array, generator: np.random.Generator) -> tuple[Array, Array]:
    """Sample one of the three levels near a share; return it and its probability, [N] each."""
    values = np.array(list(LEVELS.values()))
    scores = np.exp(-(((share[:, None] - values) / 0.3) ** 2))
    probabilities = 0.9 * scores / scores.sum(axis=1, keepdims=True) + 0.1 / len(values)
    index = (generator.random((len(share), 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    index = np.minimum(index, len(values) - 1)
    return values[index], probabilities[np.arange(len(share)), index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--days", type=int, default=208)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, discrete in (("logs", False), ("levels", True)):
        table = pa.table(simulate(options.days, discrete=discrete, seed=options.seed))
        pa.parquet.write_table(table, options.folder / f"{name}.parquet")
        pa.csv.write_csv(table, options.folder / f"{name}.csv")
        print(
            f"{options.folder / name}.parquet and .csv: {len(table):,} steps, {table.column_names}"
        )
    returns = np.asarray(table["reward"]).reshape(options.days, STEPS).sum(axis=1)
    good = np.arange(options.days) % 3 == 0
    print(
        f"reward per day: careful {returns[good].mean():.1f}, careless {returns[~good].mean():.1f}"
    )


if __name__ == "__main__":
    main()
