"""Write a policy as ONNX, and check that onnxruntime computes the same actions as torch.

The exporter and the runtime are imported late, because they belong to the extra `export`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from offline_cql.errors import ConfigError, ExportError
from offline_cql.export.policy import ExportablePolicy, SupportedPolicy

Array = npt.NDArray[Any]
OBSERVATION, ACTION, SUPPORT = "observation", "action", "support"
# Largest difference between onnxruntime and torch, in the units of `ExportablePolicy.distance`.
# float32 rounding reaches 6e-4 where observations are in the ten thousands and not normalized.
TOLERANCE = 1e-3
OPSET = 18  # written by the exporter without a conversion
EXAMPLES = 2  # observations; the exporter would treat a batch of 1 as a constant
PACKAGES = ("onnxscript", "onnxruntime")


def require_packages() -> None:
    """Raise ConfigError when the extra `export` is not installed."""
    for name in PACKAGES:
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{error.name} is not installed; run: pip install 'offline-cql[export]'"
            ) from error


def input_names(policy: ExportablePolicy) -> list[str]:
    """Return the names of the ONNX inputs in order."""
    return [OBSERVATION] if policy.random_input is None else [OBSERVATION, policy.random_input[0]]


def onnx_bytes(
    policy: ExportablePolicy, observation_dim: int, support: nn.Module | None = None
) -> bytes:
    """Return the ONNX file of a policy: any batch size, weights included, reproducible bytes.

    support: the module for the second output.
    """
    inputs = (torch.zeros(EXAMPLES, observation_dim), *example_noise(policy))
    return serialize(export_model(with_support(policy, support), inputs, input_names(policy)))


def with_support(policy: ExportablePolicy, support: nn.Module | None) -> nn.Module:
    """Return the module to export."""
    return policy if support is None else SupportedPolicy(policy, support)


def example_noise(policy: ExportablePolicy) -> tuple[Tensor, ...]:
    """Return the random input of a sampled policy for EXAMPLES observations."""
    return policy.random(EXAMPLES, torch.Generator().manual_seed(0))


def export_model(
    module: nn.Module, inputs: tuple[Tensor | tuple[Tensor, ...], ...], names: list[str]
) -> Any:
    """Return a module as a model of the package onnx; any batch size; action, then support."""
    batch = {0: torch.export.Dim("batch")}
    outputs = [ACTION, SUPPORT] if is_supported(module) else [ACTION]
    shapes = tuple((batch,) * len(i) if isinstance(i, tuple) else batch for i in inputs)
    with _quiet():
        program = torch.onnx.export(
            module,
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=names,
            output_names=outputs,
            dynamic_shapes=shapes,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def is_supported(module: nn.Module) -> bool:
    """Return whether a module has the second output."""
    return any(isinstance(part, SupportedPolicy) for part in module.modules())


def serialize(model: Any) -> bytes:
    """Return the bytes of a model, the same for the same model."""
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info):
        del part.metadata_props[:]  # stack traces, which contain paths of this machine
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def check_onnx(
    content: bytes,
    policy: ExportablePolicy,
    observation: Tensor,
    columns: Mapping[str, Array] | None = None,
    support: nn.Module | None = None,
) -> float:
    """Return the largest difference between onnxruntime's and torch's actions at observations.

    observation [N, D] in the environment's units; columns: the inputs of a file that computes it
    from the columns of a table; support: of a file that has the output. Raises ExportError above
    TOLERANCE, of the support too, and where the policy has no action.
    """
    onnxruntime = import_module("onnxruntime")
    noise = policy.random(len(observation), torch.Generator().manual_seed(1))
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    first, *random = input_names(policy)
    arrays = dict(columns) if columns is not None else {first: observation.numpy()}
    arrays |= {name: tensor.numpy() for name, tensor in zip(random, noise, strict=True)}
    action, *others = session.run(None, arrays)
    inputs = (observation, *noise)
    if n_missing := int((~valid_actions(action)).sum()):
        raise ExportError(
            f"the policy has no action at {n_missing} of {len(observation)} observations: their "
            "numbers, or the weights, are beyond float32; no file was written"
        )
    difference = float(policy.distance(inputs, torch.from_numpy(action)).amax())
    if support is not None:
        expected = support(observation, torch.from_numpy(action)).numpy()
        # A quantile that a density just reaches is reached or not by rounding.
        difference = max(difference, float(np.median(np.abs(others[0] - expected))))
    if not difference <= TOLERANCE:
        raise ExportError(
            f"onnxruntime's actions differ from torch's by up to {difference:.3g}, more than "
            f"{TOLERANCE:g}; no file was written"
        )
    return difference


def valid_actions(action: Array) -> Array:
    """Return whether each action is one, [N]: finite numbers [N, A], or an index [N] from 0 on."""
    return np.asarray(action >= 0 if action.ndim == 1 else np.isfinite(action).all(axis=1))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's remarks on packages and axis names that this export does not use."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
