"""Global networks on this host: networks of the cluster with their gateway network, and the hosts as shown."""
