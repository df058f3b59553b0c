"""A policy as the bytes of an ONNX file, and whether onnxruntime finds in them what torch computes.

Knows nothing about run folders or settings. Imports of the exporter and the runtime are late: they
belong to an extra.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from offline_cql.errors import ConfigError, ExportError
from offline_cql.export.policy import ExportablePolicy

OBSERVATION, ACTION = "observation", "action"
TOLERANCE = 1e-5
ROUNDING = 4.0  # times torch's own, where that is more: unnormalized observations in thousands
OPSET = 18  # what the exporter writes without a conversion
PACKAGES = ("onnxscript", "onnxruntime")


def refuse_missing_packages() -> None:
    """Raises ConfigError when the extra is not installed."""
    for name in PACKAGES:
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            missing = f"{error.name} is not installed"
            raise ConfigError(
                f"{missing}, which export.py needs: pip install 'offline-cql[export]'"
            ) from error


def input_names(policy: ExportablePolicy) -> list[str]:
    return [OBSERVATION] if policy.random_input is None else [OBSERVATION, policy.random_input[0]]


def onnx_bytes(policy: ExportablePolicy, observation_dim: int) -> bytes:
    """The file's content: any batch size, weights inside, nothing of this machine in it."""
    generator = torch.Generator().manual_seed(0)
    size = 2  # an example; 1 would be taken for a constant
    inputs = (torch.zeros(size, observation_dim), *policy.random(size, generator))
    batch = torch.export.Dim("batch")
    with _quiet():
        program = torch.onnx.export(
            policy,
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=input_names(policy),
            output_names=[ACTION],
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.value_info):
        del part.metadata_props[:]  # stack traces, with the paths of this machine
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages and axis names that do not concern us."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


@dataclass(frozen=True)
class Agreement:
    """How far onnxruntime's actions are from torch's, at most, and how far they may be."""

    largest_difference: float
    tolerance: float


def agreement(content: bytes, policy: ExportablePolicy, observation: Tensor) -> Agreement:
    """Over observations [N, D], at once and one alone, by the policy's own measure of distance.

    Raises ExportError when the difference is above the tolerance or not a number.
    """
    inputs = (observation, *policy.random(len(observation), torch.Generator().manual_seed(1)))
    session = _session(content)
    largest = 0.0
    for part in (inputs, tuple(each[:1] for each in inputs)):
        named = dict(zip(input_names(policy), (each.numpy() for each in part), strict=True))
        (action,) = session.run([ACTION], named)
        distance = policy.distance(part, torch.from_numpy(action)).amax()
        largest = max(largest, float(distance.nan_to_num(nan=torch.inf)))
    tolerance = max(TOLERANCE, ROUNDING * _own_rounding(policy, inputs))
    if not largest <= tolerance:
        raise ExportError(
            f"onnxruntime's actions differ from torch's by up to {largest:.3g}, more than "
            f"{tolerance:.3g}: nothing was written"
        )
    return Agreement(largest, tolerance)


def _own_rounding(policy: ExportablePolicy, inputs: tuple[Tensor, ...]) -> float:
    """How far torch's float32 actions are from its float64 ones, at most."""
    exact = copy.deepcopy(policy).double()
    return float(exact.distance(tuple(each.double() for each in inputs), policy(*inputs)).amax())


def _session(content: bytes) -> Any:
    onnxruntime = import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # a small network: threads would wait for each other
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
