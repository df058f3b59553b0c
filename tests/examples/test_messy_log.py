"""Guarantee: the commands of examples/messy_log lead from its log to a policy that is served."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.config import ROOT

FOLDER = ROOT / "examples" / "messy_log"


@pytest.mark.slow
def test_the_commands_lead_from_the_log_to_a_better_policy(tmp_path: Path):
    block = re.search(r"```\n(python .*?)```", (FOLDER / "README.md").read_text(), re.S)
    assert block is not None
    output = ""
    for line in block[1].splitlines():
        words = line.replace("=examples/", f"={ROOT}/examples/").split()[1:]
        command = [sys.executable, str(ROOT / words[0]), *words[1:]]
        process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
        output += process.stdout
    audit = " ".join(output.split())
    assert "15,852 sorted rows" in audit
    assert "filled observations" in audit
    policy, operator = (float(x) for x in re.findall(r"^\w+ +(-[\d.]+) ±", output, re.M)[-2:])
    assert policy > operator + 10
    words = [sys.executable, str(ROOT / "examples" / "serve_policy.py")]
    request = '{"temp_°C": 91, "load": 0.8, "alarm": 1}\n'
    process = subprocess.run(
        [*words, "outputs/machines/policy.onnx"],
        **{"cwd": tmp_path, "input": request, "capture_output": True, "text": True, "check": True},
    )
    assert json.loads(process.stdout)["name"] in ("low", "medium", "high")
