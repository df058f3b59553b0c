"""What can be set: types, ranges, cross-checks. Knows nothing about learning, data or files."""

from offline_cql.config.columns import ColumnsConfig
from offline_cql.config.data import DatasetConfig, EnvConfig
from offline_cql.config.entry_points import (
    AuditConfig,
    CollectConfig,
    EvaluateConfig,
    ExportConfig,
    ReportConfig,
    TrainConfig,
)
from offline_cql.config.limits import Section
from offline_cql.config.sections import (
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
from offline_cql.config.unused import reject_unused_overrides, unused_settings
from offline_cql.config.validation import typed, typed_as
from offline_cql.errors import ConfigError

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
    "reject_unused_overrides",
    "typed",
    "typed_as",
    "unused_settings",
]
