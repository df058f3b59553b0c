"""Feed random files to the audit of a table; count what neither loads nor is refused in one line.

    python benchmarks/fuzz_tables.py --minutes 10 --seed 0

Each file is a small log in one of the formats, some of its columns replaced by odd values, some of
its bytes damaged. It is read as `python audit.py env=logged dataset=table …` and with `infer=true`,
with random settings of the columns. A file escapes when the audit raises what `errors.explain`
knows no line for, when that line is empty or long, or when it takes more than SLOWEST seconds. The
last line counts; the exit code is 1 when a file escaped.
"""

import argparse
import contextlib
import datetime
import decimal
import gzip
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from hydra import compose, initialize_config_dir

from offline_cql.commands.audit import audit
from offline_cql.errors import explain

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 1_500  # characters of a line
SLOWEST = 30  # seconds of an audit
SHOWN = 100  # escaped files that are printed in full
Columns = dict[str, list[Any]]

DAY = datetime.date(2020, 2, 29)
ODD: tuple[Callable[[random.Random], Any], ...] = (
    lambda draw: None,
    lambda draw: draw.random() < 0.5,
    lambda draw: draw.randrange(3),
    lambda draw: draw.randrange(-(2**63), 2**63),
    lambda draw: draw.gauss(0, 1),
    lambda draw: draw.gauss(0, 1) * 10.0 ** draw.randrange(-320, 308),
    lambda draw: draw.choice((float("nan"), float("inf"), -float("inf"), -0.0, 1e39, 5e-324)),
    lambda draw: draw.choice(["", "a", "b", "NaN", "null", "true", "1", "0x1", "1,5", "1e9"]),
    lambda draw: draw.choice(["007", "07", "7", "12345678901234567"]),
    lambda draw: draw.choice(
        ['"', "'", "x,y", "x;y", "é\n", "\x1b[2J", "\x00", "=1", "<b>", "[x]"]
    ),
    lambda draw: bytes(draw.randrange(256) for _ in range(draw.randrange(4))),
    lambda draw: DAY + datetime.timedelta(days=draw.randrange(-700_000, 2_000_000)),
    lambda draw: datetime.datetime(2020, 1, 1) + datetime.timedelta(seconds=draw.randrange(10**9)),
    lambda draw: decimal.Decimal(draw.randrange(-(10**9), 10**9)).scaleb(-3),
    lambda draw: [draw.random() for _ in range(draw.randrange(3))],
    lambda draw: {"x": draw.random()},
)
NAMES = """obs_0 obs_1 obs_ action action_0 action_1 reward episode step terminated truncated done
next_obs_0 next_obs_1 propensity größe Obs_0 a.b a=b [x] ' $(x)"""
ODD_NAMES = ("", " ", "obs_0 ", "\x1b[2J", "x" * 300)
SETTINGS = """discrete=true discrete=false observation=[obs_0] observation=[obs_0,obs_0]
observation=[] observation=['*'] observation=['obs_['] action=[action] action=['action_*'] action=[]
reward=null reward=obs_0 episode=null step=null terminated=done truncated=reward
next_observation=null next_observation=['next_obs_*'] propensity=reward
action_low=[0] action_low=[-1,-1] action_high=[1,1] categories=[obs_0]
categories=[{column:obs_0,values:3},obs_1] categories=[{column:obs_1,values:[0,1,2]}]
observation=['=obs_0*2',obs_1]
observation=['=ln(obs_0)/obs_1'] observation=['=epoch(obs_0)%60'] observation=['=a.b+1']
reward='=obs_0+1' reward='=step/episode' reward='=[x]' episode='=episode%3' action=['=obs_1>1']"""
OTHERS = """dataset.missing=fill dataset.missing=forward dataset.missing=drop
dataset.filter='obs_0>0' dataset.filter='step<>1' dataset.filter=reward
dataset.filter='(' dataset.time_unit=60"""
FORMATS = [*["csv", "parquet", "npz"] * 5, *["csv.gz", "json"] * 3, "jsonl.gz", "tsv", "txt", "h5"]


