# Copyright 2026 the chomp authors.
#
# Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except
# in compliance with the License. You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software distributed under the License
# is distributed on an "AS IS" BASIS, WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express
# or implied. See the License for the specific language governing permissions and limitations under
# the License.
"""Megalodon (Ma et al., 2024, arXiv:2404.08801) for transformers, in plain PyTorch.

Parameters have the names and layouts of the released PyTorch implementation. Norms, the moving
average and rotary positions are computed in float32 whatever the model's dtype, as there.

Padding, on any side, takes no part: each row's real tokens are moved to its beginning, and what
depends on a position counts real tokens only. So a cache holds, for each row, how many it has seen.
"""

import inspect
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .configuration_megalodon import MegalodonConfig

BLOCK = 256
"""Steps of the moving average that are computed together."""


class NormState(NamedTuple):
    """What TimestepNorm knows of the tokens before, [batch, groups] each."""

    mean: Tensor
    var: Tensor


class LayerState(NamedTuple):
    """What a layer knows of the tokens before.

    Keys and values, [batch, columns, heads, dim], are those of the rows' unfinished chunks; the
    moving average is complex, [batch, dim, orders].
    """

    norm: NormState
    average: Tensor
    keys: Tensor
    values: Tensor


class MegalodonCache:
    """What the model knows of the tokens before.

    It has keys and values since the beginning of the chunk of the row that is furthest behind.
    """

    is_compileable = False
    is_croppable = False
    is_linear = (True,)
    is_sliding = (False,)

    def __init__(self) -> None:
        self.columns = 0
        """Columns of the input so far, padding included."""
        self.lengths: Tensor | None = None
        """Real tokens of each row so far."""
        self.positions: Tensor | None = None
        """Of the keys in their rows, [batch, columns]; -1 where there is none."""
        self.layers: list[LayerState] = []
        self.final_norm: NormState | None = None

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the columns of the input so far."""
        return self.columns

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Take the rows `beam_idx`, as beam search chooses them."""
        if self.lengths is None:
            return

        def rows(tensor: Tensor) -> Tensor:
            return tensor.index_select(0, beam_idx.to(tensor.device))

        self.lengths, self.positions = rows(self.lengths), rows(self.positions)
        self.layers = [
            LayerState(NormState(*map(rows, layer.norm)), *map(rows, layer[1:]))
            for layer in self.layers
        ]
        self.final_norm = NormState(*map(rows, self.final_norm))


class Window(NamedTuple):
    """Queries from `begin` to `end`, and the keys that some of them see."""

    begin: int
    end: int
    first_key: int
    last_key: int
    mask: Tensor
    """[batch, 1, queries, keys]"""


@dataclass
class Call:
    """What all layers need to know of a call's tokens, the rows' real ones first.

    Attributes:
        before: real tokens of each row in earlier calls, [batch].
        counts: real tokens of each row in this call, [batch].
        padded: whether any row has fewer of them than the call has columns.
        positions: of the keys, the kept ones of earlier calls first, [batch, keys]; -1: padding.
        keep: column of the first key that a later call needs.
        cos, sin: rotary factors, [batch, time, 1, head_dim / 2].
        windows: of attention.
    """

    before: Tensor
    counts: Tensor
    padded: bool
    positions: Tensor
    keep: int
    cos: Tensor
    sin: Tensor
    windows: list[Window]
    valid: Tensor = field(init=False)
    """[batch, time]"""

    def __post_init__(self) -> None:
        time = torch.arange(self.cos.shape[1], device=self.counts.device)
        self.valid = time < self.counts[:, None]


def plan_call(mask: Tensor, cache: MegalodonCache | None, chunk: int, freqs: Tensor) -> Call:
    """Return the plan of a call.

    Args:
        mask: True for real tokens, which come first, [batch, time].
        cache: what is known of the tokens before.
        chunk: tokens that attention looks at together.
        freqs: rotary frequencies.
    """
    batch, length = mask.shape
    counts = mask.sum(1)
    before, earlier = torch.zeros_like(counts), counts.new_zeros(batch, 0)
    if cache is not None and cache.lengths is not None:
        before, earlier = cache.lengths, cache.positions
    new = before[:, None] + torch.arange(length, device=mask.device)
    positions = torch.cat([earlier, new.masked_fill(~mask, -1)], 1)
    angles = (new % chunk)[..., None, None].float() * freqs.float()
    unfinished = (before + counts) // chunk * chunk
    needed = (positions >= unfinished[:, None]).any(0)
    return Call(
        before,
        counts,
        not bool(mask.all()),
        positions,
        int(needed.int().argmax()) if bool(needed.any()) else positions.shape[1],
        angles.cos(),
        angles.sin(),
        windows_of(positions, earlier.shape[1], chunk, aligned=not bool(before.any())),
    )


