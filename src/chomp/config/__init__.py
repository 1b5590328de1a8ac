"""Configuration: a strict schema, and the way from a YAML file to a checked `Config`."""

from chomp.config.data import DataConfig, TokenizerConfig
from chomp.config.json_schema import config_schema
from chomp.config.load import InvalidConfigError, config_from_mapping, config_text, load_config
from chomp.config.model import ModelConfig
from chomp.config.optim import AdamConfig, MuonConfig, OptimConfig
from chomp.config.records import (
    CheckpointConfig,
    DebugConfig,
    LoggingConfig,
    MlflowConfig,
    RuntimeConfig,
    WandbConfig,
)
from chomp.config.reference_page import config_reference
from chomp.config.schema import Config
from chomp.config.sections import Sections
from chomp.config.train import TrainConfig
from chomp.config.warnings import config_warnings, is_deterministic

__all__ = [
    "AdamConfig",
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "DebugConfig",
    "InvalidConfigError",
    "LoggingConfig",
    "MlflowConfig",
    "ModelConfig",
    "MuonConfig",
    "OptimConfig",
    "RuntimeConfig",
    "Sections",
    "TokenizerConfig",
    "TrainConfig",
    "WandbConfig",
    "config_from_mapping",
    "config_reference",
    "config_schema",
    "config_text",
    "config_warnings",
    "is_deterministic",
    "load_config",
]
