"""A lab of several hosts on one machine: network namespaces on a bridge, a real store, a netd on each host."""
