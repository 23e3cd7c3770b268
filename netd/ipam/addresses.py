"""The addresses of one subnet: which are taken, and which is next (facts 2.38 to 2.47).

Lowest address first, as Docker does, but a freed address is handed out again only after all others, the
one that is free for longest first: what still has it cached talks to nobody rather than to a stranger.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from netd.core.errors import Forbidden, InvalidParameter, NetdError
from netd.ipam.validate import reserved_by_subnet

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network

REMEMBERED = 1 << 16  # freed addresses whose order of reuse is kept; older ones come back in the next round


class AddressSpace:
    """One subnet's addresses. Costs O(1) amortised an address and memory for those in use, whatever the size.

    `ip_range` limits what is handed out, not what can be asked for by address. `gateway` and `aux` are taken
    for good. `label` (`NAME (ID)` of the network) completes the message when nothing is left.
    """

    def __init__(
        self,
        pool: Prefix,
        *,
        ip_range: Prefix | None = None,
        gateway: Address | None = None,
        aux: Iterable[Address] = (),
        label: str = "",
    ) -> None:
        self.pool = pool
        self._label = label
        window = ip_range or pool
        self._first = int(window.network_address)
        self._last = int(window.broadcast_address)
        self._reserved = {int(a) for a in (*reserved_by_subnet(pool), *aux, *((gateway,) if gateway else ()))}
        self._used: set[int] = set()
        self._freed: OrderedDict[int, None] = OrderedDict()
        self._next = self._first
        self._forgot = False

    def in_use(self, address: Address) -> bool:
        """Whether it is taken: by an endpoint, the gateway, an auxiliary name or the subnet itself."""
        return int(address) in self._used or int(address) in self._reserved

    def allocate(self, address: Address | None = None) -> Address:
        """Take `address`, or the next free one.

        Raises `InvalidParameter` (outside the subnet), `Forbidden` (taken) or `NetdError` (nothing left).
        """
        if address is None:
            value = self._find()
        else:
            value = self._checked(address)
            if value in self._used or value in self._reserved:
                raise Forbidden("Address already in use")
        self._take(value)
        return type(self.pool.network_address)(value)

    def claim(self, address: Address) -> None:
        """Note that `address` is in use, as a record of an earlier run says; being taken already is fine."""
        self._take(self._checked(address))

    def release(self, address: Address) -> None:
        """Give an address back; one that is not taken is fine."""
        value = int(address)
        if value not in self._used:
            return
        self._used.remove(value)
        if self._first <= value <= self._last:
            self._freed[value] = None
        if len(self._freed) > REMEMBERED:
            self._freed.popitem(last=False)
            self._forgot = True

    def _checked(self, address: Address) -> int:
        if address.version != self.pool.version or address not in self.pool:
            raise InvalidParameter("requested address is out of range")
        return int(address)

    def _take(self, value: int) -> None:
        self._freed.pop(value, None)
        self._used.add(value)

    def _find(self) -> int:
        while True:
            while self._next <= self._last:
                value = self._next
                self._next += 1
                if not (value in self._used or value in self._reserved or value in self._freed):
                    return value
            if self._freed:
                return next(iter(self._freed))
            if not self._forgot:
                raise NetdError(self._exhausted())
            self._next, self._forgot = self._first, False

    def _exhausted(self) -> str:
        text = f"no available IPv{self.pool.version} addresses on this network's address pools"
        return f"{text}: {self._label}" if self._label else text
