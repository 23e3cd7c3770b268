"""What many hosts share through a store: who is there, global networks, their endpoints and addresses.

Layout of the store, below its path:

    hosts/HOST                      who this is, on a lease: it vanishes with the host
    names/NAME, vni/N, subnets/S    claims of global networks: at most one owner each
    networks/ID                     a network; it exists from the moment this is written
    ep/NETWORK/ENDPOINT             an endpoint, counted while its host is there
    ipam/NETWORK/ip/ADDRESS         claims of endpoints and of stopped containers
    epname/NETWORK/NAME             claims of endpoints

No lock is held across hosts: a claim is made only where there is none (netd/cluster/claims.py), everything else
is changed at the version that was read. Whatever belongs to a host that is gone may be removed by anybody, in
this order: read it, then see that its host is absent, then delete what was read at that version. A host that
returns writes its own record first and then every record and claim of its own anew, so that a removal decided
before can no longer happen.
"""
