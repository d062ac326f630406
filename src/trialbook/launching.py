"""What must be in order before Hydra starts: where a user's modules are found, and what Hydra may be told.

Hydra acts on its own section of a configuration (callbacks, launcher, logging, environment) before our command gets to
see any of it. So where that section may have come from elsewhere than this package, from a folder of the user's or from
the command line, it is composed once more, ahead of Hydra, and judged by the same rule as everything else that a
configuration names, see `trialbook.allowed`.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.conf import ConfigSourceInfo, HydraConf
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trialbook import allowed
from trialbook.credentials import without_credentials
from trialbook.errors import NotAllowedError, RequestError

_ALLOW = "allow="
_OWN_ROOTS = ("hydra", "hydra_plugins", "trialbook")
_LOGGING = re.compile(r"(logging|colorlog)\.[\w.]+|ext://sys\.(stdout|stderr)")
# What would widen what may run, or change what a started process loads.
_ENVIRONMENT = re.compile(r"TRIALBOOK_|PYTHON|LD_|DYLD_|SCIKIT_LEARN_DATA$|KERAS_HOME$|MLFLOW_ALLOW_", re.IGNORECASE)


class _Overlay(SearchPathPlugin):
    """Lets the configurations of the user's folder count before this package's; Hydra itself puts them behind."""

    folder: Path | None = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if self.folder is not None:
            search_path.prepend("trialbook-overlay", f"file://{self.folder}", "main")


Plugins.instance().register(_Overlay)


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
    _Overlay.folder = Path(flags.config_dir).absolute() if flags.config_dir else None
    # A user's own modules stand in the working folder, or next to their configurations. At the end of the path, so
    # that they do not take the place of anything installed.
    folders = [Path.cwd()]
    if flags.config_dir:
        if not Path(flags.config_dir).is_dir():
            raise RequestError(f"--config-dir={flags.config_dir} is not a folder.")
        folders.append(Path(flags.config_dir).resolve().parent)
    sys.path.extend(str(folder) for folder in folders if str(folder) not in sys.path)
    if any(vars(flags).values()) or any("hydra" in word for word in overrides):
        _check(flags, overrides, conf)
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


def _check(flags: argparse.Namespace, overrides: list[str], conf: Path) -> None:
    """Judge the sections for Hydra that a command line composes."""
    if flags.config_dir:
        overrides.append(f"hydra.searchpath={[f'file://{Path(flags.config_dir).absolute()}', *_searchpath(overrides)]}")
    folder = str(Path(flags.config_path).absolute() if flags.config_path else conf)
    GlobalHydra.instance().clear()
    with initialize_config_dir(folder, version_base="1.3"):
        for composed in _variants(overrides):
            try:
                cfg = compose(flags.config_name or "config", overrides=composed, return_hydra_config=True)
            except (HydraException, OmegaConfBaseException):
                return  # Hydra will come to the same end, and say so
            _judge_section(cfg.hydra)


def _variants(overrides: Sequence[str]) -> Iterator[list[str]]:
    """What to compose: all that is not swept over, and that with each value of what is, one at a time."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    fixed = [str(override.input_line) for override in parsed if not override.is_sweep_override()]
    yield fixed
    for override in parsed:
        if override.is_sweep_override():
            for value in override.sweep_string_iterator():
                yield [*fixed, f"{override.get_key_element()}={value}"]


def _searchpath(overrides: Sequence[str]) -> list[str]:
    given = OmegaConf.from_dotlist([word for word in overrides if word.startswith("hydra.searchpath=")])
    return [str(path) for path in OmegaConf.select(given, "hydra.searchpath", default=[])]


def _judge_section(section: DictConfig) -> None:
    for name in ("callbacks", "launcher", "sweeper"):
        try:
            parts = OmegaConf.to_container(section[name], resolve=True)
        except OmegaConfBaseException as error:
            raise NotAllowedError(f"hydra.{name} is not allowed, as it cannot be resolved ahead of its use.") from error
        _judge_targets(f"hydra.{name}", parts)
    for name in ("hydra_logging", "job_logging"):
        _judge_logging(f"hydra.{name}", OmegaConf.to_container(section[name]))
    for name in section.job.env_set:
        if _ENVIRONMENT.match(str(name)):
            raise NotAllowedError(f"hydra.job.env_set.{name} is not allowed: set it in your own environment.")


def _judge_targets(key: str, node: Any) -> None:
    if isinstance(node, list):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        return
    if allowed.TARGET in node:
        _judge_target(f"{key}.{allowed.TARGET}", node[allowed.TARGET])
    for name, value in node.items():
        _judge_targets(f"{key}.{name}", value)


def _judge_target(key: str, path: Any) -> None:
    if str(path).partition(".")[0] in _OWN_ROOTS:
        found = allowed.find(str(path), key)
        home = str(getattr(found, "__module__", "")).partition(".")[0]
        if isinstance(found, type) and issubclass(found, Callback | Launcher | Sweeper) and home in _OWN_ROOTS:
            return
    allowed.locate(path, key)


def _judge_logging(key: str, node: Any) -> None:
    """Of a logging configuration, which may name any class, any function and any object."""
    for name, value in node.items():
        if isinstance(value, dict):
            _judge_logging(f"{key}.{name}", value)
        elif isinstance(value, list):
            _judge_logging(key, dict(enumerate(value)))
        elif isinstance(value, str) and _names_code(name, value) and not _LOGGING.fullmatch(value):
            raise NotAllowedError(f"{key}.{name}={value} is not allowed: only Python's own logging classes are.")


def _names_code(name: Any, value: str) -> bool:
    """Whether Python's logging takes a value for something to import, or may once it is resolved."""
    return name in ("()", "class") or "://" in value or ("${" in value and name != "filename")
