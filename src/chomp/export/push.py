"""An exported folder on the Hugging Face Hub."""

import re
from pathlib import Path

from chomp.data.sources.hub import hub_errors
from chomp.errors import ExportError, NetworkError

NAME = re.compile(r"[\w.-]+/[\w.-]+")


def check_name(repository: str) -> None:
    """Check that this may be a repository's name. Raises ExportError."""
    if not NAME.fullmatch(repository):
        raise ExportError(f"--push: must be USER/NAME (got {repository!r})")


def push(folder: Path, repository: str) -> str:
    """Upload a folder, and return its address there; a new repository is private.

    Raises:
        NetworkError: the hub can't be reached, or refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Export from chomp"
        )
    except (ValueError, *hub_errors()) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NetworkError(
            f"{repository}: can't be pushed: {reason}; the export is in {folder}: log in with hf "
            f"auth login, then hf upload {repository} {folder}"
        ) from error
    return str(commit.commit_url)
