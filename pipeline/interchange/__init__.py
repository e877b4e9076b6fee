"""Skeletons of others: PYSKL / MMAction2 pickles and `.npz` into the cache, and the cache back to pickles."""
