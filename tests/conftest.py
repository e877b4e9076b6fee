"""What every test shares: waiting threads spin only shortly, so that a busy machine stays usable."""

import os

import pytest

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # before torch is loaded


@pytest.fixture(scope="module")
def one_thread():
    """Torch adds in one order, however many cores the machine has."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
