"""Making the kernel look as it should: links, addresses, routes, nftables; no stores, HTTP or containers."""
