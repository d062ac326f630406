"""Which search works on which model: what tests/integration/test_matrix.py runs, and the table in README.md.

`python tests/matrix.py` prints the table.
"""

SEARCHES = (
    *("sklearn/grid", "sklearn/random", "sklearn/halving_grid", "sklearn/halving_random"),
    *("keras_tuner/grid", "keras_tuner/random", "keras_tuner/bayesian", "keras_tuner/hyperband"),
)

# For each model, the data it is tested on and the overrides it needs there.
MODELS = {
    "mlp": ("digits", ()),
    "cnn": ("digits", ()),
    "mlp_regressor": ("diabetes", ("objective.metric=r2",)),
    "logistic_regression": ("breast_cancer", ()),
    "svm": ("breast_cancer", ()),
    "random_forest": ("breast_cancer", ()),
    "gradient_boosting": ("breast_cancer", ()),
    "ridge": ("diabetes", ("objective.metric=r2",)),
}
NETS = ("mlp", "cnn", "mlp_regressor")


def works(search, model):
    """Whether the combination makes sense; the others are refused before anything runs."""
    return model in NETS or search != "keras_tuner/hyperband"


def table():
    """The table as Markdown."""
    rows = [["`search=`", *(f"`{model}`" for model in MODELS)], ["---"] * (1 + len(MODELS))]
    rows += [[f"`{s}`", *("✓" if works(s, m) else "refused" for m in MODELS)] for s in SEARCHES]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


if __name__ == "__main__":
    print(table())
