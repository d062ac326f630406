"""What `trialbook --help` says: told from the names of files, before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_HELP = """\
trialbook: hyperparameter search with every trial in MLflow

Usage: trialbook [flag] [key=value] [group=option] ...

Configuration groups (group=option):

{groups}

Any key of the configuration is set with key=value, a group with group=option. Flags:

  -m, --multirun     run a sweep: one search for each combination of the options given with commas
  --cfg job          show the whole configuration, and run nothing
  --config-dir DIR   configurations of your own, and modules beside them
  --allow NAME       what else the configuration may call, such as a package of yours
  --hydra-help       the flags of Hydra

Examples:
  trialbook
  trialbook data=breast_cancer model=logistic_regression search=sklearn/grid validation=stratified_kfold
  trialbook data=csv data.path=my.csv data.target=label
  trialbook search.oracle.max_epochs=20 seed=7 dry_run=true
  trialbook -m search=sklearn/random,keras_tuner/bayesian,keras_tuner/hyperband
  trialbook resume=latest
  trialbook promote=RUN_ID
"""


def is_asked_for(words: Sequence[str]) -> bool:
    """Whether a command line asks for help, not for that of Hydra."""
    return any(word in ("-h", "--help") for word in words)


def text(words: Sequence[str], conf: Path) -> str:
    """The help, with the options found in the folders of configurations that a command line names."""
    folders = [conf]
    for before, word in zip(["", *words], words, strict=False):
        flag, given, value = word.partition("=")
        if flag == "--config-dir" and given:
            folders.append(Path(value))
        elif before in ("--config-dir", "-cd"):
            folders.append(Path(word))
    groups: dict[str, set[str]] = {}
    for folder in folders:
        for file in folder.rglob("*.yaml"):
            if (group := file.parent.relative_to(folder).as_posix()) != ".":
                groups.setdefault(group, set()).add(file.stem)
    return _HELP.format(groups="\n".join(f"  {name}: {', '.join(sorted(groups[name]))}" for name in sorted(groups)))
