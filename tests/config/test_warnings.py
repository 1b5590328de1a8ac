from collections.abc import Callable

import pytest

from chomp.config import Config, config_warnings, is_deterministic


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("", None),
        ("model: {use_checkpoint: true}\ntrain: {deterministic: false}", None),
        ("model: {use_checkpoint: true, dropout: 0.1}", None),
        (
            "model: {pad_token_id: 2}",
            "model.pad_token_id: is the same as model.eos_token_id (2); EOS at the end of a "
            "document is still trained on here",
        ),
        (
            "model: {use_checkpoint: true}",
            "model.use_checkpoint: has no effect in a deterministic run; set "
            "train.deterministic: false",
        ),
        (
            "model: {use_checkpoint: true}\ntrain: {deterministic: true}",
            "model.use_checkpoint: has no effect in a deterministic run",
        ),
        (
            "model: {hidden_dropout: 0.1}\ntrain: {deterministic: true}",
            "model.hidden_dropout: has no effect with train.deterministic: true (got 0.1)",
        ),
        (
            "model: {backend: dummy, dropout: 0.1}",
            "model.dropout: has no effect with model.backend: dummy",
        ),
        (
            "model: {backend: dummy, d_model: 8, num_layers: 9, swiglu: true, chunk_size: 64}",
            "model.num_layers, model.swiglu: have no effect with model.backend: dummy",
        ),
        ("model: {d_model: 8}", "model.d_model: has no effect with model.backend: megalodon"),
        (
            "data: {isolate_documents: true, mask_boundary_loss: false}",
            "data.mask_boundary_loss: false has no effect with data.isolate_documents: true",
        ),
        (
            "data: {files: [a]}",
            "data.files: is not used with data.backend: hf; it needs files",
        ),
        (
            "data: {tokens_dir: a}",
            "data.tokens_dir: is not used with data.backend: hf; it needs tokens",
        ),
        (
            "data: {tokenizer: {hf_name_or_path: x}}",
            "data.tokenizer.hf_name_or_path: is not used with data.tokenizer.kind: byte",
        ),
        ("train: {ema: 0.99, ema_from: 50}", None),
        ("train: {ema_from: 50}", "train.ema_from: has no effect without train.ema"),
        ("optim: {schedule: wsd, decay_share: 0.5, decay_shape: linear}", None),
        (
            "optim: {decay_share: 0.5}",
            "optim.decay_share: has no effect with optim.schedule: linear",
        ),
    ],
)
def test_warnings(load: Callable[..., Config], text: str, start: str | None) -> None:
    warnings = config_warnings(load(text))
    assert len(warnings) == (start is not None)
    assert all(warning.startswith(start or "") for warning in warnings)


def test_deterministic_null_follows_the_dropout_rates(load: Callable[..., Config]) -> None:
    assert is_deterministic(load(""))
    assert not is_deterministic(load("model: {attention_dropout: 0.1}"))
    assert not is_deterministic(load("train: {deterministic: false}"))
