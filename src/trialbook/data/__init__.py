"""Data sets and their splits: what `conf/data` points at.

Every way to get data gives the same thing, a `Dataset`: rows to search on, and rows that the search never sees.
"""

from trialbook.data.arrays import from_numpy
from trialbook.data.catalogues import from_keras, from_openml, from_sklearn
from trialbook.data.dataset import CLASSIFICATION, REGRESSION, Dataset, fingerprint
from trialbook.data.splitting import Holdout, hold_out
from trialbook.data.tables import from_table

__all__ = [
    "CLASSIFICATION",
    "REGRESSION",
    "Dataset",
    "Holdout",
    "fingerprint",
    "from_keras",
    "from_numpy",
    "from_openml",
    "from_sklearn",
    "from_table",
    "hold_out",
]
