"""The progress bar of `encode` and `train`: one tick an epoch, with phase, seed and loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


@contextmanager
def epoch_bar(title: str) -> Iterator[Callable[[str, Any], None]]:
    """Yields the callback that `encode` and `train` take. The total is open: the selection phase stops when it has
    seen enough.
    """
    with tqdm(desc=title, unit="epoch") as bar:

        def on_epoch(what: str, progress: Any) -> None:
            bar.set_postfix_str(f"{what}, epoch {progress.epoch}, loss {progress.losses[-1]:.3f}", refresh=False)
            bar.update()

        yield on_epoch
