"""Example Keras builders that `conf/model` points at.

A builder takes the shape of one row and, for a classifier, the number of classes, then its hyperparameters as
keywords; it returns a compiled `keras.Model`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


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
    if n_classes is None:
        outputs, last, loss, metric = 1, "linear", "mean_squared_error", "mean_absolute_error"
    elif n_classes == 2:
        outputs, last, loss, metric = 1, "sigmoid", "binary_crossentropy", "accuracy"
    else:
        outputs, last, loss, metric = n_classes, "softmax", "sparse_categorical_crossentropy", "accuracy"
    net.add(keras.layers.Dense(outputs, activation=last))
    net.compile(optimizer=keras.optimizers.Adam(learning_rate), loss=loss, metrics=[metric])
    return net
