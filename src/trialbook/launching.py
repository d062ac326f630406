"""What must be in order before Hydra starts: where a user's modules are found, and what Hydra may be told.

Nothing of Hydra is loaded here: what of it must be looked at ahead of its run is `trialbook.hydra_section`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trialbook import allowed
from trialbook.credentials import without_credentials
from trialbook.errors import NotAllowedError, RequestError

if TYPE_CHECKING:
    from hydra.conf import ConfigSourceInfo, HydraConf

_ALLOW = "allow="


def prepare(words: Sequence[str], conf: Path) -> list[str]:
    """Make the user's modules found, allow what `allow=` names, and judge what Hydra will act on by itself.

    Args:
        words: The command line.
        conf: This package's folder of configurations.

    Returns:
        The words that are for Hydra.

    Raises:
        RequestError: If the command line or a configuration it names asks for what must not run.
    """
    if {"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"} <= set(os.environ):
        _check_recorded(words)
    for word in words:
        if word.startswith(_ALLOW):
            allowed.add(word.removeprefix(_ALLOW))
    kept = [word for word in words if not word.startswith(_ALLOW)]
    if any(word.startswith("--experimental-rerun") for word in kept):
        raise NotAllowedError(
            "--experimental-rerun is not allowed: it reads a pickle; give the overrides again instead."
        )
    flags, overrides = _flags_of(kept)
    # A user's own modules stand in the working folder, or next to their configurations. At the end of the path, so
    # that they do not take the place of anything installed.
    folders = [Path.cwd()]
    if flags.config_dir:
        if not Path(flags.config_dir).is_dir():
            raise RequestError(f"--config-dir={flags.config_dir} is not a folder.")
        folders.append(Path(flags.config_dir).resolve().parent)
    sys.path.extend(str(folder) for folder in folders if str(folder) not in sys.path)
    asks = any(vars(flags).values()) or any("hydra" in word for word in overrides)
    # Once loaded it is asked again: it remembers the folder of an earlier command line of this process.
    if asks or "trialbook.hydra_section" in sys.modules:
        from trialbook import hydra_section

        folder = Path(flags.config_dir).absolute() if flags.config_dir else None
        hydra_section.check(flags.config_name, flags.config_path or conf, folder, overrides)
    return kept


def _check_recorded(words: Sequence[str]) -> None:
    """Under `mlflow run` every word of the command line is on record, as it is, before it gets here.

    MLflow's parameters cannot be changed, so all that can be done is to say so, and not to go on.
    """
    for word in words:
        if "://" not in word or (shown := without_credentials(word)) == word:
            continue
        instead = (
            "set MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            if word.startswith("tracking.uri=")
            else "run trialbook itself, which records it without"
        )
        run_id = os.environ["MLFLOW_RUN_ID"]
        raise RequestError(
            f"{shown} holds a password or another secret, which mlflow run has put on record as a parameter of its "
            f"run; {instead}, delete that run (mlflow runs delete --run-id {run_id}, then mlflow gc), and change the "
            "secret."
        )


def hide_credentials(hydra_config: HydraConf) -> None:
    """Take passwords out of what Hydra has written down of a configuration, in this job's folder and in its sweep's."""
    job = Path(hydra_config.runtime.output_dir)
    for file in [*job.glob(f"{hydra_config.output_subdir}/*.yaml"), *job.parent.glob("multirun.yaml")]:
        written = file.read_text()
        if (hidden := without_credentials(written)) != written:
            file.write_text(hidden)


def folders_of(words: Sequence[str], conf: Path) -> list[Path]:
    """The folders that a command line takes configurations from."""
    given = _flags_of(words)[0].config_dir
    return [conf, *([Path(given)] if given else [])]


def flags_again(sources: Iterable[ConfigSourceInfo]) -> list[str]:
    """The flags that the same command, or one that resumes it, needs again, by where its configurations came from."""
    folders = [source.path for source in sources if source.provider == "command-line"]
    return [*(f"--config-dir={folder}" for folder in folders), *allowed.flags()]


def _flags_of(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Hydra's flags that say where configurations are, and the other words of a command line."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag, short in (("--config-dir", "-cd"), ("--config-path", "-cp"), ("--config-name", "-cn")):
        parser.add_argument(flag, short)
    flags, rest = parser.parse_known_args(list(words))
    return flags, [word for word in rest if word.startswith("~") or ("=" in word and not word.startswith("-"))]
