"""What every test shares: how many run at once; waiting threads spin shortly, so that a busy machine stays usable; slow
tests have time; git is that of a stranger.
"""

import os

import pytest

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # before torch is loaded
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the other cores have workers of their own
for name in [name for name in os.environ if name.startswith("GIT_")]:
    del os.environ[name]  # of a hook that runs the tests: git would take its repository for each that a test makes
os.environ["GIT_CONFIG_GLOBAL"] = os.devnull  # a person's hooks and signatures

MOST_WORKERS, WORKER_BYTES = 8, 2 << 30  # of `-n auto`; what one takes at most, with a pose model and a text encoder
SLOW = 2 * 3600  # seconds that a test of the `slow` tier may take on a busy machine; the others have pyproject.toml's


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """`-n auto`: a worker for each core that this process may use, as far as memory goes; 0, thus none, is this one."""
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None  # by xdist, as its manual says
    from pipeline.executors.local import usable_cores
    from pipeline.files.memory import machine_bytes

    workers = min(len(usable_cores()), machine_bytes() // WORKER_BYTES, MOST_WORKERS)
    return workers if workers > 1 else 0


def pytest_collection_modifyitems(items):
    """Files with a test that is not `unit` come first: whole files go to workers, and the last ones should be short."""
    long = {item.path for item in items if not item.get_closest_marker("unit")}
    items.sort(key=lambda item: item.path not in long)
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


@pytest.fixture
def threads_stay():
    """However many a test has told torch of: with more than there are cores, all tests after it would be slow."""
    import torch

    threads, put_back = torch.get_num_threads(), torch.set_num_threads  # both of which the test may replace
    yield
    put_back(threads)
