"""Feed random command lines to the check of the command line; count what is not one line.

    python benchmarks/fuzz_overrides.py --minutes 10 --seed 0

Each command line is made of real and invented keys, options, values and Hydra's own options. It is
checked as `python train.py …` checks it; nothing is trained. A set escapes when the check raises
anything but ConfigError, when its message is empty, of several lines or longer than LONGEST, or
when Python prints a warning. The last line counts; the exit code is 1 when a set escaped.
"""

import argparse
import random
import sys
import time
import traceback
import warnings
from pathlib import Path

from offline_cql.config import command_line
from offline_cql.config.entry_points import ENTRY_POINTS
from offline_cql.config.keys import setting_keys
from offline_cql.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 1_000  # characters
SHOWN = 100  # escaped sets that are printed in full
# Without spaces; those with spaces and line breaks follow.
VALUES = (
    *[
        "0",
        "1",
        "-1",
        "1e400",
        "nan",
        "-inf",
        "null",
        "true",
        "0x1",
        "1_000",
        "007",
        "a",
        "größe",
        "'",
        '"',
        "'a'",
        '"a',
        "\\",
        "a\\",
        "\x1b[2J",
        "\x00",
    ],
    *[
        "[]",
        "[[]]",
        "[1,2]",
        "[a,[b,{c:1}]]",
        "{}",
        "{a:1}",
        "{a:{b:[1]}}",
        "???",
        "*",
        "/",
        "..",
        "./x",
        "//",
        "a/b",
        "a@b",
        "a:b",
    ],
    *[
        "${seed}",
        "${nope}",
        "${env.nope}",
        "${oc.env:NOPE}",
        "${oc.env:HOME}",
        "${",
        "${}",
        "${a:}",
        "${.a}",
        "${..b}",
    ],
    *["${oc.decode:'['}", "${now:%Y}", "${hydra:job.num}", "${oc.create:[1]}", "_self_", "base"],
    *[
        "0,1",
        "a,b",
        "1,null",
        "choice(1,2)",
        "range(3)",
        "range(3,0)",
        "range(0,5,0)",
        "glob(*)",
        "interval(0,1)",
    ],
    *[
        "interval(1)",
        "sort(3,1)",
        "shuffle(1,2)",
        "tag(a,1)",
        "int(x)",
        "f(1)",
        "../env/hopper",
        "MULTIRUN",
    ],
    *(
        "",
        "a b",
        "\n",
        "a\nb",
        "\t",
        "9" * 400,
        "[" * 60,
        "{a:" * 40,
        "[file://nope]",
        "[pkg://nope]",
    ),
)
KEYS = (
    *[
        "",
        ".",
        "a",
        "a.b",
        "a..b",
        "cql.",
        ".cql",
        "cql.alpha.x",
        "env.name.x",
        "0",
        "a/b",
        "env/x",
        "_target_",
        "_global_",
        "$a",
    ],
    *[
        "callbacks",
        "trainer.max_epochs",
        "model",
        "datamodule",
        "defaults",
        "größe",
        "api_key",
        "experiment",
    ],
    *[
        "hydra",
        "hydra.run.dir",
        "hydra.job.name",
        "hydra.sweep.dir",
        "hydra.searchpath",
        "hydra.launcher",
    ],
    *["hydra.sweeper.params", "hydra.mode", "hydra.nope", "hydra/launcher", "hydra.job.env_set.A"],
    *["hydra.callbacks.grid", "hydra/callbacks", "hydra.verbose", "experiment/quick", "tuned/cql"],
    *["env@cql", "env@env.d4rl", "hydra.searchpath", "hydra.mode"],
)
OPTIONS = (
    *[
        "-m",
        "-m",
        "--cfg=job",
        "--cfg",
        "--info",
        "--help",
        "--resolve",
        "--package=env",
        "--config-dir=.",
        "--run",
    ],
    *[
        "--config-name=evaluate",
        "--config-name=",
        "--config-name=nope",
        "--config-path=nope",
        "--conf",
    ],
    *["--config-path=conf/env", "--config-path=pkg://nope", "--config-path=a.yaml", "--multirun"],
    *["--cql.alpha=5", "-x", "--", "-", "--config-dir=nope"],
)


def command_words(draw: random.Random, name: str) -> list[str]:
    """Return a random command line of an entry point."""
    keys = setting_keys(ENTRY_POINTS[name])
    groups = [path.name for path in (ROOT / "conf").iterdir() if path.is_dir()]
    words = [draw.choice(OPTIONS) for _ in range(draw.choice((0, 0, 0, 1, 1, 2)))]
    for _ in range(draw.choice((0, 1, 1, 1, 2, 3, 5))):
        key = draw.choice((draw.choice(keys), draw.choice(groups), draw.choice(KEYS)))
        options = [path.stem for path in (ROOT / "conf" / key).glob("*.yaml")] if key else []
        value = draw.choice(options) if options and draw.random() < 0.6 else draw.choice(VALUES)
        if draw.random() < 0.1:
            value += draw.choice(VALUES)
        sign = draw.choice(("", "", "", "", "", "+", "++", "~", "+++", "-"))
        equal = draw.choice(("=", "=", "=", "=", "=", "=", "", "==", " = "))
        package = draw.choice(("", "", "", "", "", "", "", "@", "@x.y", "@_global_", "@:x"))
        words.append(f"{sign}{key}{package}{equal}{value}" if equal else f"{sign}{key}{package}")
    return words


def fault(words: list[str], name: str) -> str | None:
    """Check a command line; return why it escaped the rule of one line, or None."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            command_line.check(words, schema=ENTRY_POINTS[name], entry_point=ROOT / f"{name}.py")
        except ConfigError as error:
            text = str(error)
            typed = "\n" in "".join(words)  # is printed as a space
            if not text.strip() or ("\n" in text and not typed) or len(text) > LONGEST:
                return f"message of {len(text)} characters: {text[:300]!r}"
        except SystemExit as error:
            return f"exit {error.code}"
        except Exception:
            return traceback.format_exc(limit=-4)
    return f"warning: {caught[0].message}" if caught else None


def main() -> int:
    """Run for --minutes; return 1 when a set escaped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    end = time.monotonic() + 60 * arguments.minutes
    tried, escaped = 0, 0
    while time.monotonic() < end:
        name = draw.choice(("train", "train", "train", *ENTRY_POINTS))
        words = command_words(draw, name)
        tried += 1
        if (reason := fault(words, name)) is not None:
            escaped += 1
            if escaped <= SHOWN:
                print(f"{name}.py {words!r}\n  {reason}", flush=True)
    print(f"seed {arguments.seed}: {tried} sets tried, {escaped} escaped")
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main())
