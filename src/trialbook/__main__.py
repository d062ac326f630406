"""The command: words from a shell or from `mlflow run` become Hydra overrides, and outcomes become exit codes.

0: done. 1: the search ran and failed. 2: the request was wrong. 130: interrupted.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130

# Hydra's own flags; any other word that starts with two dashes is a parameter handed on by `mlflow run`.
_FLAGS = (
    *("--help", "--hydra-help", "--version", "--resolve", "--run", "--multirun", "--shell-completion", "--info"),
    *("--cfg", "--package", "--config-path", "--config-name", "--config-dir", "--experimental-rerun"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    # Read by TensorFlow and MLflow when they are imported: their start-up notes are not the user's.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # MLflow itself repeats a request whose reply is lost, also one that creates a run: trialbook.outage does better.
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    # Hydra then raises its errors, so that they end in one sentence and exit code 2 like every other.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _interrupt)
    import hydra
    from hydra.errors import (
        ConfigCompositionException,
        HydraException,
        MissingConfigException,
        OverrideParseException,
    )
    from omegaconf.errors import OmegaConfBaseException

    from trialbook import launching

    codes: list[int] = []
    try:
        words = launching.prepare(overrides_of(sys.argv[1:] if argv is None else argv), conf_dir())
        sys.argv = ["trialbook", *words]
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(
            lambda cfg: codes.append(job(cfg))
        )()
    except MissingConfigException as error:
        return _refuse(_missing(error))
    except OverrideParseException as error:
        return _refuse(f"{error.override} cannot be read as key=value: {_sentence(error)}")
    except ConfigCompositionException as error:
        return _refuse(_unknown_key(error) or _sentence(error))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        return _refuse(_sentence(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    return max(codes, default=DONE)


def job(cfg: DictConfig) -> int:
    """Run one job of the command line; returns its exit code."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf.errors import OmegaConfBaseException

    from trialbook import app, launching
    from trialbook.errors import RequestError, SearchError
    from trialbook.progress import Terminal

    hydra_config = HydraConfig.get()
    try:
        flags = launching.flags_again(hydra_config.runtime.config_sources)
        app.run(cfg, hydra_config.overrides.task, hydra_config.runtime.choices, Terminal(), flags)
    except (RequestError, OmegaConfBaseException) as error:
        return _refuse(_sentence(error))
    except SearchError as error:
        print(f"trialbook: {error}", file=sys.stderr)
        return FAILED
    return DONE


def overrides_of(argv: Sequence[str]) -> list[str]:
    """The command line as Hydra reads it.

    `mlflow run` appends a parameter `key=value` as the two words `--key value`; and it may hand over several
    overrides in one parameter `overrides`.
    """
    words: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word.partition("=")[0] in _FLAGS:
            words.append(word)
            continue
        key, given, value = word[2:].partition("=")
        if not given:
            if not rest:
                raise ValueError(f"{word} needs a value: give it as {key}=VALUE.")
            value = rest.pop(0)
        words.extend(shlex.split(value) if key == "overrides" else [f"{key}={value}"])
    return words


def conf_dir() -> Path:
    """The folder of configurations: inside an installed package, or beside `src` in a checkout."""
    here = Path(__file__).resolve()
    inside = here.parent / "conf"
    return inside if inside.is_dir() else here.parents[2] / "conf"


def _missing(error: Any) -> str:
    """What to choose instead of an option that does not exist."""
    group, _, option = str(error.missing_cfg_file or "").partition("/")
    folder = conf_dir() / group
    options = sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))
    if not options:
        return _sentence(error)
    nearest = get_close_matches(option, options, n=1)
    hint = f" Did you mean {group}={nearest[0]}?" if nearest else ""
    return f"{group}={option} is not available; allowed: {', '.join(options)}.{hint}"


def _unknown_key(error: Any) -> str | None:
    """What a misspelt key may have meant, if that is what a composition error is about."""
    named = re.match(r"Could not override '([\w.@/-]+)'", str(error))
    if named is None:
        return None
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import DictConfig, OmegaConf

    parent, _, leaf = named[1].rpartition(".")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    if not isinstance(node, DictConfig):
        return None
    keys = sorted(str(key) for key in node)
    nearest = get_close_matches(leaf, keys, n=1)
    hint = f" Did you mean {f'{parent}.' if parent else ''}{nearest[0]}?" if nearest else ""
    return f"{named[1]} is not a key of the configuration; {parent or 'it'} has: {', '.join(keys)}.{hint}"


def _sentence(error: BaseException) -> str:
    """The first lines of a message that Hydra or OmegaConf wrote over several."""
    cause = error.__cause__
    text = str(error) if cause is None or isinstance(error, ValueError) else f"{error} {cause}"
    lines = [line.strip() for line in text.splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(("full_key:", "object_type=", "See http")))


def _refuse(message: str) -> int:
    print(f"trialbook: {message}", file=sys.stderr)
    return REFUSED


def _interrupt(signum: int, frame: object) -> None:
    """End the search in good order, unless asked a second time; then leave it to `resume` to put the record right."""
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, _leave)
    raise KeyboardInterrupt


def _leave(signum: int, frame: object) -> None:
    if sys.stdout.isatty():
        os.write(1, b"\x1b[?25h\n")  # the live line has hidden the cursor
    os._exit(INTERRUPTED)


def run() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    sys.exit(main())
