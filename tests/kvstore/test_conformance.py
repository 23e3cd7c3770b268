"""What every backend promises (`kvstore.contract`), asked of each on the real thing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from kvstore.contract import Change, KeyExists, LeaseLost, Store, StoreError, StoreUnavailable, VersionMismatch
from kvstore.limits import MAX_VALUE
from tests.kvstore.conftest import PATIENCE, Backend, Mirror, opened

Opener = Backend


def run(opener: Opener, test: Callable[[Store], Awaitable[None]]) -> None:
    async def main() -> None:
        async with opened(opener) as store:
            await asyncio.wait_for(test(store), 60)

    asyncio.run(main())


def test_a_key_that_was_never_written_is_absent(opener: Opener) -> None:
    async def test(store: Store) -> None:
        assert await store.get("net/nothing") is None

    run(opener, test)


def test_what_was_created_can_be_read(opener: Opener) -> None:
    async def test(store: Store) -> None:
        made = await store.create("net/a", b"\x00\xffone")
        assert (made.key, made.value) == ("net/a", b"\x00\xffone")
        assert await store.get("net/a") == made

    run(opener, test)


def test_create_refuses_a_key_that_exists(opener: Opener) -> None:
    async def test(store: Store) -> None:
        made = await store.create("net/a", b"one")
        with pytest.raises(KeyExists):
            await store.create("net/a", b"two")
        assert await store.get("net/a") == made

    run(opener, test)


def test_cas_replaces_only_the_version_it_names(opener: Opener) -> None:
    async def test(store: Store) -> None:
        first = await store.create("net/a", b"one")
        second = await store.cas("net/a", b"two", first.version)
        with pytest.raises(VersionMismatch):
            await store.cas("net/a", b"three", first.version)
        assert await store.get("net/a") == second
        assert second.value == b"two"

    run(opener, test)


def test_cas_of_an_absent_key_is_a_mismatch(opener: Opener) -> None:
    async def test(store: Store) -> None:
        with pytest.raises(VersionMismatch):
            await store.cas("net/a", b"one", 1)
        assert await store.get("net/a") is None

    run(opener, test)


def test_delete_without_a_version_takes_what_is_there_or_nothing(opener: Opener) -> None:
    async def test(store: Store) -> None:
        await store.create("net/a", b"one")
        await store.delete("net/a")
        await store.delete("net/a")
        assert await store.get("net/a") is None

    run(opener, test)


def test_delete_with_a_version_leaves_a_newer_value_alone(opener: Opener) -> None:
    async def test(store: Store) -> None:
        first = await store.create("net/a", b"one")
        second = await store.cas("net/a", b"two", first.version)
        with pytest.raises(VersionMismatch):
            await store.delete("net/a", first.version)
        assert await store.get("net/a") == second
        await store.delete("net/a", second.version)
        with pytest.raises(VersionMismatch):
            await store.delete("net/a", second.version)

    run(opener, test)


def test_a_version_never_comes_back_after_delete_and_create(opener: Opener) -> None:
    async def test(store: Store) -> None:
        first = await store.create("net/a", b"one")
        await store.delete("net/a", first.version)
        await store.create("net/a", b"another owner's")
        with pytest.raises(VersionMismatch):
            await store.delete("net/a", first.version)
        with pytest.raises(VersionMismatch):
            await store.cas("net/a", b"mine", first.version)

    run(opener, test)


def test_list_gives_what_starts_with_the_prefix_sorted(opener: Opener) -> None:
    async def test(store: Store) -> None:
        made = {key: await store.create(key, key.encode()) for key in ("n/b", "n/a/2", "n/a/10", "n/aa", "m", "o/a")}
        assert await store.list("n/") == [made[key] for key in sorted(made) if key.startswith("n/")]
        assert [entry.key for entry in await store.list("n/a/")] == ["n/a/10", "n/a/2"]
        assert [entry.key for entry in await store.list("n/a")] == ["n/a/10", "n/a/2", "n/aa"]
        assert await store.list("none/") == []
        assert len(await store.list("")) == len(made)

    run(opener, test)


def test_a_key_may_have_children(opener: Opener) -> None:
    async def test(store: Store) -> None:
        await store.create("n/a", b"parent")
        await store.create("n/a/b", b"child")
        await store.delete("n/a")
        assert await store.get("n/a") is None
        assert [entry.key for entry in await store.list("n/")] == ["n/a/b"]

    run(opener, test)


def test_empty_and_large_values_survive(opener: Opener) -> None:
    async def test(store: Store) -> None:
        for key, value in (("n/empty", b""), ("n/large", b"x" * 300_000)):
            await store.create(key, value)
            entry = await store.get(key)
            assert entry and entry.value == value

    run(opener, test)


def test_writes_outlive_the_store_object(opener: Opener) -> None:
    async def main() -> None:
        async with opened(opener) as store:
            await store.create("net/a", b"one")
        async with opened(opener) as store:
            entry = await store.get("net/a")
            assert entry and entry.value == b"one"

    asyncio.run(main())


def test_of_many_creators_of_one_key_exactly_one_wins(opener: Opener) -> None:
    async def main() -> None:
        async with opened(opener) as one, opened(opener) as two:
            tries = [store.create("ip/10.0.0.2", str(n).encode()) for n, store in enumerate([one, two] * 10)]
            outcomes = await asyncio.gather(*tries, return_exceptions=True)
            winners = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
            assert len(winners) == 1
            assert all(isinstance(outcome, KeyExists) for outcome in outcomes if outcome not in winners)
            assert await one.get("ip/10.0.0.2") == winners[0]

    asyncio.run(main())


def test_no_compare_and_swap_is_lost_between_writers(opener: Opener) -> None:
    async def increment(store: Store) -> None:
        for _ in range(20):
            while True:
                entry = await store.get("counter")
                assert entry
                try:
                    await store.cas("counter", str(int(entry.value) + 1).encode(), entry.version)
                    break
                except VersionMismatch:
                    continue

    async def main() -> None:
        async with opened(opener) as one, opened(opener) as two:
            await one.create("counter", b"0")
            await asyncio.gather(increment(one), increment(two), increment(one))
            entry = await two.get("counter")
            assert entry and entry.value == b"60"

    asyncio.run(main())


def test_a_watch_tells_the_full_state_first(opener: Opener) -> None:
    async def test(store: Store) -> None:
        made = {key: await store.create(key, b"x") for key in ("n/a", "n/b", "m/c")}
        first = await anext(store.watch("n/"))
        assert first == Change({"n/a": made["n/a"], "n/b": made["n/b"]}, frozenset())

    run(opener, test)


def test_a_watch_of_nothing_says_so_at_once(opener: Opener) -> None:
    async def test(store: Store) -> None:
        assert await asyncio.wait_for(anext(store.watch("n/")), PATIENCE) == Change({}, frozenset())

    run(opener, test)


def test_a_watch_follows_creates_updates_and_deletes_below_its_prefix_only(opener: Opener) -> None:
    async def test(store: Store) -> None:
        mirror = Mirror(store, "n/")
        await mirror.becomes({})
        a = await store.create("n/a", b"1")
        await mirror.becomes({"n/a": b"1"})
        a = await store.cas("n/a", b"2", a.version)
        await store.create("m/x", b"not watched")
        await mirror.becomes({"n/a": b"2"})
        await store.create("n/deep/er", b"3")
        await mirror.becomes({"n/a": b"2", "n/deep/er": b"3"})
        await store.delete("n/a", a.version)
        await mirror.becomes({"n/deep/er": b"3"})
        assert all(key.startswith("n/") for change in mirror.changes for key in change.puts)
        await mirror.stop()

    run(opener, test)


def test_a_watch_sees_what_another_client_writes(opener: Opener) -> None:
    async def main() -> None:
        async with opened(opener) as here, opened(opener) as there:
            mirror = Mirror(here, "n/")
            await mirror.becomes({})
            made = await there.create("n/a", b"1")
            await mirror.becomes({"n/a": b"1"})
            await there.delete("n/a", made.version)
            await mirror.becomes({})
            await mirror.stop()

    asyncio.run(main())


def test_a_watch_converges_under_a_storm_of_writes(opener: Opener) -> None:
    async def storm(store: Store, number: int) -> None:
        for round_ in range(15):
            made = await store.create(f"n/{number}/{round_ % 4}", str(round_).encode())
            if round_ % 4 != 3:
                made = await store.cas(made.key, b"changed", made.version)
            if round_ < 12:
                await store.delete(made.key, made.version)

    async def main() -> None:
        async with opened(opener) as here, opened(opener) as there:
            mirror = Mirror(here, "n/")
            await asyncio.gather(*(storm(store, n) for n, store in enumerate([here, there, here, there])))
            await mirror.becomes({entry.key: entry.value for entry in await there.list("n/")})
            assert len(mirror.state) == 12
            await mirror.stop()

    asyncio.run(main())


def test_closing_the_store_ends_its_watches(opener: Opener) -> None:
    async def main() -> None:
        async with opened(opener) as store:
            changes = store.watch("n/")
            await anext(changes)
            rest = asyncio.create_task(anext(changes, None))
            await asyncio.sleep(0.05)
            await store.close()
            assert await asyncio.wait_for(rest, PATIENCE) is None

    asyncio.run(main())


def test_a_closed_store_says_so(opener: Opener) -> None:
    async def main() -> None:
        async with opened(opener) as store:
            await store.close()
            with pytest.raises(StoreUnavailable, match="closed"):
                await store.get("n/a")

    asyncio.run(main())


def test_revoking_a_lease_takes_its_keys_with_it(opener: Opener) -> None:
    async def test(store: Store) -> None:
        lease = await store.lease(10)
        await store.create("hosts/a", b"here", lease=lease)
        await store.create("hosts/permanent", b"here")
        mirror = Mirror(store, "hosts/")
        await mirror.becomes({"hosts/a": b"here", "hosts/permanent": b"here"})
        assert lease.alive
        await lease.revoke()
        assert not lease.alive
        assert await store.get("hosts/a") is None
        await mirror.becomes({"hosts/permanent": b"here"})
        await store.create("hosts/a", b"back at once")
        await mirror.stop()

    run(opener, test)


def test_a_changed_key_stays_with_its_lease(opener: Opener) -> None:
    async def test(store: Store) -> None:
        lease = await store.lease(opener.lease_ttl)
        made = await store.create("hosts/a", b"here", lease=lease)
        await store.cas("hosts/a", b"still here", made.version)
        await lease.revoke()
        assert await store.get("hosts/a") is None

    run(opener, test)


def test_a_leased_key_is_created_only_if_absent(opener: Opener) -> None:
    async def test(store: Store) -> None:
        lease = await store.lease(opener.lease_ttl)
        made = await store.create("hosts/a", b"here", lease=lease)
        for again in (lease, None):
            with pytest.raises(KeyExists):
                await store.create("hosts/a", b"there", lease=again)
        assert await store.get("hosts/a") == made
        await lease.revoke()

    run(opener, test)


def test_nothing_can_be_created_with_a_lease_that_has_ended(opener: Opener) -> None:
    async def test(store: Store) -> None:
        lease = await store.lease(opener.lease_ttl)
        await lease.revoke()
        with pytest.raises(LeaseLost):
            await store.create("hosts/a", b"here", lease=lease)
        assert await store.get("hosts/a") is None

    run(opener, test)


def test_a_lease_lives_as_long_as_somebody_keeps_it(opener: Opener) -> None:
    async def main() -> None:
        async with opened(opener) as here:
            mirror = Mirror(here, "hosts/")
            kept = await here.lease(opener.lease_ttl)
            await here.create("hosts/here", b"", lease=kept)
            gone = await opener()
            await gone.create("hosts/gone", b"", lease=await gone.lease(opener.lease_ttl))
            await mirror.becomes({"hosts/here": b"", "hosts/gone": b""})
            gone_from = time.monotonic()
            await gone.close()
            await mirror.becomes({"hosts/here": b""}, patience=opener.gone_after)
            await asyncio.sleep(opener.gone_after - (time.monotonic() - gone_from))
            assert kept.alive
            assert await here.get("hosts/here")
            await mirror.stop()

    asyncio.run(main())


def test_a_closed_store_leaves_its_lease_to_run_out_and_another_takes_its_keys_over(opener: Opener) -> None:
    """A daemon that restarts is not gone for the others meanwhile."""

    async def main() -> None:
        before = await opener()
        lease = await before.lease(10)
        await before.create("hosts/a", b"before", lease=lease)
        await before.close()
        assert not lease.alive
        async with opened(opener) as after:
            left = await after.get("hosts/a")
            assert left and left.value == b"before"
            await after.delete("hosts/a", left.version)
            await after.create("hosts/a", b"after", lease=await after.lease(10))

    asyncio.run(main())


def test_a_value_that_not_every_backend_can_hold_is_refused(opener: Opener) -> None:
    async def test(store: Store) -> None:
        await store.create("n/most", b"x" * MAX_VALUE)
        with pytest.raises(StoreError, match=f"{MAX_VALUE + 1} bytes"):
            await store.create("n/more", b"x" * (MAX_VALUE + 1))
        assert await store.get("n/more") is None

    run(opener, test)


def test_keys_may_hold_any_printable_character(opener: Opener) -> None:
    keys = ["n/fd00::1", "n/a b", "n/ü", "n/%2F", "n/=x", "n/a+b?c=d&e#f", "n/.x", "n/-"]

    async def test(store: Store) -> None:
        for key in keys:
            await store.create(key, key.encode())
        assert {entry.key: entry.value for entry in await store.list("n/")} == {key: key.encode() for key in keys}
        for key in keys:
            entry = await store.get(key)
            assert entry and entry.value == key.encode()

    run(opener, test)
