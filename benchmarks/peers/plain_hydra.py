"""A Hydra application over Trialbook's configuration that does nothing with it; for benchmarks/rows/startup.py."""

from typing import Any

import hydra


@hydra.main(version_base="1.3", config_path="../../conf", config_name="config")
def main(cfg: Any) -> None:
    """Nothing."""


main()
