"""Example Keras builders that `conf/model` points at.

A builder takes the shape of one row and, for a classifier, the number of classes, and its hyperparameters as keywords
or from a `keras_tuner.HyperParameters`; it returns a compiled `keras.Model`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trialbook.errors import ModelError

if TYPE_CHECKING:
    import keras
    import keras_tuner


def mlp(
    input_shape: tuple[int, ...],
    n_classes: int | None,
    units: int = 128,
    hidden_layers: int = 1,
    activation: str = "relu",
    dropout: float = 0.0,
    learning_rate: float = 1e-3,
) -> keras.Model:
    """A dense net: `hidden_layers` layers of `units`, then one output for each class.

    Args:
        input_shape: Shape of one row; more than one dimension is flattened.
        n_classes: Number of classes, None for a regression. Two classes share one sigmoid output.
        units: Width of each hidden layer.
        hidden_layers: Number of hidden layers.
        activation: Activation of the hidden layers, by its Keras name.
        dropout: Share of hidden outputs dropped while training, from 0 to 1.
        learning_rate: Step size of Adam.
    """
    import keras

    net = keras.Sequential([keras.Input(input_shape)])
    if len(input_shape) > 1:
        net.add(keras.layers.Flatten())
    for _ in range(hidden_layers):
        net.add(keras.layers.Dense(units, activation=activation))
        if dropout:
            net.add(keras.layers.Dropout(dropout))
    return _compiled(net, n_classes, learning_rate)


def binary_net(input_shape: tuple[int, ...], hidden_units: int = 100, activation: str = "relu") -> keras.Model:
    """A net with one hidden layer and one sigmoid output, for two classes.

    Args:
        input_shape: Shape of one row.
        hidden_units: Width of the hidden layer.
        activation: Its activation, by its Keras name.
    """
    import keras

    net = keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Dense(hidden_units, activation=activation),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    net.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    return net


def cnn(
    input_shape: tuple[int, ...],
    n_classes: int | None,
    image_shape: Sequence[int] | None = None,
    filters: int = 16,
    units: int = 64,
    dropout: float = 0.0,
    learning_rate: float = 1e-3,
) -> keras.Model:
    """A small convolutional net for images, or for rows of their pixels, of whatever range.

    Args:
        input_shape: Shape of one row.
        n_classes: Number of classes, None for a regression.
        image_shape: Height and width of an image, and channels if there are several; None for the shape of a row, or
            for a grey square if that is a vector.
        filters: Number of filters of the first convolution; the second has twice as many.
        units: Width of the dense layer.
        dropout: Share of its outputs dropped while training, from 0 to 1.
        learning_rate: Step size of Adam.

    Raises:
        ModelError: If a row has another number of pixels than an image.
    """
    import keras

    net = keras.Sequential([keras.Input(input_shape), keras.layers.Reshape(_image(input_shape, image_shape))])
    # Each image to mean 0 and variance 1, with nothing to learn: so the range of the pixels does not matter.
    net.add(keras.layers.LayerNormalization(axis=(1, 2, 3), center=False, scale=False))
    for count in (filters, 2 * filters):
        net.add(keras.layers.Conv2D(count, 3, padding="same", activation="relu"))
        net.add(keras.layers.MaxPooling2D())
    net.add(keras.layers.Flatten())
    net.add(keras.layers.Dense(units, activation="relu"))
    if dropout:
        net.add(keras.layers.Dropout(dropout))
    return _compiled(net, n_classes, learning_rate)


def image_classifier(hp: keras_tuner.HyperParameters, input_shape: tuple[int, ...], n_classes: int) -> keras.Model:
    """Pixels to one dense layer to one output for each class, written as for Keras Tuner: it declares its own space.

    Args:
        hp: Asked for `units` and `learning_rate`.
        input_shape: Shape of one row; more than one dimension is flattened.
        n_classes: Number of classes.
    """
    import keras

    units = hp.Int("units", min_value=32, max_value=512, step=32)
    learning_rate = hp.Choice("learning_rate", values=[1e-2, 1e-3, 1e-4])
    net = keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Flatten(),
            # Each image to mean 0 and variance 1, with nothing to learn: so the range of the pixels does not matter.
            keras.layers.LayerNormalization(center=False, scale=False),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dense(n_classes, activation="softmax"),
        ]
    )
    net.compile(
        optimizer=keras.optimizers.Adam(learning_rate), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return net


def _compiled(net: keras.Sequential, n_classes: int | None, learning_rate: float) -> keras.Model:
    """The net with the output, loss and metric for a number of classes."""
    import keras

    if n_classes is None:
        outputs, last, loss, metric = 1, "linear", "mean_squared_error", "mean_absolute_error"
    elif n_classes == 2:
        outputs, last, loss, metric = 1, "sigmoid", "binary_crossentropy", "accuracy"
    else:
        outputs, last, loss, metric = n_classes, "softmax", "sparse_categorical_crossentropy", "accuracy"
    net.add(keras.layers.Dense(outputs, activation=last))
    net.compile(optimizer=keras.optimizers.Adam(learning_rate), loss=loss, metrics=[metric])
    return net


def _image(input_shape: tuple[int, ...], image_shape: Sequence[int] | None) -> tuple[int, ...]:
    if image_shape is None and len(input_shape) > 1:
        return (*input_shape, 1)[:3]
    pixels = math.prod(input_shape)
    if image_shape is None:
        side = math.isqrt(pixels)
        if side * side != pixels:
            raise ModelError(f"{pixels} pixels are no square; give model.image_shape as [height, width, channels].")
        return side, side, 1
    if math.prod(image_shape) != pixels or len(image_shape) not in (2, 3):
        raise ModelError(
            f"model.image_shape={list(image_shape)} must be [height, width] or [height, width, channels] "
            f"of the {pixels} pixels of a row."
        )
    return (*image_shape, 1)[:3]
