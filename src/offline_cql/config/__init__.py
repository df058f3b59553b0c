"""Settings: types, ranges, cross-checks, and the errors of the command line."""

from offline_cql.config.algorithms import ALGORITHMS, Algorithm, BcConfig, CqlConfig
from offline_cql.config.data import ColumnsConfig, D4RLConfig, DatasetConfig, EnvConfig
from offline_cql.config.entry_points import (
    AuditConfig,
    CollectConfig,
    EvaluateConfig,
    ExportConfig,
    ReportConfig,
    TrainConfig,
)
from offline_cql.config.section import Section, format_value
from offline_cql.config.sections import (
    AlphaScheduleConfig,
    EvaluationConfig,
    HardwareConfig,
    LoggerConfig,
    NetworkConfig,
    OpeConfig,
    RolloutConfig,
)
from offline_cql.config.sources import SOURCES
from offline_cql.config.unused import reject_unused_overrides, unused_settings
from offline_cql.config.validation import validate_config
from offline_cql.errors import ConfigError

__all__ = [
    "ALGORITHMS",
    "SOURCES",
    "Algorithm",
    "AlphaScheduleConfig",
    "AuditConfig",
    "BcConfig",
    "CollectConfig",
    "ColumnsConfig",
    "ConfigError",
    "CqlConfig",
    "D4RLConfig",
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
    "format_value",
    "reject_unused_overrides",
    "unused_settings",
    "validate_config",
]