def table(draw: random.Random) -> Columns:
    """Return the columns of a few episodes, with choices or amounts, some columns made odd."""
    lengths = [draw.choice((1, 1, 2, 5, 20)) for _ in range(draw.choice((1, 5, 10, 30)))]
    episode = [number for number, length in enumerate(lengths) for _ in range(length)]
    step = [k for length in lengths for k in range(length)]
    size = len(step)
    last = [k == lengths[number] - 1 for number, k in zip(episode, step, strict=True)]
    columns: Columns = {"obs_0": [float(e) for e in episode], "obs_1": [float(k) for k in step]}
    if draw.random() < 0.5:
        columns["action"] = [draw.randrange(3) for _ in range(size)]
    else:
        columns |= {f"action_{i}": [draw.random() for _ in range(size)] for i in range(2)}
    columns["reward"] = [draw.gauss(0, 1) for _ in range(size)]
    columns |= {"episode": episode, "step": step}
    columns |= {"terminated": last, "truncated": [False] * size}
    if draw.random() < 0.3:
        columns |= {f"next_obs_{i}": [draw.random() for _ in range(size)] for i in range(2)}
    for _ in range(draw.choice((0, 0, 0, 0, 1, 1, 2, 4))):
        columns[draw.choice([*NAMES.split(), *ODD_NAMES])] = odd_column(draw, size)
    for name in draw.sample(sorted(columns), draw.choice((0, 0, 0, 0, 0, 0, 1, 2))):
        del columns[name]
    if draw.random() < 0.1:
        order = draw.sample(range(size), size)
        columns = {name: [values[k] for k in order] for name, values in columns.items()}
    return columns


def odd_column(draw: random.Random, size: int) -> list[Any]:
    """Return values of one odd kind: all different, all the same, or with gaps."""
    kind, way = draw.choice(ODD), draw.random()
    if way < 0.3:
        return [kind(draw)] * size
    return [None if way > 0.7 and draw.random() < 0.2 else kind(draw) for _ in range(size)]


def write(draw: random.Random, path: Path, columns: Columns) -> None:
    """Write the columns in the format of the suffix. Raises what the writer cannot write."""
    kind = path.name.partition(".")[2]
    if kind == "npz":
        np.savez(path, **{name: np.asarray(values) for name, values in columns.items()})
    elif kind == "parquet":
        compression = draw.choice(("snappy", "zstd", "none", "gzip", "brotli"))
        options: dict[str, Any] = {"row_group_size": draw.choice((1, 7, 1000))}
        pa.parquet.write_table(pa.table(columns), path, compression=compression, **options)
    else:
        path.write_bytes(text_file(draw, kind, columns))


def text_file(draw: random.Random, kind: str, columns: Columns) -> bytes:
    """Return a file of text, in one of the encodings and with one of the separators."""
    if "json" in kind:
        content = "\n".join(map(json.dumps, pa.table(columns).to_pylist())).encode()
        return gzip.compress(content) if kind.endswith("gz") else content
    separator = "\t" if kind == "tsv" else draw.choice((*"," * 8, ";", "|"))
    end = draw.choice(("\n", "\n", "\r\n", "\r"))
    rows = ([*columns], *zip(*columns.values(), strict=True))
    lines = [separator.join("" if v is None else str(v) for v in row) for row in rows]
    if draw.random() < 0.1:  # a row that is too long or too short
        lines[draw.randrange(len(lines))] += draw.choice((separator, separator + "1", '"', "\n"))
    encoding = draw.choice((*["utf-8"] * 9, "utf-8-sig", "utf-16", "latin-1"))
    content = end.join(lines).encode(encoding, errors="replace")
    return gzip.compress(content) if kind == "csv.gz" else content


