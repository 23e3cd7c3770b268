"""A consistent key-value store with versions, compare-and-swap, prefix watch and leases.

One contract (`kvstore.contract`), several backends, opened by URL (`kvstore.open`).
"""
