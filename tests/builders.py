"""Keras builders that misbehave on purpose, for tests of the command."""

import time
from pathlib import Path

from trialbook.models import mlp


def fails_for_wide(input_shape, n_classes, units=8):
    """Raises for some hyperparameters, and leaves Python for others."""
    if units == 64:
        raise ArithmeticError(f"{units} units are too many")
    if units == 128:
        raise SystemExit("a builder should not do this")
    return mlp(input_shape, n_classes, units=units)


def always_fails(input_shape, n_classes, units=8):
    raise ArithmeticError("never works")


def not_compiled(input_shape, n_classes, units=8):
    import keras

    return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(units)])


def diverges_for_wide(input_shape, n_classes, units=8):
    """Its loss becomes NaN for some hyperparameters."""
    import keras

    net = mlp(input_shape, n_classes, units=units)
    rate = float("inf") if units == 64 else 1e-3
    net.compile(optimizer=keras.optimizers.SGD(rate), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return net


def waits_after_first_epochs(input_shape, n_classes, units=8, flag=""):
    """Trains, and stops in its third epoch until the file `flag` is there."""
    import keras

    class Wait(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            deadline = time.monotonic() + 120
            while epoch == 2 and not Path(flag).exists() and time.monotonic() < deadline:
                time.sleep(0.01)

    net = mlp(input_shape, n_classes, units=units)
    fit = net.fit
    net.fit = lambda *args, callbacks=(), **kwargs: fit(*args, callbacks=[*callbacks, Wait()], **kwargs)
    return net
