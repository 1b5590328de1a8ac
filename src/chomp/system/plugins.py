"""Modules of the user's that a command loads, so that they register what they bring."""

import importlib
import importlib.util
import sys
from pathlib import Path

from chomp.errors import ConfigError

_loaded: dict[str, None] = {}


def load_plugin(module: str) -> None:
    """Import a module, once.

    Only the user's word on the command line comes here: nothing that a configuration or a run
    folder holds may have code run.

    Args:
        module: an installed one's name, or the path of a file that ends in `.py`.

    Raises:
        ConfigError: there is none.
    """
    name = str(Path(module).resolve()) if module.endswith(".py") else module
    if name in _loaded:
        return
    if name == module:
        _import_by_name(module)
    else:
        _import_file(Path(name), module)
    _loaded[name] = None


def plugin_options() -> list[str]:
    """Return the command line options that load in another process what was loaded in this one."""
    return [word for name in _loaded for word in ("--plugin", name)]


def _import_by_name(module: str) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # a module that it needs itself
        raise ConfigError(
            [
                f"--plugin {module}: no module of this name is installed; "
                f"for a file give its path: --plugin ./{module.replace('.', '/')}.py"
            ]
        ) from error


def _import_file(path: Path, given: str) -> None:
    if not path.is_file():
        raise ConfigError([f"--plugin {given}: there is no such file"])
    # A name of its own, so that a file called datasets.py hides no package.
    name = f"chomp_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # of a file that ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
