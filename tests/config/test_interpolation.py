from collections.abc import Callable

import pytest

from chomp.config import Config


def test_references_keep_types(load: Callable[..., Config]) -> None:
    config = load(
        """
variables: {context: 256, rate: 1e-3, on: true, none: null, tags: [a, "${variables.context}x"]}
model: {chunk_size: "${train.seq_len}"}
train: {seq_len: "${variables.context}", allow_cpu: "${variables.on}", steps: "${data.max_retries}"}
optim: {lr: "${variables.rate}", warmup_steps: 0}
logging:
  log_file: ${variables.none}
  wandb:
    run_name: t${train.seq_len} lr${optim.lr} ${variables.on} ${ variables.none } ${train.seed}
    tags: ${variables.tags}
"""
    )
    assert config.model.chunk_size == 256
    assert config.optim.lr == 1e-3
    assert config.train.allow_cpu is True
    assert config.train.steps == 3  # A default: the file doesn't set data.max_retries.
    assert config.logging.log_file is None
    assert config.logging.wandb.run_name == "t256 lr0.001 true null 0"
    assert config.logging.wandb.tags == ("a", "256x")


def test_overrides_come_before_references(load: Callable[..., Config]) -> None:
    text = "variables: {x: 5}\ntrain: {seed: '${variables.x}'}"
    assert load(text, "variables.x=7").train.seed == 7
    assert load(text, "train.seed=${data.seed}", "data.seed=9").train.seed == 9


def test_whole_sections_can_be_referred_to(load: Callable[..., Config]) -> None:
    config = load(
        """
variables: {small: {steps: 50, seed: "${variables.seed}"}, seed: 4, other: "${variables.small}"}
train: ${variables.small}
data: {seed: "${variables.other.steps}"}
"""
    )
    assert (config.train.steps, config.train.seed, config.data.seed) == (50, 4, 50)


def test_a_plain_dollar_is_text(load: Callable[..., Config]) -> None:
    config = load("data: {local_text: ['$${x} costs $5', '$x ${', '$${${data.seed}}', '}{$']}")
    assert config.data.local_text == ("${x} costs $5", "$x ${", "${0}", "}{$")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "train: {steps: '${train.sed}'}",
            [
                "train.steps: refers to ${train.sed}, which does not exist; did you mean "
                "${train.seed}?"
            ],
        ),
        (
            "variables: {context: 5}\ntrain: {steps: '${variables.contxt}'}",
            [
                "train.steps: refers to ${variables.contxt}, which does not exist; did you mean "
                "${variables.context}?"
            ],
        ),
        ("train: {steps: '${}'}", ["train.steps: refers to ${}, which does not exist"]),
        (
            "train: {steps: '${train.steps}'}",
            ["train.steps: circular reference: train.steps -> train.steps"],
        ),
        (
            "train: {steps: '${train.seed}', seed: '${data.seed}x'}\n"
            "data: {seed: '${train.steps}'}",
            [
                "train.steps: circular reference: train.steps -> train.seed -> data.seed -> "
                "train.steps"
            ],
        ),
        (
            "variables: {a: '${variables}'}",
            ["variables: circular reference: variables -> variables.a -> variables"],
        ),
        (
            "logging: {wandb: {run_name: 'x ${data}'}}\ndata: {seed: 1}",
            ["logging.wandb.run_name: ${data} is a mapping, which can't be put into text"],
        ),
        (
            "logging: {wandb: {run_name: 'x ${data.files}'}}",
            ["logging.wandb.run_name: ${data.files} is a list, which can't be put into text"],
        ),
        (
            "logging: {wandb: {tags: [a, '${x.y}']}}",
            ["logging.wandb.tags.1: refers to ${x.y}, which does not exist"],
        ),
        # One problem, not one for each place that depends on it.
        (
            "variables: {a: '${b}'}\ntrain: {steps: '${variables.a}', seed: '${variables.a}'}",
            ["variables.a: refers to ${b}, which does not exist"],
        ),
        # The value is checked in its place, too.
        (
            "variables: {a: fast}\noptim: {lr: '${variables.a}'}",
            ["optim.lr: must be a number (got 'fast')"],
        ),
    ],
)
def test_wrong_references(
    problems: Callable[..., list[str]], text: str, expected: list[str]
) -> None:
    assert problems(text) == expected


@pytest.mark.parametrize(
    ("old", "shown", "new"),
    [
        ("$variables.x", "$variables.x", "${variables.x}"),
        ("{$variables.x}", "{$variables.x}", "${variables.x}"),
        ("'{$variables.x}'", "{$variables.x}", "${variables.x}"),
        ("a{$variables.x.y}b", "a{$variables.x.y}b", "a${variables.x.y}b"),
    ],
)
def test_references_of_the_earlier_harness(
    problems: Callable[..., list[str]], old: str, shown: str, new: str
) -> None:
    assert problems(f"variables: {{x: {{y: 5}}}}\nlogging:\n  project: {old}") == [
        f"logging.project: references are written ${{variables.x}}: write '{new}' (got '{shown}')"
    ]


def test_references_that_explode(problems: Callable[..., list[str]]) -> None:
    doubling = [f"  v{i}: '${{variables.v{i + 1}}}${{variables.v{i + 1}}}'" for i in range(60)]
    text = "\n".join(["variables:", *doubling, "  v60: '0123456789'"])
    assert problems(text) == [
        "variables.v43: becomes longer than 1000000 characters by its references"
    ]
    chain = [f"  v{i}: '${{variables.v{i + 1}}}'" for i in range(3000)]
    assert problems("\n".join(["variables:", *chain, "  v3000: 5"])) == [
        "config: values or references are nested too deeply"
    ]
