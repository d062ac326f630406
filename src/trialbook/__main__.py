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

from trialbook import garbage, help, interrupts
from trialbook.exits import DONE, FAILED, INTERRUPTED, ending, refuse, sentence

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from trialbook.sweep import Sweep

# Hydra's own flags; any other word that starts with two dashes is a parameter handed on by `mlflow run`.
_FLAGS = (
    *("--help", "--hydra-help", "--version", "--resolve", "--run", "--multirun", "--shell-completion", "--info"),
    *("--cfg", "--package", "--config-path", "--config-name", "--config-dir", "--experimental-rerun"),
)
# Of these flags the next word is the value.
_VALUED = (
    *("--cfg", "--package", "--config-path", "--config-name", "--config-dir", "--experimental-rerun"),
    *("-c", "-p", "-cp", "-cn", "-cd"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    if help.is_asked_for(words):
        print(help.text(words, conf_dir()), end="")
        return DONE
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

    with garbage.uncollected():
        from trialbook import sweep

        with sweep.expected() as expected:
            again: list[str] = []
            code = _run(words, expected, again)
            if again:
                code = _run(again, expected, [])
            return expected.finish(code)


def _run(argv: Sequence[str], expected: Sweep, again: list[str]) -> int:
    """Run Hydra, which runs a job or many; returns the exit code.

    Args:
        argv: The command line.
        expected: The sweep that it is if Hydra makes it one.
        again: Where to put the command line of an earlier sweep, if this one asks to go on with it.
    """
    import hydra
    from hydra.errors import (
        ConfigCompositionException,
        HydraException,
        MissingConfigException,
        OverrideParseException,
    )
    from omegaconf.errors import OmegaConfBaseException

    from trialbook import launching
    from trialbook.sweep import Refused

    codes: list[int] = []
    try:
        sys.argv = ["trialbook", *launching.prepare(overrides_of(argv), conf_dir())]
        try:
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(
                lambda cfg: job(cfg, codes, again)
            )()
        except Refused as refused:
            raise refused.why from None
    except MissingConfigException as error:
        return refuse(_missing(error, launching.folders_of(sys.argv[1:], conf_dir())))
    except OverrideParseException as error:
        return refuse(f"{error.override} cannot be read as key=value: {sentence(error)}")
    except ConfigCompositionException as error:
        return refuse(_unknown_key(error, sys.argv[1:]) or sentence(error))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        return refuse(sentence(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if expected.run is None:
            raise
        # A launcher or a sweeper that broke: what its jobs have done is on record.
        if not expected.interrupted:
            print(f"trialbook: the sweep broke off: {sentence(error)}", file=sys.stderr)
        return FAILED
    return max(codes, default=DONE)


def job(cfg: DictConfig, codes: list[int], again: list[str]) -> float | None:
    """Run one job of the command line.

    Args:
        cfg: Its configuration.
        codes: Where to put its exit code.
        again: Where to put the command line of the sweep that is to go on, if it asks for that.

    Returns:
        For a job of a sweep its objective, which the sweeper may want; such a job leaves no exit code.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from trialbook import launching

    garbage.collect_again()
    hydra_config = HydraConfig.get()
    launching.hide_credentials(hydra_config)
    if hydra_config.mode is RunMode.MULTIRUN:
        from trialbook import sweep_job

        return sweep_job.launch(cfg)
    overrides = hydra_config.overrides.task

    def run() -> None:
        with garbage.uncollected():
            from trialbook import app, final_step, sweep_request
            from trialbook.progress import Terminal
        if cfg.promote.run is not None:
            final_step.repeat(cfg, overrides, Terminal())
            return
        if cfg.resume is not None:
            again.extend(sweep_request.words_to_resume(cfg, overrides, hydra_config) or ())
        if not again:
            flags = launching.flags_again(hydra_config.runtime.config_sources)
            app.run(cfg, overrides, hydra_config.runtime.choices, Terminal(), flags)

    codes.append(ending(run).code)
    return None


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
    # promote=<run id> is short for the key inside the group of that name.
    return _flags_first([re.sub(r"^promote=", "promote.run=", word) for word in words])


def _flags_first(words: Sequence[str]) -> list[str]:
    """The flags, with the values that some have, before the overrides: Hydra reads them in one stretch only."""
    flags: list[str] = []
    overrides: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        is_flag = word.startswith("-") or before in _VALUED or (before == "--info" and "=" not in word)
        (flags if is_flag else overrides).append(word)
    return [*flags, *overrides]


def conf_dir() -> Path:
    """The folder of configurations: inside an installed package, or beside `src` in a checkout."""
    here = Path(__file__).resolve()
    inside = here.parent / "conf"
    return inside if inside.is_dir() else here.parents[2] / "conf"


def _missing(error: Any, folders: Sequence[Path]) -> str:
    """What to choose instead of an option that does not exist."""
    group, _, option = str(error.missing_cfg_file or "").partition("/")
    files = [(path, folder / group) for folder in folders for path in (folder / group).rglob("*.yaml")]
    options = sorted({str(path.relative_to(base).with_suffix("")) for path, base in files})
    if not options:
        return sentence(error)
    nearest = get_close_matches(option, options, n=1, cutoff=0.5)
    hint = f" Did you mean {group}={nearest[0]}?" if nearest else ""
    return f"{group}={option} is not available; allowed: {', '.join(options)}.{hint}"


def _unknown_key(error: Any, words: Sequence[str]) -> str | None:
    """What a misspelt key may have meant, if that is what a composition error is about.

    Args:
        error: The composition error.
        words: The command line, whose choices of options say which keys there are.
    """
    named = re.match(r"Could not override '([\w.@/-]+)'", str(error))
    if named is None:
        return None
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import DictConfig, OmegaConf

    parent, _, leaf = named[1].rpartition(".")
    groups = [folder.name for folder in conf_dir().iterdir() if folder.is_dir()]
    # Of the options that a sweep goes through, the first.
    choices = [word.partition(",")[0] for word in words if word.partition("=")[0] in groups]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        try:
            cfg = compose("config", choices)
        except HydraException:
            cfg = compose("config")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    if not isinstance(node, DictConfig):
        return None
    keys = sorted(str(key) for key in node)
    if leaf in keys:
        return (
            f"{named[1]} is a group with options: give {named[1]}=OPTION, or set one of its keys, {named[1]}.KEY=VALUE."
        )
    keys = [key for key in keys if not key.startswith("_")]
    nearest = get_close_matches(leaf, keys, n=1)
    hint = f" Did you mean {f'{parent}.' if parent else ''}{nearest[0]}?" if nearest else ""
    return f"{named[1]} is not a key of the configuration; {parent or 'it'} has: {', '.join(keys)}.{hint}"


def _interrupt(signum: int, frame: object) -> None:
    """End the search in good order, unless asked a second time; then leave it to `resume` to put the record right."""
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, _leave)
    interrupts.interrupt()


def _leave(signum: int, frame: object) -> None:
    if sys.stdout.isatty():
        os.write(1, b"\x1b[?25h\n")  # the live line has hidden the cursor
    os._exit(INTERRUPTED)


def run() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    sys.exit(main())
