import dataclasses
from pathlib import Path

import pytest
from megalodon_jax import MegalodonConfig

from chomp.config import config_warnings, load_config

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
ALL = [*CONFIGS.glob("*.yaml"), *(ROOT / "scripts" / "bench_configs").glob("*.yaml")]


@pytest.mark.parametrize("path", sorted(ALL), ids=lambda path: path.name)
def test_shipped_configs_load_without_a_warning(path: Path) -> None:
    assert config_warnings(load_config(path)) == []


@pytest.mark.parametrize(
    ("name", "millions"),
    [("quickstart", 1.1), ("megalodon-100m", 102), ("megalodon-200m", 221), ("megalodon-7b", 7387)],
)
def test_their_comments_tell_the_right_size(name: str, millions: float) -> None:
    path = CONFIGS / f"{name}.yaml"
    model = load_config(path).model
    sizes = model.model_dump(
        include={
            "vocab_size",
            "model_dim",
            "num_layers",
            "num_heads",
            "z_dim",
            "value_dim",
            "ffn_hidden_dim",
            "cema_ndim",
            "share_emb",
            "swiglu",
        }
    )
    total = MegalodonConfig(**sizes).parameter_count_breakdown()["total"]
    assert round(total / 1e6, 1 if millions < 10 else 0) == millions
    assert f"{millions}M" in path.read_text()


@pytest.mark.parametrize("name", ["megalodon-100m", "megalodon-200m", "megalodon-7b"])
def test_activation_checkpointing_takes_effect_where_it_is_on(name: str) -> None:
    config = load_config(CONFIGS / f"{name}.yaml")
    # megalodon-jax recomputes nothing in a deterministic run.
    assert config.model.use_checkpoint == (config.train.deterministic is False)
    assert config.data.isolate_documents and config.data.packing_mode == "bin"


@pytest.mark.parametrize("name", ["megalodon-100m", "megalodon-200m"])
def test_those_of_one_gpu_have_131072_tokens_a_step(name: str) -> None:
    train = load_config(CONFIGS / f"{name}.yaml").train
    assert train.batch_size * train.grad_accum * train.seq_len == 131_072


def test_small_ones_run_without_network_and_gpu() -> None:
    for name in ("quickstart", "smoke"):
        config = load_config(CONFIGS / f"{name}.yaml")
        assert config.train.allow_cpu
        assert config.data.backend in ("builtin", "local_text")
        tokenizer = config.data.tokenizer
        assert (
            tokenizer.kind == "byte" or (CONFIGS.parent / str(tokenizer.hf_name_or_path)).exists()
        )


def test_the_largest_has_the_paper_s_sizes() -> None:
    model = load_config(CONFIGS / "megalodon-7b.yaml").model
    paper = MegalodonConfig.from_paper_7b(vocab_size=model.vocab_size)
    names = set(type(model).model_fields) & {field.name for field in dataclasses.fields(paper)}
    same = {name for name in names if getattr(model, name) == getattr(paper, name)}
    formats = {"param_dtype", "compute_dtype", "accum_dtype"}  # names here, types there
    assert names - same - formats == {"use_checkpoint", "pad_token_id"}
