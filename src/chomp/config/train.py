"""The `train` section: the length and shape of a run, and its periodic work."""

from typing import Annotated, Literal

from annotated_types import Interval

from chomp.config.base import Count, CountOrZero, Name, NotNegative, Positive, Section, Seed

DivergencePolicy = Literal["stop", "skip", "rewind"]
SpikePolicy = Literal["ignore", "warn", "rewind"]


class TrainConfig(Section):
    """How long the run is, the shape of a step, and the work done now and then."""

    seed: Seed = 0
    """Seed of the initial weights and of dropout (the document order has `data.seed`)."""
    init_from: Name | None = None
    """Where to take the initial weights from: a run's folder, `runs/first`, or a step of it,
    `runs/first:500`; a file of safetensors, or a folder that `chomp export` has written. Optimizer,
    schedule and data begin anew. `null`: random weights."""
    steps: Count = 100
    """Optimizer updates in the whole run."""
    batch_size: Count = 2
    """Rows per microbatch: what has to fit into memory at once."""
    seq_len: Count = 128
    """Tokens per row. A multiple of `model.chunk_size`."""
    grad_accum: Count = 1
    """Microbatches per update. A step sees `grad_accum * batch_size * seq_len` tokens; every
    target weighs the same, however targets are spread over the microbatches."""
    deterministic: bool | None = None
    """`true`: dropout off. `false`: dropout on. `null`: off exactly when all dropout rates are 0.
    Activation checkpointing (`model.use_checkpoint`) works only with `false`."""
    allow_cpu: bool = False
    """Let the run go on when JAX finds no accelerator; otherwise that is an error."""
    log_every: Count = 25
    """Steps between rows of metrics."""
    eval_every: CountOrZero = 2500
    """Steps between evaluations; there is also one at the end. 0: never evaluate."""
    generate_every: CountOrZero = 5000
    """Steps between generated samples (`megalodon` only). 0: never."""
    generate_input_len: Count | None = None
    """Longest prompt of a sample, in tokens. `null`: half of `seq_len`."""
    generate_max_tokens: Count | None = None
    """Tokens to generate for a sample. `null`: `model.chunk_size + 16`, so that generation
    crosses the end of a chunk."""
    generate_temperature: NotNegative | None = None
    """Divides the logits before sampling; 0 takes the likeliest token. `null`: megalodon-jax's
    default."""
    generate_top_k: Count | None = None
    """Sample among the k likeliest tokens. `null`: among all."""
    generate_top_p: Annotated[float, Interval(gt=0, le=1)] | None = None
    """Sample among the likeliest tokens that make up this share of the probability. `null`: among
    all."""
    ema: Annotated[float, Interval(gt=0, le=1)] | None = None
    """Decay of an exponential moving average of the parameters, kept beside them: each step keeps
    this share of it. Until there are `1 / (1 - ema)` steps in it, it is their plain mean, and with
    1.0 always. It is evaluated too; `chomp eval`, `generate` and `export` take it with `--ema`.
    `null`: none."""
    ema_from: CountOrZero = 0
    """Finished steps at which that average begins, such as 800 of 1,000."""
    on_divergence: DivergencePolicy = "stop"
    """What happens when loss or gradients are not finite; such an update is never applied. `stop`
    ends the run and names the batch; the newest checkpoint is a good one. `skip` goes on. `rewind`
    goes back to the newest checkpoint before it and leaves out the batches that did it."""
    divergence_limit: Count = 10
    """When to give up: with `skip`, after so many such steps in a row; with `rewind`, after so
    many times in one run."""
    on_spike: SpikePolicy = "warn"
    """What happens at a step whose loss lies far above those before it: nothing, a warning, or
    what `on_divergence: rewind` does."""
    spike_threshold: Positive = 10.0
    """How far: in robust standard deviations (1.4826 times the median absolute deviation) above
    the median."""
    spike_window: Count = 100
    """Steps that median and deviation are taken of."""
    profile: bool = False
    """Record a JAX profiler trace of a few steps."""
    profile_dir: Name | None = None
    """Folder of the trace. `null`: in the run folder."""
    jit: bool = True
    """Compile the training step. `false` is slow and for debugging only."""

    @property
    def tokens_per_step(self) -> int:
        """Positions of a step's batch, padding included."""
        return self.grad_accum * self.batch_size * self.seq_len
