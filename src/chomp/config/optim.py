"""The `optim` section: learning rate schedule and optimizer."""

from typing import Annotated, Any, Literal

from annotated_types import Interval
from pydantic import Field

from chomp.config.base import Count, CountOrZero, NotNegative, Positive, Rate, Section

RATE_KEYS = frozenset(
    {
        *("lr", "warmup_steps", "decay_steps", "min_lr_ratio", "rewarm_steps", "rewarm_from"),
        *("weight_decay", "grad_clip_norm", "muon.lr_scale", "muon.weight_decay_mult"),
    }
)
"""Keys that are inputs of the compiled step: with other values it is the same program."""


class MuonConfig(Section):
    """Muon, used for the projections' matrices with `optim.name: muon`."""

    lr_scale: Positive = 100.0
    """Muon's learning rate is `optim.lr` times this."""
    weight_decay_mult: NotNegative = 1.0
    """Muon's weight decay is `optim.weight_decay` times this."""
    momentum: Rate = 0.95
    """Decay of the averaged gradient."""
    ns_steps: Count = 5
    """Newton-Schulz iterations that orthogonalise an update."""
    nesterov: bool = True
    """Look ahead by one momentum step."""
    consistent_rms: Positive | None = None
    """Scale updates so that their root mean square is about this for a matrix of any shape (0.2
    is AdamW's usual size). `null`: no shape scaling."""
    allow_all_2d: bool = False
    """Use Muon for every matrix of the model, not only for the known projections."""
    allow_tied_embed: bool = False
    """Use Muon for an embedding that is the output head too (`model.share_emb`)."""


class AdamConfig(Section):
    """AdamW, used for all parameters, or with Muon for those that aren't projections."""

    b1: Rate = 0.9
    """Decay of the averaged gradient."""
    b2: Rate = 0.999
    """Decay of the averaged squared gradient."""
    eps: Positive = 1e-8
    """Added to the root of the averaged squared gradient."""
    nesterov: bool = False
    """Look ahead by one momentum step (NAdamW)."""


class OptimConfig(Section):
    """The optimizer and its learning rate: linear warm-up, then cosine decay."""

    name: Literal["adamw", "muon"] = "adamw"
    """`adamw` for all parameters; or `muon` for the projections' matrices and AdamW for the
    rest."""
    lr: Positive = 3e-4
    """Highest learning rate, reached at the end of the warm-up."""
    weight_decay: NotNegative = 0.01
    """Decoupled weight decay, on matrices only."""
    grad_clip_norm: NotNegative = 1.0
    """Gradients with a larger global norm are scaled down to this one. 0: never."""
    warmup_steps: CountOrZero = 10
    """Updates in which the learning rate rises; the first is above 0 already."""
    decay_steps: Count | None = None
    """Updates from the end of the warm-up until the lowest rate, which then stays. `null`: until
    `train.steps`."""
    min_lr_ratio: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Lowest learning rate, as a share of `lr`."""
    rewarm_steps: Count | None = None
    """Updates in which the learning rate rises once more, where a run goes on with something
    changed. `null`: it doesn't."""
    rewarm_from: CountOrZero | None = None
    """Finished steps at which that begins. `null`: at the checkpoint that the run goes on from."""
    muon: MuonConfig = Field(default_factory=MuonConfig)
    """Muon's own settings."""
    adam: AdamConfig = Field(default_factory=AdamConfig)
    """Adam's own settings."""

    def without_rates(self) -> dict[str, Any]:
        """Return all values but those of `RATE_KEYS`."""
        values = self.model_dump(mode="json")
        for key in RATE_KEYS:
            *sections, last = key.split(".")
            section = values
            for name in sections:
                section = section[name]
            del section[last]
        return values

    def decay_length(self, steps: int) -> int:
        """Return the updates from the end of the warm-up to the lowest rate.

        Args:
            steps: number of them in the whole run.
        """
        return max(1, steps - self.warmup_steps) if self.decay_steps is None else self.decay_steps
