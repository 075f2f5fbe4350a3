"""What every test may rely on: no network, one thread, fixed seeds, and real images only where somebody put them."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

# Before any test module can import PyTorch or transformers, which read these once.
os.environ.update(
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    MPLBACKEND="agg",
)

import numpy as np
import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parents[1]
SEED = 7

# Derandomised: the same examples in every run. No deadline: the first call of a function may import a library.
settings.register_profile("gastrovl", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("gastrovl")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Global generators start alike in each test; our own code takes its randomness as an argument all the same."""
    random.seed(SEED)
    np.random.seed(SEED)
    if "torch" in sys.modules:
        import torch

        torch.manual_seed(SEED)
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data_root() -> Path:
    """The folder of real image sets (`edd2020/`, `hyperkvasir/`): $GASTROVL_DATA, or `../shared/data`."""
    named = os.environ.get("GASTROVL_DATA")
    root = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not root.is_dir():
        pytest.skip(f"no real images: {root} does not exist; set GASTROVL_DATA to a folder that holds them")
    return root
