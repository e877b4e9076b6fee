"""What every test shares: waiting threads spin only shortly, so that a busy machine stays usable."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # before torch is loaded