def damage(draw: random.Random, path: Path) -> None:
    """Cut a file off, or change, insert or repeat some of its bytes."""
    content = bytearray(path.read_bytes())
    way = draw.choice(("cut", "flip", "flip", "insert", "repeat", "empty", "pointer", "page"))
    place = draw.randrange(len(content) + 1)
    if way == "cut":
        del content[place:]
    elif way == "flip":
        for _ in range(draw.choice((1, 1, 3, 20))):
            if content:
                content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    elif way == "insert":
        content[place:place] = bytes(draw.randrange(256) for _ in range(draw.randrange(1, 9)))
    elif way == "repeat":
        content[place:place] = content[: draw.randrange(len(content) + 1)]
    elif way == "pointer":
        content = bytearray(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    elif way == "page":
        content = bytearray(b"<!DOCTYPE html><html><body>Not found</body></html>")
    else:
        content.clear()
    path.write_bytes(content)


def outcome(overrides: list[str]) -> tuple[str, str]:
    """Audit a file; return `audited`, `refused` or `escaped`, and the line or the reason."""
    out = next(text for text in overrides if text.startswith("out=")).removeprefix("out=")
    signal.alarm(SLOWEST)
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            audit(compose("audit", overrides))
    except TimeoutError:
        return "escaped", f"more than {SLOWEST} s: {traceback.format_exc(limit=-3)}"
    except Exception as error:
        if (explanation := explain(error)) is None:
            return "escaped", traceback.format_exc(limit=-4)
        line = explanation[0]
        one_line = line.strip() and "\n" not in line and len(line) <= LONGEST
        return "refused" if one_line else "escaped", line
    finally:
        signal.alarm(0)
        shutil.rmtree(out, ignore_errors=True)
    return "audited", ""


def open_conf() -> Any:
    """Return Hydra's context in which the project's configs are composed."""
    return initialize_config_dir(str(ROOT / "conf"), version_base="1.3")


def raise_timeout(_number: int, _frame: Any) -> None:
    raise TimeoutError


def settings(draw: random.Random) -> list[str]:
    """Return random overrides of the audit."""
    if draw.random() < 0.1:
        return ["infer=true"]
    columns = draw.sample(SETTINGS.split(), draw.choice((0, 0, 0, 0, 1, 2)))
    overrides = [f"dataset.columns.{text}" for text in columns]
    overrides += draw.sample(OTHERS.split(), draw.choice((0, 0, 0, 1, 1, 2)))
    overrides = list({text.partition("=")[0]: text for text in overrides}.values())
    return overrides + (["dataset.one_step=true"] if draw.random() < 0.15 else [])


def main() -> int:
    """Run for --minutes; return 1 when a file escaped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="print the line of every file")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    signal.signal(signal.SIGALRM, raise_timeout)
    end = time.monotonic() + 60 * arguments.minutes
    counts = dict.fromkeys(("audited", "refused", "escaped"), 0)
    with tempfile.TemporaryDirectory() as name, open_conf():
        folder = Path(name)
        os.environ["OFFLINE_CQL_CACHE"] = str(folder / "cache")
        while time.monotonic() < end:
            path = folder / f"{sum(counts.values())}.{draw.choice(FORMATS)}"
            try:
                write(draw, path, table(draw))
            except (pa.ArrowException, OverflowError, ValueError, TypeError):
                continue  # such a file cannot exist
            if draw.random() < 0.2:
                damage(draw, path)
            overrides = ["env=logged", "dataset=table", f"dataset.path={path}"]
            overrides += [*settings(draw), f"out={folder / 'audit'}"]
            with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
                kind, text = outcome(overrides)
            counts[kind] += 1
            path.unlink()
            if arguments.verbose or (kind == "escaped" and counts["escaped"] <= SHOWN):
                print(f"{kind}: {overrides}\n  {text}", flush=True)
    parts = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    print(f"seed {arguments.seed}: {sum(counts.values())} files tried, {parts}")
    return 1 if counts["escaped"] else 0


if __name__ == "__main__":
    sys.exit(main())
