"""All sections of a configuration, each valid by itself."""

from pydantic import Field

from chomp.config.base import Section
from chomp.config.data import DataConfig
from chomp.config.model import ModelConfig
from chomp.config.optim import OptimConfig
from chomp.config.parallel import ParallelConfig
from chomp.config.records import CheckpointConfig, DebugConfig, LoggingConfig, RuntimeConfig
from chomp.config.train import TrainConfig


class Sections(Section):
    """A configuration before the rules between its keys are checked."""

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
