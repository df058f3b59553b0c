"""Store copies of the simulated medium-expert data with scaled rewards.

Their ids are logs/<env>/times-<factor>-v0. `benchmarks/learning.py units` trains on them: the
scores should not depend on the factor.
"""

from __future__ import annotations

import minari
from noisy_logs import collect_settings

from offline_cql.readers.minari.store import is_stored
from offline_cql.simulation.collect import ensure_recorded

FACTORS = ("1000", "0p001")  # Minari's ids have no dots


def main() -> None:
    for env in ("halfcheetah", "hopper"):
        config = collect_settings(f"env={env}", "dataset.quality=medium-expert")
        original = minari.load_dataset(ensure_recorded(config.env, config.dataset))
        for factor in FACTORS:
            name = f"logs/{env}/times-{factor}-v0"
            if is_stored(name):
                print(f"{name} is there")
                continue
            minari.create_dataset_from_buffers(
                name,
                [
                    minari.data_collector.EpisodeBuffer(
                        observations=episode.observations,
                        actions=episode.actions,
                        rewards=episode.rewards * float(factor.replace("p", ".")),
                        terminations=episode.terminations,
                        truncations=episode.truncations,
                    )
                    for episode in original.iterate_episodes()
                ],
                observation_space=original.observation_space,
                action_space=original.action_space,
            )
            print(f"{name} is stored")


if __name__ == "__main__":
    main()
