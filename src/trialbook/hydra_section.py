"""The section of a configuration that Hydra acts on by itself, judged before it does.

Hydra acts on it (callbacks, launcher, logging, environment) before our command gets to see any of it. So where it may
have come from elsewhere than this package, from a folder of the user's or from the command line, it is composed once
more, ahead of Hydra, and judged by the same rule as everything else that a configuration names, see
`trialbook.allowed`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
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
from trialbook.errors import NotAllowedError

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


def check(name: str | None, conf: Path | str, folder: Path | None, overrides: Sequence[str]) -> None:
    """Judge the sections for Hydra that a command line composes, and put the user's folder before this package's.

    Args:
        name: The primary configuration, None for ours.
        conf: The folder that it stands in.
        folder: The user's own, absolute.
        overrides: Those of the command line.

    Raises:
        RequestError: If one asks for what must not run.
    """
    _Overlay.folder = folder
    if folder is not None:
        overrides = [*overrides, f"hydra.searchpath={[f'file://{folder}', *_searchpath(overrides)]}"]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(Path(conf).absolute()), version_base="1.3"):
        for composed in _variants(overrides):
            try:
                cfg = compose(name or "config", overrides=composed, return_hydra_config=True)
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