def windows_of(positions: Tensor, earlier: int, chunk: int, *, aligned: bool) -> list[Window]:
    """Split the queries, which are all keys after the `earlier` ones, into windows of a chunk.

    Args:
        positions: of the keys.
        earlier: keys of earlier calls.
        chunk: tokens that attention looks at together.
        aligned: whether all rows begin at position 0, so that a window is a chunk.
    """
    chunks = positions.div(chunk, rounding_mode="floor")
    windows = []
    for begin in range(0, positions.shape[1] - earlier, chunk):
        start, end = earlier + begin, min(earlier + begin + chunk, positions.shape[1])
        # A chunk of a row that began elsewhere reaches into the window before.
        first = start if aligned else max(start - chunk, 0) if begin else 0
        same = chunks[:, start:end, None] == chunks[:, None, first:end]
        past = positions[:, start:end, None] >= positions[:, None, first:end]
        mask = (same & past)[:, None]
        windows.append(Window(begin, end - earlier, first, end, mask))
    return windows


class Parameters(nn.Module):
    """Parameters of given shapes, zero until weights are loaded."""

    def __init__(self, **shapes: tuple[int, ...]):
        super().__init__()
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))


class TimestepNorm(Parameters):
    """Normalises each group of channels by all that it has held up to a token."""

    def __init__(self, dim: int, groups: int, eps: float):
        super().__init__(weight=(dim,), bias=(dim,))
        self.groups, self.eps = groups, eps
        self.register_buffer("prior_count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("prior_mean", torch.zeros(groups))
        self.register_buffer("prior_logv", torch.zeros(groups))

    def forward(self, x: Tensor, call: Call, state: NormState | None) -> tuple[Tensor, NormState]:
        """Return the normalised tokens and what is known after them."""
        batch, length, _ = x.shape
        if state is None:
            priors = self.prior_mean.float(), self.prior_logv.float().exp()
            state = NormState(*(prior.expand(batch, -1) for prior in priors))
        values = x.float().view(batch, length, self.groups, -1)
        mean = values.mean(-1)
        var = (values - mean[..., None]).square().mean(-1)
        known = (call.before + self.prior_count).float()[:, None]
        # Sums of differences to a near value: those of squares would lose their digits.
        anchor = torch.where(known > 0, state.mean, mean[:, 0])
        shift = mean - anchor[:, None]
        moments = torch.stack([shift, var + shift.square()]) * call.valid[..., None]
        sums = moments.cumsum(2)
        offset = state.mean - anchor
        start = torch.stack([offset, state.var + offset.square()]) * known
        count = known[:, None] + call.valid.cumsum(1)[..., None]
        first, second = (start[:, :, None] + sums) / count.clamp_min(1)
        mean, var = anchor[:, None] + first, (second - first.square()).clamp_min(0)
        normal = (values - mean[..., None]) * torch.rsqrt(var[..., None] + self.eps)
        out = normal.reshape(x.shape) * (self.weight.float() + 1) + self.bias.float()
        return out.to(x.dtype), NormState(mean[:, -1], var[:, -1])


class ComplexEMA(Parameters):
    """A moving average h[t] = q h[t-1] + p x[t] of complex q, and Re(gamma h) + omega x of it."""

    def __init__(self, dim: int, orders: int):
        super().__init__(
            alpha=(dim, orders, 1),
            delta=(dim, orders, 1),
            theta=(dim, 1, 1),
            gamma=(dim, orders, 2),
            omega=(dim, 1),
        )
        self.orders = orders

    def coefficients(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return p, q and gamma, [dim, orders] each."""
        p, decay = (each.float().sigmoid()[..., 0] for each in (self.alpha, self.delta))
        orders = torch.arange(1, self.orders + 1, device=p.device, dtype=torch.float32)
        angle = orders * self.theta.float().sigmoid()[..., 0] * (2 * math.pi / self.orders)
        q = torch.polar(1 - p * decay, angle)
        gamma = torch.view_as_complex(self.gamma.float().contiguous())
        return p, q, gamma / math.sqrt(self.orders)

    def forward(self, x: Tensor, call: Call, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the averages [batch, time, dim] and the state after them."""
        batch, length, dim = x.shape
        values = (x.float() * call.valid[..., None]).transpose(1, 2)
        p, q, gamma = self.coefficients()
        if state is None:
            state = q.new_zeros(batch, dim, self.orders)
        powers = powers_of(q, min(length, BLOCK) + 1)
        kernel = torch.einsum("dn,dnt->dt", gamma * p, powers[..., :-1]).real
        out = []
        for begin in range(0, length, BLOCK):
            block = values[..., begin : begin + BLOCK]
            size = block.shape[-1]
            from_state = torch.einsum("bdn,dnt->bdt", state * gamma, powers[..., 1 : size + 1]).real
            out.append(convolve(block, kernel[:, :size]) + from_state)
            counts = (call.counts - begin).clamp(0, size) if call.padded else None
            state = advance(state, block, p, powers[..., : size + 1], counts)
        average = torch.cat(out, -1) + values * self.omega.float()
        return average.transpose(1, 2).to(x.dtype), state


def powers_of(q: Tensor, count: int) -> Tensor:
    """Return q to the powers 0 to `count` - 1, [dim, orders, count], by products of them."""
    powers = torch.stack([torch.ones_like(q), q], -1)
    while powers.shape[-1] < count:
        powers = torch.cat([powers, powers[..., 1:] * powers[..., -1:]], -1)
    return powers[..., :count]


def convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """Return sums of kernel[t - s] x[s] over s <= t, [batch, dim, time]."""
    length = x.shape[-1]
    if length == 1:
        return x * kernel
    size = 1 << (2 * length - 1).bit_length()
    product = torch.fft.rfft(x, size) * torch.fft.rfft(kernel, size)
    return torch.fft.irfft(product, size)[..., :length]


def advance(state: Tensor, x: Tensor, p: Tensor, powers: Tensor, counts: Tensor | None) -> Tensor:
    """Return the average's state after the first `counts` steps of each row; None: after all."""
    length = x.shape[-1]
    if counts is None:
        decay = powers[..., length]
    else:
        decay = powers[..., counts].permute(2, 0, 1)
        source = torch.arange(length, device=x.device) - (length - counts)[:, None]
        x = x.gather(-1, source.clamp_min(0)[:, None].expand_as(x)) * (source >= 0)[:, None]
    driven = torch.einsum("bdt,dnt->bdn", x.to(powers.dtype), powers[..., :length].flip(-1))
    return decay * state + p * driven


def rms_normalize(x: Tensor, eps: float) -> Tensor:
    """Return `x` in float32 divided by its root mean square."""
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def rotate(x: Tensor, call: Call) -> Tensor:
    """Turn pairs of adjacent features by their tokens' positions."""
    first, second = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    pairs = first * call.cos - second * call.sin, second * call.cos + first * call.sin
    return torch.stack(pairs, -1).flatten(-2).to(x.dtype)


class Attention(nn.Module):
    """Gated attention over the moving average, within chunks."""

    def __init__(self, config: MegalodonConfig):
        super().__init__()
        dim, z_dim, value_dim = config.model_dim, config.z_dim, config.value_dim
        self.heads, self.eps = config.num_heads, config.norm_eps
        self.softmax_dtype = getattr(torch, config.softmax_dtype)
        self.timenorm = TimestepNorm(dim, config.norm_num_groups, config.norm_eps)
        self.cema = ComplexEMA(dim, config.cema_ndim)
        self.rmsnorm = Parameters(weight=(dim,)) if config.norm_affine else None
        self.wz, self.wv, self.wr = (nn.Linear(dim, out) for out in (z_dim, value_dim, value_dim))
        self.wh1 = nn.Linear(dim, dim)
        self.wh2 = nn.Linear(value_dim, dim, bias=False)
        self.gamma = nn.Parameter(torch.zeros(2, z_dim))
        self.beta = nn.Parameter(torch.zeros(2, z_dim))

    def forward(self, x: Tensor, call: Call, state: LayerState | None) -> tuple[Tensor, LayerState]:
        """Return the output, the input added, and what is known after it."""
        normal, norm = self.timenorm(x, call, None if state is None else state.norm)
        average, ema = self.cema(normal, call, None if state is None else state.average)
        mixed = rms_normalize(average, self.eps).to(x.dtype)
        if self.rmsnorm is not None:
            mixed = mixed * (self.rmsnorm.weight.float() + 1).to(x.dtype)
        queries, keys = self.queries_and_keys(mixed, call)
        values = F.silu(self.wv(normal)).unflatten(-1, (self.heads, -1))
        if state is not None:
            keys = torch.cat([state.keys, keys], 1)
            values = torch.cat([state.values, values], 1)
        seen = self.attend(queries, keys, values, call).flatten(2)
        out = self.wh1(mixed) + self.wh2(seen * F.silu(self.wr(mixed))) + x
        return out, LayerState(norm, ema, keys[:, call.keep :], values[:, call.keep :])

    def queries_and_keys(self, mixed: Tensor, call: Call) -> list[Tensor]:
        """Return both, rotated, [batch, time, heads, dim]."""
        z = rms_normalize(self.wz(mixed).unflatten(-1, (self.heads, -1)), self.eps)
        scale = (self.gamma.float() + 1).unflatten(-1, (self.heads, -1)) / math.sqrt(z.shape[-1])
        shift = self.beta.float().unflatten(-1, (self.heads, -1))
        return [rotate((z * scale[i] + shift[i]).to(mixed.dtype), call) for i in range(2)]

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, call: Call) -> Tensor:
        """Return what each token sees, [batch, time, heads, dim]."""
        out = []
        for begin, end, first, last, mask in call.windows:
            q = queries[:, begin:end].transpose(1, 2)
            k = keys[:, first:last].permute(0, 2, 3, 1)
            v = values[:, first:last].transpose(1, 2)
            scores = (q.float() @ k.float()).masked_fill(~mask, float("-inf"))
            weights = scores.to(self.softmax_dtype).softmax(-1).to(v.dtype)
            out.append((weights @ v).transpose(1, 2))
        return torch.cat(out, 1)


class FeedForward(nn.Module):
    """A normalised feed-forward network, added to the input of its block's attention."""

    def __init__(self, config: MegalodonConfig):
        super().__init__()
        dim, hidden = config.model_dim, config.ffn_hidden_dim
        self.eps = config.norm_eps
        self.norm = Parameters(weight=(dim,), bias=(dim,)) if config.norm_affine else None
        self.fc1 = nn.Linear(dim, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, dim, bias=False)
        self.fc3 = nn.Linear(dim, hidden, bias=False) if config.swiglu else None
        self.alpha = nn.Parameter(torch.zeros(dim)) if config.rescale_nffn else None

    def forward(self, x: Tensor, block_input: Tensor) -> Tensor:
        """Return the block's output."""
        normal = F.layer_norm(x.float(), x.shape[-1:], eps=self.eps).to(x.dtype)
        if self.norm is not None:
            scale, shift = (self.norm.weight.float() + 1).to(x.dtype), self.norm.bias.to(x.dtype)
            normal = normal * scale + shift
        hidden = F.silu(self.fc1(normal))
        if self.fc3 is not None:
            hidden = hidden * self.fc3(normal)
        out = self.fc2(hidden)
        if self.alpha is not None:
            out = out * self.alpha.to(out.dtype)
        return block_input + out


class Layer(nn.Module):
    """A block: attention, then the feed-forward network."""

    def __init__(self, config: MegalodonConfig):
        super().__init__()
        self.mega, self.nffn = Attention(config), FeedForward(config)

    def forward(self, x: Tensor, call: Call, state: LayerState | None) -> tuple[Tensor, LayerState]:
        """Return the block's output and what is known after it."""
        seen, state = self.mega(x, call, state)
        return self.nffn(seen, x), state


class Rope(nn.Module):
    """The frequencies of rotary positions."""

    def __init__(self, config: MegalodonConfig):
        super().__init__()
        half = config.z_dim // config.num_heads // 2
        exponents = torch.arange(half, dtype=torch.float32) / half
        self.register_buffer("freqs", float(config.rope_base) ** -exponents)


class Output(nn.Module):
    """The last norm, and the matrix that gives logits."""

    def __init__(self, config: MegalodonConfig):
        super().__init__()
        size = config.vocab_size if config.output_size == -1 else config.output_size
        self.final_norm = TimestepNorm(config.model_dim, config.norm_num_groups, config.norm_eps)
        self.output = nn.Linear(config.model_dim, size, bias=False)


class MegalodonForCausalLM(PreTrainedModel, GenerationMixin):
    """Megalodon with a head for the next token."""

    config_class = MegalodonConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    _is_stateful = True
    _no_split_modules = ["Layer"]  # noqa: RUF012  (transformers reads it so)
    _tied_weights_keys = {"output.output.weight": "embed.weight"}  # noqa: RUF012
    # With the model in bfloat16 these stay in float32, as they do in training.
    _keep_in_fp32_modules_strict = [  # noqa: RUF012
        *("timenorm", "final_norm", "cema", "rmsnorm", "norm", "gamma", "beta", "alpha", "rope")
    ]

    def __init__(self, config: MegalodonConfig):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.model_dim)
        self.rope = Rope(config)
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.num_layers)])
        self.output = Output(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding."""
        return self.embed

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the embedding."""
        self.embed = value

    def get_output_embeddings(self) -> nn.Module:
        """Return the matrix that gives logits."""
        return self.output.output

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the matrix that gives logits."""
        self.output.output = new_embeddings

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        cache: MegalodonCache | None = None,
        past_key_values: MegalodonCache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Return logits, the loss if there are labels, and the cache if it is used.

        Logits are float32. Those of a padded place are its row's last real token's before it.

        Args:
            input_ids: new tokens, [batch, time].
            attention_mask: 1 for real tokens, 0 for padding; columns of earlier calls may precede.
            labels: the tokens themselves, -100 where none is to be predicted.
            cache: of the calls before; the call adds to it.
            past_key_values: what earlier versions of transformers call `cache`.
            use_cache: return a cache.
            logits_to_keep: only those of the last so many places; 0: all.
            kwargs: `num_items_in_batch`, by which the loss is divided.
        """
        cache = past_key_values if cache is None else cache
        if cache is not None and not isinstance(cache, MegalodonCache):
            raise TypeError(f"the cache must be a MegalodonCache (got {type(cache).__name__})")
        if use_cache is None:
            use_cache = self.config.use_cache and labels is None
        if use_cache and cache is None:
            cache = MegalodonCache()
        hidden = self.hidden_states(input_ids, attention_mask, cache, use_cache)
        weight = self.output.output.weight
        logits = F.linear(hidden[:, -logits_to_keep:].float(), weight.float())
        loss = None
        if labels is not None:
            items = kwargs.get("num_items_in_batch")
            size = logits.shape[-1]
            loss = self.loss_function(logits, labels, vocab_size=size, num_items_in_batch=items)
        kept = {cache_name(): cache if use_cache else None}
        return CausalLMOutputWithPast(loss=loss, logits=logits, **kept)

    def hidden_states(
        self,
        ids: Tensor,
        attention_mask: Tensor | None,
        cache: MegalodonCache | None,
        use_cache: bool,
    ) -> Tensor:
        """Return the normalised output of the last layer; add to the cache if it is used."""
        mask = torch.ones_like(ids, dtype=torch.bool)
        if attention_mask is not None:
            if attention_mask.dim() != 2 or attention_mask.shape[1] < ids.shape[1]:
                raise ValueError(
                    "attention_mask must be [batch, time], at least as long as input_ids (got "
                    f"{list(attention_mask.shape)} for {list(ids.shape)})"
                )
            mask = attention_mask[:, -ids.shape[1] :].bool()
        order = None
        if not bool(mask.all()):
            order = mask.int().argsort(dim=1, descending=True, stable=True)
            place = (mask.cumsum(1) - 1).clamp_min(0)
            ids, mask = ids.gather(1, order), mask.gather(1, order)
        call = plan_call(mask, cache, self.config.chunk_size, self.rope.freqs)
        states: list[Any] = cache.layers if cache is not None and cache.layers else []
        x = self.embed(ids)
        if self.config.scale_emb:
            x = x * math.sqrt(self.config.model_dim)
        after = []
        for index, layer in enumerate(self.layers):
            x, state = layer(x, call, states[index] if states else None)
            after.append(state)
        x, final = self.output.final_norm(x, call, cache.final_norm if cache else None)
        if use_cache and cache is not None:
            cache.columns += mask.shape[1]
            cache.lengths = call.before + call.counts
            cache.positions = call.positions[:, call.keep :]
            cache.layers, cache.final_norm = after, final
        if order is not None:
            x = x.gather(1, place[..., None].expand_as(x))
        return x

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return a call's arguments: those of the tokens that the cache hasn't seen."""
        cache = kwargs.get("cache", kwargs.get("past_key_values"))
        if cache is not None:
            total = input_ids.shape[1] if attention_mask is None else attention_mask.shape[1]
            if total <= cache.columns:
                raise ValueError(
                    f"there is no new token: the cache has seen {cache.columns} columns already"
                )
            input_ids = input_ids[:, cache.columns - total :]
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "cache": cache,
            "use_cache": use_cache,
            "logits_to_keep": logits_to_keep or 0,
        }

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # the call makes one of its own kind


def cache_name() -> str:
    """Return what this version of transformers calls the cache in a model's output."""
    fields = inspect.signature(CausalLMOutputWithPast).parameters
    return "cache" if "cache" in fields else "past_key_values"
