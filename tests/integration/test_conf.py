"""Every file of conf/ composes, says what it is, and its part can be made."""

from pathlib import Path

import hydra.utils
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

CONF = Path(__file__).parents[2] / "conf"
FILES = sorted(CONF.rglob("*.yaml"))
PARTS = [f for f in FILES if f.relative_to(CONF).parts[0] in ("data", "model", "search", "validation", "executor")]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(CONF)))
def test_a_file_starts_with_what_it_is_and_the_command_that_uses_it(path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    comment = " ".join(line for line in lines[:4] if line.startswith("#"))
    assert comment
    assert "trialbook" in comment


@pytest.mark.slow
@pytest.mark.parametrize("path", PARTS, ids=lambda p: str(p.relative_to(CONF)))
def test_a_part_can_be_made(path):
    group, _, option = str(path.relative_to(CONF).with_suffix("")).partition("/")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides=[f"{group}={option}"])
    part = cfg[group].estimator if group == "model" else cfg[group]
    OmegaConf.resolve(part)
    made = hydra.utils.instantiate(part, _partial_=True, _convert_="all")
    assert callable(made)
    if group == "model" and cfg.model.space is not None:
        from trialbook.evaluate import configure
        from trialbook.space import Space

        space = Space.parse(OmegaConf.to_container(cfg.model.space, resolve=True))
        for point in space.grid()[:1]:
            configure(made(), {name: values[0] for name, values in point.items()})
