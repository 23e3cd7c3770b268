"""`store check`, `export` and `import`: the cluster store itself, without a daemon."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from netd.cli.command import Cli, Failure, command
from netd.cli.words import flags
from netd.cli.words.flags import Options

if TYPE_CHECKING:
    from kvstore.contract import Store

T = TypeVar("T")

_OPTS = flags.mapping("cluster-store-opt", "", "Option of the store, such as kv.cacertfile=FILE")
_STORE = flags.string("cluster-store", "", "URL of the store (default: the one in daemon.json)")
_FORCE = flags.boolean("force", "f", "Replace what is there with other values")


@command("[OPTIONS] [URL]", (0, 1), _OPTS)
def check(cli: Cli, options: Options, arguments: list[str]) -> int:
    from netd.cluster.diagnose import diagnose

    url, settings = _store(arguments[0] if arguments else "", options)
    diagnosis = asyncio.run(diagnose(url, settings))
    (cli.print if diagnosis.usable else cli.warn)(diagnosis.told)
    return 0 if diagnosis.usable else 1


@command("[OPTIONS] FILE|-", (1, 1), _STORE, _OPTS)
def export(cli: Cli, options: Options, arguments: list[str]) -> int:
    from netd.cluster import transfer

    async def write(store: Store) -> int:
        count = -1
        with _file(arguments[0], "wb", sys.stdout.buffer) as file:
            async for line in transfer.export(store):
                file.write(line)
                count += 1
        return count

    count = _with_store(options, write)
    cli.warn(f"{count} keys exported")
    return 0


@command("[OPTIONS] FILE|-", (1, 1), _STORE, _OPTS, _FORCE)
def import_(cli: Cli, options: Options, arguments: list[str]) -> int:
    from netd.cluster import transfer

    with _file(arguments[0], "rb", sys.stdin.buffer) as file:
        lines: Iterable[bytes] = file.readlines()
    outcome = _with_store(options, lambda store: transfer.import_(store, lines, force=options.force))
    for key in outcome.differing:
        cli.warn(f"{key} is there with another value and was left as it is: --force replaces it")
    cli.warn(f"{outcome.written} keys imported")
    return 1 if outcome.differing else 0


def _with_store(options: Options, act: Callable[[Store], Awaitable[T]]) -> T:
    """The result of `act` on the store that the flags or daemon.json name."""
    from kvstore.contract import StoreError
    from kvstore.open import open_store
    from netd.core.errors import NetdError

    url, settings = _store(options.cluster_store, options)

    async def run() -> T:
        store = await open_store(url, **settings)
        try:
            return await act(store)
        finally:
            await store.close()

    try:
        return asyncio.run(run())
    except (NetdError, StoreError, ValueError, OSError) as error:
        raise Failure(str(error)) from error


def _store(url: str, options: Options) -> tuple[str, dict[str, str]]:
    from netd.config import load
    from netd.config.values import DEFAULT_CONFIG_FILE
    from netd.core.errors import InvalidParameter

    try:
        file = load.read_file(DEFAULT_CONFIG_FILE, required=False)
    except InvalidParameter as error:
        raise Failure(str(error)) from error
    if not url:
        url = file.get("cluster-store", "")
        settings = dict(file.get("cluster-store-opts", {}))
    else:
        settings = {}
    if not url:
        raise Failure("no store is named: give its URL, such as etcd://HOST:2379")
    settings |= options.cluster_store_opt
    return url, {key: value for key, value in settings.items() if key.startswith("kv.")}


def _file(name: str, mode: str, standard: BinaryIO) -> Any:
    import contextlib

    try:
        return contextlib.nullcontext(standard) if name == "-" else open(name, mode)
    except OSError as error:
        raise Failure(f"cannot open {name}: {error.strerror}") from error
