"""Experiment tracking for hyperparameter search with Hydra, MLflow, scikit-learn and Keras Tuner."""

__version__ = "0.1.0"
