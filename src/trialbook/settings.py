"""The kinds of values that the configuration's own keys take, checked before any of them is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from trialbook.errors import RequestError

# For each key, what it must be, in words, and whether a value is that.
_Kind = tuple[str, Callable[[Any], bool]]

_GROUP: _Kind = ("a group of keys, such as {key: value}", lambda value: isinstance(value, Mapping))
_SWITCH: _Kind = ("true or false", lambda value: isinstance(value, bool))
_NAME: _Kind = ("a name", lambda value: isinstance(value, str) and bool(value.strip()))
_NAME_OR_NULL: _Kind = ("text that is not empty, or null", lambda value: value is None or _NAME[1](value))
_WHOLE_OR_NULL: _Kind = (
    "a whole number, or null",
    lambda value: value is None or (isinstance(value, int) and not isinstance(value, bool)),
)
_NAMES: _Kind = (
    "a list of names, such as [accuracy, f1_macro]",
    lambda value: isinstance(value, list) and all(_NAME[1](name) for name in value),
)

_KINDS: Mapping[str, _Kind] = {
    **dict.fromkeys(("data", "model", "search", "validation", "executor", "objective"), _GROUP),
    **dict.fromkeys(("budget", "tracking", "promote", "model.estimator"), _GROUP),
    **dict.fromkeys(("dry_run", "tracking.allow_pickle", "promote.enabled"), _SWITCH),
    **dict.fromkeys(("tracking.experiment", "objective.epoch"), _NAME),
    **dict.fromkeys(("tracking.uri", "objective.metric", "objective.direction", "resume"), _NAME_OR_NULL),
    "model.space": ("a space such as {C: {values: [1, 10]}}, or null", lambda v: v is None or isinstance(v, Mapping)),
    "scoring": _NAMES,
    "seed": _WHOLE_OR_NULL,
}


def check(cfg: DictConfig) -> None:
    """Every key of the configuration's own must have a value that it can take.

    Raises:
        RequestError: Naming the first that has not.
    """
    for key, (wanted, is_wanted) in _KINDS.items():
        value = OmegaConf.select(cfg, key)
        plain = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        if not is_wanted(plain):
            raise RequestError(f"{key} must be {wanted}, got {plain!r}.")
    name = cfg.promote.registered_model if cfg.promote.enabled else None
    if name is not None:
        check_registered_name(name)


def check_registered_name(name: Any) -> None:
    """What a model can be registered under.

    Raises:
        RequestError: If MLflow does not take that name.
    """
    if not isinstance(name, str) or not name.strip() or any(c in name for c in "/:"):
        raise RequestError(
            f"promote.registered_model={name!r} must be text that is not empty and holds no slash or colon."
        )


def refuse_from_python(cfg: DictConfig, given: str) -> None:
    """A search that `trialbook.tune` ran cannot be composed again: its model and its rows were objects.

    Args:
        cfg: The configuration on its run.
        given: The word that names it, such as `resume=<run id>`.

    Raises:
        RequestError: If it is one.
    """
    if "_target_" not in cfg.data:
        raise RequestError(
            f"{given} names a search that was started from Python by trialbook.tune; the command cannot know its model "
            "and its rows. The note on its run has the call that goes on with it."
        )
