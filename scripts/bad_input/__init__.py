"""Wrong inputs and what chomp makes of them; each module but `case` and `trial` is a list."""

from bad_input.case import Case
from bad_input.command_lines import COMMAND_LINES
from bad_input.config_files import CONFIG_FILES
from bad_input.config_values import CONFIG_VALUES
from bad_input.corpora import CORPORA
from bad_input.run_folders import RUN_FOLDERS
from bad_input.surroundings import SURROUNDINGS

CASES: dict[str, tuple[Case, ...]] = {
    "Config files": CONFIG_FILES,
    "Values and overrides": CONFIG_VALUES,
    "Command lines": COMMAND_LINES,
    "Run folders": RUN_FOLDERS,
    "Data and tokenizers": CORPORA,
    "Surroundings": SURROUNDINGS,
}
