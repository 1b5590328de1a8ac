from pathlib import Path

from chomp.config import config_reference
from chomp.config.keys import RETIRED, known_paths
from chomp.config.yaml_loader import parse_yaml

ROOT = Path(__file__).parents[2]


def test_the_page_is_the_generated_one() -> None:
    assert (ROOT / "docs/config-reference.md").read_text() == config_reference(), (
        "out of date: write it anew with `chomp config reference > docs/config-reference.md`"
    )


def test_every_key_is_on_the_page() -> None:
    page = config_reference()
    for path in (*known_paths(), *RETIRED):
        assert path in ("data", "logging", "optim") or f"`{path}`" in page, path


def test_tables_are_whole() -> None:
    for line in config_reference().splitlines():
        if line.startswith("| `") and "." in line.split("|")[1]:
            assert line.replace("\\|", "").count("|") in (3, 5), line


def test_the_example_is_valid(load) -> None:  # pyright: ignore
    example = config_reference().split("```yaml\n")[1].split("```")[0]
    assert parse_yaml(example).value
    config = load(example)
    assert config.train.seq_len == 1024
    assert config.logging.wandb.tags == ("context 1024",)
