"""What a folder of configurations may tell Hydra before the command gets to see it."""

import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import MissingConfigException

from trialbook import launching
from trialbook.errors import NotAllowedError, RequestError

CONF = Path(__file__).parents[2] / "conf"
EVIL = {
    "a callback": "callbacks:\n    x: {_target_: os.system, command: touch pwned}",
    "a callback behind a detour": "callbacks:\n    x: {_target_: hydra.experimental.callbacks.pickle.loads}",
    "a callback by interpolation": "callbacks: ${evil}\nevil:\n  x: {_target_: os.system}",
    "an argument of a callback": (
        "callbacks:\n    x: {_target_: hydra.experimental.callbacks.LogJobReturnCallback, y: {_target_: os.system}}"
    ),
    "a launcher": "launcher: {_target_: subprocess.run}",
    "a sweeper": "sweeper: {_target_: builtins.exec}",
    "a factory of the logging": "job_logging:\n    formatters: {x: {(): subprocess.call, args: [touch, pwned]}}",
    "a class of the logging": "hydra_logging:\n    handlers: {x: {class: my_lab.Handler}}",
    "an object of the logging": "hydra_logging:\n    handlers: {x: {class: logging.StreamHandler, stream: ext://os}}",
    "a hidden class of the logging": "job_logging:\n    handlers: {x: {class: '${evil}'}}\nevil: os.system",
    "what is allowed": "job:\n    env_set: {TRIALBOOK_ALLOW: os}",
    "what is loaded": "job:\n    env_set: {LD_PRELOAD: /tmp/evil.so}",
}
HARMLESS = {
    "a callback of Hydra's": "callbacks:\n    x: {_target_: hydra.experimental.callbacks.LogJobReturnCallback}",
    "a folder": "run: {dir: here}",
    "threads": "job:\n    env_set: {OMP_NUM_THREADS: '1'}",
    "a logger": "job_logging:\n    handlers: {x: {class: logging.StreamHandler, stream: ext://sys.stderr}}",
}


@pytest.fixture(name="preset")
def write_preset(tmp_path, monkeypatch):
    """Writes a preset `mine` with a section for Hydra; gives the command line that uses its folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    (tmp_path / "conf" / "experiment").mkdir(parents=True)

    def write(section, name="mine"):
        (tmp_path / "conf" / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\nhydra:\n  {section}\n")
        return [f"--config-dir={tmp_path}/conf", "experiment=mine"]

    return write


@pytest.mark.parametrize("section", EVIL.values(), ids=EVIL)
def test_what_hydra_would_run_is_judged_before_it_does(preset, section):
    with pytest.raises(NotAllowedError, match=r"^hydra\.\w+.* is not allowed"):
        launching.prepare(preset(section), CONF)


@pytest.mark.parametrize("section", HARMLESS.values(), ids=HARMLESS)
def test_what_is_harmless_passes(preset, section):
    words = preset(section)
    assert launching.prepare(words, CONF) == words


def test_each_preset_of_a_sweep_is_judged(preset):
    preset(HARMLESS["a folder"])
    preset(EVIL["a callback"], "other")
    words = [*preset(HARMLESS["a folder"])[:1], "-m", "model=svm,ridge", "experiment=mine,other"]
    with pytest.raises(NotAllowedError, match=r"^hydra\.callbacks\.x\._target_=os\.system"):
        launching.prepare(words, CONF)


def test_the_folder_of_an_earlier_command_line_does_not_count_for_the_next(preset):
    launching.prepare(preset(HARMLESS["a folder"]), CONF)
    launching.prepare(["model=svm"], CONF)
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises(MissingConfigException):
        compose("config", ["experiment=mine"])


def test_what_is_allowed_on_the_command_line_is_no_override(preset, monkeypatch):
    monkeypatch.setenv("TRIALBOOK_ALLOW", "")
    words = preset(EVIL["a callback"])
    assert launching.prepare(["allow=posix", "allow=os", *words], CONF) == words


def test_a_folder_that_is_not_there_is_refused(preset):
    with pytest.raises(RequestError, match="--config-dir=nowhere is not a folder"):
        launching.prepare(["--config-dir=nowhere"], CONF)
