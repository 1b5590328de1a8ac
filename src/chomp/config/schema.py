"""The whole configuration: its sections, and the rules between them."""

from pydantic import Field, ValidationInfo, model_validator

from chomp.config.base import Section
from chomp.config.data import DataConfig
from chomp.config.model import ModelConfig
from chomp.config.optim import OptimConfig
from chomp.config.parallel import ParallelConfig
from chomp.config.records import CheckpointConfig, DebugConfig, LoggingConfig, RuntimeConfig
from chomp.config.train import TrainConfig
from chomp.config.validators.general import check_rules


class Config(Section):
    """A run's configuration, complete and checked; all defaults give a valid one."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    """The network."""
    data: DataConfig = Field(default_factory=DataConfig)
    """Documents, tokens, rows."""
    train: TrainConfig = Field(default_factory=TrainConfig)
    """The run and its steps."""
    optim: OptimConfig = Field(default_factory=OptimConfig)
    """Learning rate and optimizer."""
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    """Saved states."""
    logging: LoggingConfig = Field(default_factory=LoggingConfig)
    """Metrics, console, log files."""
    debug: DebugConfig = Field(default_factory=DebugConfig)
    """Checks that cost little."""
    parallel: ParallelConfig = Field(default_factory=ParallelConfig)
    """Devices that share the work."""
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig)
    """The machine that runs it."""

    @model_validator(mode="after")
    def _obeys_the_rules_between_keys(self, info: ValidationInfo) -> "Config":
        check_rules(self, invalid=(info.context or {}).get("invalid", frozenset()))
        return self
