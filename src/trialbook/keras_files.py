"""Keras's files of nets and of weights, written without a detour that Keras takes by mistake."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

_KINDS = ("Operation", "Layer", "Functional", "Sequential", "Metric", "Optimizer", "Loss", "Cross", "Feature")


def save(model: keras.Model, path: Path) -> None:
    """Write a whole net; `path` ends in `.keras`."""
    model.save(path)
    _remember()


def save_weights(model: keras.Model, path: Path) -> None:
    """Write weights and optimizer state; `path` ends in `.weights.h5`."""
    model.save_weights(path)
    _remember()


def _remember() -> None:
    """Let Keras find what it has found out.

    To know which attributes of a layer are its own, Keras makes a bare one and lists its attributes; for an optimizer
    this makes variables, too. It keeps the list under one name and looks for it under another (`get_attr_skipset` in
    `saving_lib.py` of Keras 3.15), so it does so for every layer of every net: a third of the time to save a small one.
    """
    try:
        from keras.src.backend.common.global_state import get_global_attribute, set_global_attribute
    except ImportError:
        return  # another Keras, which may do without
    for kind in _KINDS:
        if (found := get_global_attribute(f"saving_attr_skipset_{kind}")) is not None:
            set_global_attribute(f"saving_attr_skiplist_{kind}", found)
