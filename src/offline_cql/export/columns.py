"""A policy of a table as ONNX whose inputs are the columns of the table, by their names.

Numbers, times (seconds since 1970) and integer categories are float64 [batch], NaN where a value is
missing; categories of text are strings, empty where one is missing. For a category that the data do
not have, or a value that they never lack, the policy has no action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from offline_cql.export.onnx_file import (
    EXAMPLES,
    example_noise,
    export_model,
    input_names,
    serialize,
    with_support,
)
from offline_cql.export.policy import ExportablePolicy
from offline_cql.features import CATEGORY, Feature, Features, are_texts, input_name

UNKNOWN, MISSING = -1, -2  # in place of the index of a category of text
LABELS = "ai.onnx.ml"  # the operators with texts


class ColumnsPolicy(nn.Module):
    """A policy after the computation of its observation from the columns of a table."""

    def __init__(self, policy: nn.Module, features: Features):
        super().__init__()
        self.policy, self.features = policy, features

    def forward(self, values: Sequence[Tensor], noise: Tensor | None = None) -> Any:
        columns = dict(zip(self.features.columns, values, strict=True))
        parts = [encode(feature, columns) for feature in self.features.features]
        observation = torch.cat(parts, dim=1).float()
        return self.policy(observation, *([] if noise is None else [noise]))


def encode(feature: Feature, columns: Mapping[str, Tensor]) -> Tensor:
    """Return the numbers [B, K] of a feature, NaN where it has none; `Features.encode` in torch."""
    values = [columns[name] for name in feature.columns]
    if feature.categories is not None:
        result, missing = _one_hot(feature.categories, values[0])
    else:
        missing = torch.stack([column.isnan() for column in values]).any(dim=0)
        number = values[0] if feature.expression is None else feature.expression(columns, torch)
        result = number.unsqueeze(1)
    result = result.where(~missing.unsqueeze(1), np.nan if feature.fill is None else feature.fill)
    return result if feature.fill is None else torch.cat([result, missing.unsqueeze(1)], dim=1)


def _one_hot(categories: tuple[str | int, ...], values: Tensor) -> tuple[Tensor, Tensor]:
    """Return one-hot columns [B, K] in float64, NaN for an unknown category; and missing [B]."""
    if are_texts(categories):
        known, missing = torch.arange(len(categories)), values == MISSING
    else:
        known, missing = torch.tensor(categories, dtype=torch.float64), values.isnan()
    hot = (values.unsqueeze(1) == known).double()
    unknown = ~missing & (hot.sum(dim=1) == 0)
    return hot.where(~unknown.unsqueeze(1), np.nan), missing


def text_columns(features: Features) -> list[str]:
    """Return the columns of text."""
    names = [name for name, kind in features.columns.items() if kind == CATEGORY]
    return [name for name in names if are_texts(features.categories(name))]


def columns_onnx_bytes(
    policy: ExportablePolicy, features: Features, support: nn.Module | None = None
) -> bytes:
    """Return the ONNX file; its inputs have the names of `input_name`."""
    texts = text_columns(features)
    examples = tuple(
        torch.zeros(EXAMPLES, dtype=torch.int64 if name in texts else torch.float64)
        for name in features.columns
    )
    plain = [f"column_{number}" for number in range(len(examples))]
    names = [*plain, *input_names(policy)[1:]]
    model = export_model(
        ColumnsPolicy(with_support(policy, support), features).eval(),
        (examples, *example_noise(policy)),
        names,
    )
    renamed = dict(zip(plain, map(input_name, features.columns), strict=True))
    by_input = {input_name(name): features.categories(name) for name in texts}
    _rename_inputs(model, renamed, by_input)
    return serialize(model)


def _rename_inputs(
    model: Any, renamed: Mapping[str, str], texts: Mapping[str, tuple[str | int, ...]]
) -> None:
    """Give the inputs the names of columns; those of text are turned into indices of categories.

    Values inside the graph that have the name of a column get another one.
    """
    onnx = import_module("onnx")
    graph = model.graph
    inner = {plain: plain if name in texts else name for plain, name in renamed.items()}
    values = [*(name for node in graph.node for name in node.output)]
    values += [tensor.name for tensor in graph.initializer]
    inner |= {name: f"{name} (inner)" for name in {*values}.intersection(renamed.values())}
    for tensor in [*graph.initializer, *graph.value_info]:
        tensor.name = inner.get(tensor.name, tensor.name)
    for node in graph.node:
        node.input[:] = [inner.get(name, name) for name in node.input]
        node.output[:] = [inner.get(name, name) for name in node.output]
    encoders = []
    for entry in graph.input:
        plain, entry.name = entry.name, renamed.get(entry.name, entry.name)
        if entry.name not in texts:
            continue
        categories = texts[entry.name]
        entry.type.tensor_type.elem_type = onnx.TensorProto.STRING
        encoders.append(
            onnx.helper.make_node(
                "LabelEncoder",
                [entry.name],
                [plain],
                domain=LABELS,
                keys_strings=[*categories, *([] if "" in categories else [""])],
                values_int64s=[*range(len(categories)), *([] if "" in categories else [MISSING])],
                default_int64=UNKNOWN,
            )
        )
    if encoders:
        nodes = [*encoders, *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
        model.opset_import.append(onnx.helper.make_opsetid(LABELS, 2))
