"""The machines of this example: their simulator, the log that an operator left, and a check.

    python examples/messy_log/machines.py log FOLDER         writes week_1.csv and week_2.csv
    python examples/messy_log/machines.py play policy.onnx   plays a policy beside the operator

A machine heats up with its load; cooling costs energy. Above 100 °C it shuts down. The log is as
such logs are: semicolons and decimal commas, Windows' encoding, rows out of order, a sensor that is
silent at times, actions as words.
"""

import sys
from pathlib import Path

import numpy as np

LEVELS = ("high", "low", "medium")  # in the order of the policy's actions
COOLING, COST = {"low": 2.0, "medium": 8.0, "high": 16.0}, {"low": 0.1, "medium": 0.5, "high": 1.5}
STEPS, SHIFTS = 32, 600
COLUMNS = "shift;time;temp_°C;load;alarm;cooling;reward;shutdown"


class Machine:
    """One shift of a machine: 32 quarters of an hour, unless it shuts down."""

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator
        self.temperature, self.load = generator.normal(60, 8), generator.uniform(0.2, 1)

    def step(self, level: str) -> tuple[float, bool]:
        """Cool for a quarter of an hour; return the reward and whether the machine shut down."""
        heat = 18 * self.load + self.generator.normal(0, 1)
        self.temperature += heat - COOLING[level] - 0.05 * (self.temperature - 25)
        self.load = float(np.clip(self.load + self.generator.normal(0, 0.15), 0.2, 1))
        shut_down = self.temperature > 100
        return (-100.0 if shut_down else 0.0) - COST[level], bool(shut_down)

    @property
    def alarm(self) -> int:
        return int(self.temperature > 85)


def operator(machine: Machine) -> str:
    """Cool by habit, and hard when the alarm is on; sometimes anything."""
    if machine.generator.random() < 0.5:
        return str(machine.generator.choice(LEVELS))
    return "high" if machine.alarm else "medium"


def write_log(folder: Path) -> None:
    """Write both weeks."""
    generator = np.random.default_rng(0)
    rows: dict[int, list[str]] = {1: [], 2: []}
    for shift in range(SHIFTS):
        machine = Machine(generator)
        for step in range(STEPS):
            seen, level = (machine.temperature, machine.load, machine.alarm), operator(machine)
            reward, shut_down = machine.step(level)
            silent = step > 0 and generator.random() < 0.03
            time = f"2026-03-{1 + shift // 30:02} {step // 4:02}:{15 * (step % 4):02}:00"
            cells = ["" if silent else f"{seen[0]:.1f}", f"{seen[1]:.2f}", seen[2], level]
            cells = [f"{shift // 30:02}-{shift % 30:02}", time, *cells, f"{reward:.2f}"]
            text = ";".join(map(str, [*cells, "yes" if shut_down else "no"]))
            rows[1 if shift < SHIFTS // 2 else 2].append(text.replace(".", ","))
            if shut_down:
                break
    folder.mkdir(parents=True, exist_ok=True)
    for week, lines in rows.items():
        generator.shuffle(lines)
        content = "\n".join([COLUMNS, *lines]) + "\n"
        (folder / f"week_{week}.csv").write_bytes(content.encode("cp1252"))
    print(f"{sum(map(len, rows.values())):,} rows in {folder}")


def play(path: Path) -> None:
    """Print the mean return of a policy and of the operator over 300 new shifts each."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from serve_policy import ServedPolicy

    policy = ServedPolicy(path)

    def served(machine: Machine) -> str:
        names = {"temp_°C": machine.temperature, "load": machine.load, "alarm": machine.alarm}
        return str(policy.act(names)["name"])

    for title, choose in (("policy", served), ("operator", operator)):
        returns = []
        for shift in range(300):
            machine, total = Machine(np.random.default_rng([1, shift])), 0.0
            for _ in range(STEPS):
                reward, shut_down = machine.step(choose(machine))
                total += reward
                if shut_down:
                    break
            returns.append(total)
        error = np.std(returns) / np.sqrt(len(returns))
        print(f"{title:<9}{np.mean(returns):7.2f} ± {error:.2f} (mean and standard error)")


if __name__ == "__main__":
    {"log": write_log, "play": play}[sys.argv[1]](Path(sys.argv[2]))
