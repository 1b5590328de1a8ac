"""Configurations that a run folder holds: somebody else's, for all that is known.

What of them would have this machine run code that came with the folder needs the word of whoever
starts the command: Python of a tokenizer, and compiled programs.
"""

from collections.abc import Sequence
from pathlib import Path

from chomp.config import Config, load_config
from chomp.errors import ConfigError
from chomp.system.compile_cache import AUTO, cache_folder, is_own

TRUST = "data.tokenizer.hf_trust_remote_code"
CACHE = "runtime.compile_cache"
_HARMLESS = (f"{TRUST}=false", f"{CACHE}={AUTO}")
RESOLVED = "config_resolved.json"
NAMES = ("config_original.yaml", RESOLVED)


def is_of_a_run(path: Path) -> bool:
    """Whether a configuration lies in a run folder."""
    return path.name in NAMES and any(
        (path.parent / name).exists() for name in (*NAMES, "run.json") if name != path.name
    )


def load_folder_config(
    path: Path, overrides: Sequence[str] = (), *, say_so: str = f"-o {TRUST}=true"
) -> tuple[Config, list[str]]:
    """Load a run folder's configuration; return it, and warnings about what isn't heeded.

    Args:
        path: the file.
        overrides: the user's, which are trusted.
        say_so: how the user says that the tokenizer's Python may run.

    Raises:
        ConfigError: it is wrong, or wants code to be run that the user hasn't asked for.
    """
    asked = load_config(path, overrides)
    old = _old_values(asked) if path.name == RESOLVED else []
    asked = load_config(path, [*old, *overrides]) if old else asked
    config = load_config(path, [*old, *_HARMLESS, *overrides])
    if asked.data.tokenizer.hf_trust_remote_code != config.data.tokenizer.hf_trust_remote_code:
        raise ConfigError(
            [
                f"{TRUST}: {path} asks for it, and it runs the Python code that comes with the "
                f"tokenizer; if you trust who made it, say so yourself: {say_so}"
            ]
        )
    cache = asked.runtime.compile_cache
    if cache == config.runtime.compile_cache:
        return config, []
    if cache is None or _is_own(cache, path.parent):
        return asked, []
    return config, [
        f"{CACHE}: {cache} of {path} is not used, as others than you could have put programs "
        f"there; your own cache is. To use it, say so yourself: -o {CACHE}={cache}"
    ]


def _old_values(config: Config) -> list[str]:
    """Return overrides for keys that the run's version didn't have, where the default is new."""
    old = "shuffle_buffer_bytes" not in config.data.model_fields_set
    return ["data.shuffle_buffer_bytes=null"] * old


def _is_own(cache: str, run: Path) -> bool:
    try:
        return is_own(cache_folder(cache), run)
    except RuntimeError:  # of a user that there isn't
        return False
