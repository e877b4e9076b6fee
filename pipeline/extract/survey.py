"""What an extraction finds when it begins: shards that are to be made, and what speaks against it."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from pipeline.cache.provenance import git_commit
from pipeline.cache.store import Store
from pipeline.errors import PosebridgeError
from pipeline.extract.work import ShardMaker, refuse_other_version
from pipeline.manifest.clips import Clip


@dataclass
class Survey:
    """Of some shards: `todo` has the clips to be estimated of each that is not sealed as it should be, by its number;
    `rows` are all clips that these shards will hold, `gone` the clips whose video is not there.
    """

    todo: dict[int, int] = field(default_factory=dict)
    rows: int = 0
    gone: list[Clip] = field(default_factory=list)


def survey(maker: ShardMaker, shards: Iterable[int]) -> Survey:
    """Look at shards. Raises PosebridgeError where any is to be made in a store of another version of this program, or
    where more videos are gone than `max_failures`; warns where one is to be made in a store of another commit.
    """
    found, others, commits = Survey(), set(), set()
    for shard in shards:
        state = maker.state(shard, glance=True)
        if state.receipt is not None:
            others.add(state.receipt.versions.get("posebridge", ""))
            commits.add(state.receipt.commit)
        if not state.done:
            found.todo[shard] = len(state.todo)
            found.rows += len(state.copy) + len(state.todo)
            found.gone += state.gone
    if found.todo:
        for version in sorted(others):
            refuse_other_version(version, maker.store)
        _warn_of_other_commits(commits, maker.store)
    job = maker.job
    if len(found.gone) > job.params.max_failures:
        first = found.gone[0]
        raise PosebridgeError(
            f"{len(found.gone)} clips of {job.dataset} have lost their video since ingest, first {first.clip_id!r} "
            f"({maker.source.root}/{first.path}); bring it back, or run `posebridge ingest --dataset {job.dataset}` "
            "again."
        )
    return found


def _warn_of_other_commits(commits: Collection[str], store: Store) -> None:
    """Say so where shards of a store are of other commits than this one, as far as both are known."""
    own = git_commit()
    if own and (others := sorted(set(commits) - {"", own})):
        warnings.warn(
            f"{store.folder} holds shards of commit {', '.join(other[:12] for other in others)}, and this is "
            f"{own[:12]}, whose shards may have other bytes; finish it with the commit that began it.",
            stacklevel=2,
        )
