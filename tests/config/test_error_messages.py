from collections.abc import Callable

import pytest

from chomp.config.keys import RENAMED, known_paths


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("train: {steps: 0}", "train.steps: must be greater than 0 (got 0)"),
        ("train: {steps: 1e3}", "train.steps: must be a whole number (got 1000.0); write 1000"),
        ("train: {steps: 1.5}", "train.steps: must be a whole number (got 1.5)"),
        (
            "train: {steps: '5'}",
            "train.steps: must be a whole number (got '5'); write it without quotes",
        ),
        ("train: {steps: true}", "train.steps: must be a whole number (got true)"),
        (
            "train: {steps: null}",
            "train.steps: must be a whole number (got null); leave the key out for its default",
        ),
        ("train: {steps: [5]}", "train.steps: must be a whole number (got a list)"),
        ("train: {steps: {a: 5}}", "train.steps: must be a whole number (got a mapping)"),
        (
            "train: {steps: 3000000000}",
            "train.steps: must be at most 2147483647 (got 3000000000)",
        ),
        (
            f"train: {{steps: {10**40}}}",
            "train.steps: must be at most 2147483647 (got a huge number)",
        ),
        ("train: {seed: -1}", "train.seed: must be at least 0 (got -1)"),
        ("train: {seed: 4294967296}", "train.seed: must be less than 4294967296 (got 4294967296)"),
        ("train: {jit: yes}", "train.jit: must be true or false (got 'yes'); write true"),
        ("train: {jit: 1}", "train.jit: must be true or false (got 1)"),
        ("train: {generate_top_p: 1.5}", "train.generate_top_p: must be at most 1 (got 1.5)"),
        ("model: {dropout: 1.0}", "model.dropout: must be less than 1 (got 1.0)"),
        ("model: {dropout: .nan}", "model.dropout: must be a finite number (got nan)"),
        ("optim: {lr: .inf}", "optim.lr: must be a finite number (got inf)"),
        ("optim: {lr: '1e-3'}", "optim.lr: must be a number (got '1e-3'); write it without quotes"),
        ("optim: {lr: fast}", "optim.lr: must be a number (got 'fast')"),
        ("optim: {lr: true}", "optim.lr: must be a number (got true)"),
        ("optim: {name: adam}", "optim.name: must be 'adamw' or 'muon' (got 'adam')"),
        ("data: {hf_dataset: 5}", "data.hf_dataset: must be text (got 5); put it in quotes"),
        ("data: {hf_dataset: ''}", "data.hf_dataset: must not be empty (got '')"),
        ("data: {files: a.txt}", "data.files: must be a list (got 'a.txt'); write ['a.txt']"),
        ("data: {files: [a, 5]}", "data.files.1: must be text (got 5); put it in quotes"),
        ("data: {local_text: 5}", "data.local_text: must be text or a list of texts (got 5)"),
        ("data: []", "data: must be a section, a mapping of keys to values (got a list)"),
        (
            "data: {tokenizer: byte}",
            "data.tokenizer: must be a section, a mapping of keys to values (got 'byte')",
        ),
        ("model: {output_size: -2}", "model.output_size: must be at least -1 (got -2)"),
        (
            "model: {init_mode: none}",
            "model.init_mode: must be 'gaussian', 'xavier', 'he' or 'bert' (got 'none'); a new "
            "model is always initialised",
        ),
        (
            "optim: {name: " + "x" * 100 + "}",
            f"optim.name: must be 'adamw' or 'muon' (got '{'x' * 57}...')",
        ),
    ],
)
def test_wrong_values(problems: Callable[..., list[str]], text: str, problem: str) -> None:
    assert problems(text) == [problem]


@pytest.mark.parametrize("key", ["param_dtype", "compute_dtype", "accum_dtype", "softmax_dtype"])
@pytest.mark.parametrize("name", ["float16", "fp16", "half"])
def test_float16_is_refused_with_the_reason(
    problems: Callable[..., list[str]], key: str, name: str
) -> None:
    write = "'float32'" if key == "accum_dtype" else "'float32' or 'bfloat16'"
    assert problems(f"model: {{{key}: {name}}}") == [
        f"model.{key}: float16 is not supported, as ComplexEMA, normalisation and the "
        f"long-context state are not stable in it; write {write} (got '{name}')"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("train: {stpes: 5}", "unknown key 'train.stpes'; did you mean 'train.steps'?"),
        ("lr: 5", "unknown key 'lr'; did you mean 'optim.lr'?"),
        ("train: {lr: 5}", "unknown key 'train.lr'; did you mean 'optim.lr'?"),
        ("tokenizer: {}", "unknown key 'tokenizer'; did you mean 'data.tokenizer'?"),
        ("optimm: {}", "unknown key 'optimm'; did you mean 'optim'?"),
        (
            "train.steps: 5",
            "unknown key 'train.steps'; dotted names are for overrides, in a file write 'steps' "
            "inside 'train'",
        ),
        (
            "debug: {qqq: 5}",
            "unknown key 'debug.qqq'; debug has: nan_check, check_device_every",
        ),
        (
            "qqq: 5",
            "unknown key 'qqq'; the sections are: checkpoint, data, debug, logging, model, optim, "
            "parallel, runtime, train, variables",
        ),
        ('"q\\nq q": 5', "unknown key 'q\\nq q'; the sections are: "),
    ],
)
def test_unknown_keys(problems: Callable[..., list[str]], text: str, problem: str) -> None:
    (found,) = problems(text)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("text", "path", "reason"),
    [
        ("model: {max_cache_len: 5}", "model.max_cache_len", "model.chunk_size"),
        ("model: {cache_unbounded: true}", "model.cache_unbounded", "model.chunk_size"),
        ("model: {max_positions: 5}", "model.max_positions", "no limit"),
        ("model: {gemm_backend: x}", "model.gemm_backend", "model.compute_dtype"),
        ("data: {device_put: true}", "data.device_put", "always go to the device"),
        ("data: {state_update_interval: 5}", "data.state_update_interval", "exact at every step"),
        ("data: {tokenizer: {hf_use_fast: true}}", "data.tokenizer.hf_use_fast", "always used"),
    ],
)
def test_keys_of_the_earlier_harness(
    problems: Callable[..., list[str]], text: str, path: str, reason: str
) -> None:
    (found,) = problems(text)
    assert found.startswith(f"{path}: no longer exists, leave it out: ")
    assert reason in found


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_keys_of_the_earlier_harness_that_have_another_name(
    problems: Callable[..., list[str]], old: str, new: str
) -> None:
    assert new in known_paths()
    section, _, name = old.partition(".")
    assert problems(f"{section}: {{{name}: 1}}") == [f"unknown key '{old}'; write '{new}'"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "model: {backend: mine}",
            "model.backend: must be 'megalodon' or 'dummy' (got 'mine'); for one of your own give "
            "its module: --plugin MODULE",
        ),
        (
            "logging: {trackers: [mine]}",
            "logging.trackers.0: must be 'jsonl', 'tensorboard', 'mlflow' or 'wandb' (got 'mine'); "
            "for one of your own give its module: --plugin MODULE",
        ),
        ("model: {backend: 5}", "model.backend: must be 'megalodon' or 'dummy' (got 5)"),
        ("data: {options: {a: .nan}}", "data.options: must be a finite number (got nan)"),
    ],
)
def test_names_and_options_of_the_user(
    problems: Callable[..., list[str]], text: str, line: str
) -> None:
    assert problems(text) == [line]
