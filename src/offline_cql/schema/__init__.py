"""What can be set: types, ranges, cross-checks. Knows nothing about learning, data or files."""

from offline_cql.schema.columns import ColumnsConfig
from offline_cql.schema.data import DatasetConfig, EnvConfig
from offline_cql.schema.doors import (
    AuditConfig,
    CollectConfig,
    EvaluateConfig,
    ExportConfig,
    ReportConfig,
    TrainConfig,
)
from offline_cql.schema.effect import refuse_without_effect, without_effect
from offline_cql.schema.limits import ConfigError, Section
from offline_cql.schema.reading import typed, typed_as
from offline_cql.schema.sections import (
    AlgorithmConfig,
    AlphaScheduleConfig,
    CqlConfig,
    EvaluationConfig,
    HardwareConfig,
    LoggerConfig,
    NetworkConfig,
    OpeConfig,
    RolloutConfig,
)

__all__ = [
    "AlgorithmConfig",
    "AlphaScheduleConfig",
    "AuditConfig",
    "CollectConfig",
    "ColumnsConfig",
    "ConfigError",
    "CqlConfig",
    "DatasetConfig",
    "EnvConfig",
    "EvaluateConfig",
    "EvaluationConfig",
    "ExportConfig",
    "HardwareConfig",
    "LoggerConfig",
    "NetworkConfig",
    "OpeConfig",
    "ReportConfig",
    "RolloutConfig",
    "Section",
    "TrainConfig",
    "refuse_without_effect",
    "typed",
    "typed_as",
    "without_effect",
]
