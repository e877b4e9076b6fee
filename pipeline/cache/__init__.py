"""The feature cache: sealed HDF5 shards written once, receipts, an index, verification and reading."""
