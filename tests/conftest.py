"""What every test shares: waiting threads sleep instead of spinning, so that a busy machine stays usable."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded
