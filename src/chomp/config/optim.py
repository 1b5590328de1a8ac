"""The `optim` section: learning rate schedule and optimizer."""

from typing import Annotated, Any, Literal

from annotated_types import Interval
from pydantic import Field

from chomp.config.base import Count, CountOrZero, NotNegative, Positive, Rate, Section

RATE_KEYS = frozenset(
    {
        *("lr", "warmup_steps", "decay_steps", "min_lr_ratio", "rewarm_steps", "rewarm_from"),
        *("schedule", "decay_share", "decay_shape"),
        *("weight_decay", "weight_decay_tokens", "grad_clip_norm"),
        *("muon.lr", "muon.lr_scale", "muon.weight_decay_mult"),
        *("lr_scales.embedding", "lr_scales.head", "lr_scales.vectors"),
    }
)
"""Keys that are inputs of the compiled step: with other values it is the same program."""


class MuonConfig(Section):
    """Muon, used for the projections' matrices with `optim.name: muon`."""

    lr: Positive | None = None
    """Muon's highest learning rate, on the schedule of `optim.lr`. `null`: `optim.lr` times
    `lr_scale`."""
    lr_scale: Positive = 100.0
    """Muon's learning rate is `optim.lr` times this, unless `lr` is given."""
    weight_decay_mult: NotNegative = 1.0
    """Muon's weight decay is `optim.weight_decay` times this."""
    momentum: Rate = 0.95
    """Decay of the averaged gradient."""
    ns_steps: Count = 5
    """Newton-Schulz iterations that orthogonalise an update."""
    coefficients: Literal["standard", "polar_express"] = "standard"
    """Of these iterations: Jordan's, the same for all, or those of Polar Express
    (arXiv:2505.16932), which come nearer to an orthogonal matrix."""
    normalize_neurons: bool = False
    """Give the rows of an update, one for each output, equal size by their averaged mean square
    (NorMuon, arXiv:2510.05491)."""
    b2: Rate = 0.95
    """Decay of that average."""
    nesterov: bool = True
    """Look ahead by one momentum step."""
    consistent_rms: Positive | None = None
    """Scale updates so that their root mean square is about this for a matrix of any shape (0.2
    is AdamW's usual size). `null`: no shape scaling."""
    include_head: bool = True
    """Use Muon for the output head too; otherwise AdamW."""
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
    b2_half_life: Positive | None = None
    """Tokens in which the weight of a gradient in that average halves (arXiv:2507.07101): `b2` is
    computed from it and from the tokens of a step. `null`: `b2` as it is."""
    eps: Positive = 1e-8
    """Added to the root of the averaged squared gradient."""
    nesterov: bool = False
    """Look ahead by one momentum step (NAdamW)."""


class LearningRateScales(Section):
    """Learning rates of single groups of parameters, as factors of the schedule."""

    embedding: Positive = 1.0
    """Of the embedding."""
    head: Positive = 1.0
    """Of the output head."""
    vectors: Positive = 1.0
    """Of biases, norms, ComplexEMA and other parameters that are not matrices."""


class OptimConfig(Section):
    """The optimizer and its learning rate: linear warm-up, then a schedule."""

    name: Literal["adamw", "muon"] = "adamw"
    """`adamw` for all parameters; or `muon` for the projections' matrices and AdamW for the
    rest."""
    lr: Positive = 3e-4
    """Highest learning rate, reached at the end of the warm-up."""
    weight_decay: NotNegative = 0.1
    """Decoupled weight decay, on matrices only."""
    weight_decay_tokens: Positive | None = None
    """Tokens after which weight decay at the highest rate has shrunk a weight to 1/e of itself
    (arXiv:2405.13698): `weight_decay` is computed from it, from each group's highest rate and the
    tokens of a step. `null`: `weight_decay` as it is."""
    cautious_weight_decay: bool = False
    """Decay a weight only where its update makes it smaller too (arXiv:2510.12402)."""
    grad_clip_norm: NotNegative = 1.0
    """Gradients with a larger global norm are scaled down to this one. 0: never."""
    warmup_steps: CountOrZero = 10
    """Updates in which the learning rate rises; the first is above 0 already."""
    schedule: Literal["linear", "cosine", "wsd", "constant"] = "linear"
    """The rate after the warm-up. `linear` and `cosine` fall from there. `wsd` stays at `lr` and
    falls at the end of the run only, so that a run can be lengthened, or cooled down from any of
    its checkpoints. `constant` never falls."""
    decay_steps: Count | None = None
    """Updates from the highest rate to the lowest, which then stays. `null`: from the end of the
    warm-up until `train.steps`; with `wsd` the last `decay_share` of them."""
    decay_share: Annotated[float, Interval(gt=0, le=1)] = 0.2
    """Share of `train.steps` in which the rate of `wsd` falls, at the end."""
    decay_shape: Literal["linear", "sqrt"] = "sqrt"
    """How the rate of `wsd` falls: along a line, or as one less the square root of the share of the
    fall that is done."""
    min_lr_ratio: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Lowest learning rate, as a share of `lr`."""
    rewarm_steps: Count | None = None
    """Updates in which the learning rate rises once more, where a run goes on with something
    changed. `null`: it doesn't."""
    rewarm_from: CountOrZero | None = None
    """Finished steps at which that begins. `null`: at the checkpoint that the run goes on from."""
    lr_scales: LearningRateScales = Field(default_factory=LearningRateScales)
    """Factors of the rate for single groups of parameters."""
    muon: MuonConfig = Field(default_factory=MuonConfig)
    """Muon's own settings."""
    adam: AdamConfig = Field(default_factory=AdamConfig)
    """Adam's own settings."""

    @property
    def fall(self) -> Literal["cosine", "linear", "sqrt"]:
        """The curve along which the rate falls."""
        if self.schedule == "wsd":
            return self.decay_shape
        return "cosine" if self.schedule == "cosine" else "linear"

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
        """Return the updates from the highest rate to the lowest.

        Args:
            steps: number of them in the whole run.
        """
        after_warmup = max(1, steps - self.warmup_steps)
        if self.schedule == "wsd":
            return min(self.decay_steps or max(1, round(self.decay_share * steps)), after_warmup)
        return after_warmup if self.decay_steps is None else self.decay_steps

    def decay_start(self, steps: int) -> int:
        """Return the updates before the rate begins to fall.

        Args:
            steps: number of them in the whole run.
        """
        if self.schedule == "wsd":
            return max(self.warmup_steps, steps - self.decay_length(steps))
        return self.warmup_steps
