import pytest

from trialbook.__main__ import overrides_of


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["data=digits", "-m"], ["-m", "data=digits"]),
        (["a=1", "--config-dir", "x=y", "b=2"], ["--config-dir", "x=y", "a=1", "b=2"]),
        (["~a", "-m", "--info", "all", "b=2"], ["-m", "--info", "all", "~a", "b=2"]),
        (["--data", "digits"], ["data=digits"]),
        (["--model.units", "[32,64]", "--extra", "a b"], ["model.units=[32,64]", "extra=a b"]),
        (["--budget.target", "-1"], ["budget.target=-1"]),
        (["--overrides", "a=1 b='x y'"], ["a=1", "b=x y"]),
        (["--overrides", ""], []),
        (["--cfg", "job", "--resolve"], ["--cfg", "job", "--resolve"]),
        (["--config-dir=here", "--multirun", "--seed", "3"], ["--config-dir=here", "--multirun", "seed=3"]),
        (["--data=digits"], ["data=digits"]),
        (["promote=abc", "promote.enabled=true"], ["promote.run=abc", "promote.enabled=true"]),
        (["--promote", "abc"], ["promote.run=abc"]),
    ],
)
def test_parameters_of_mlflow_run_become_overrides(argv, expected):
    assert overrides_of(argv) == expected


def test_a_parameter_without_a_value_is_refused():
    with pytest.raises(ValueError, match="--data needs a value"):
        overrides_of(["--data"])
