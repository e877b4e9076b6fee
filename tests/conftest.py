"""What every test shares: waiting threads spin shortly, so that a busy machine stays usable; slow tests have time; git
is that of a stranger.
"""

import os

import pytest

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # before torch is loaded
for name in [name for name in os.environ if name.startswith("GIT_")]:
    del os.environ[name]  # of a hook that runs the tests: git would take its repository for each that a test makes
os.environ["GIT_CONFIG_GLOBAL"] = os.devnull  # a person's hooks and signatures

SLOW = 2 * 3600  # seconds that a test of the `slow` tier may take on a busy machine; the others have pyproject.toml's


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(SLOW))


@pytest.fixture(scope="module")
def one_thread():
    """Torch adds in one order, however many cores the machine has."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
