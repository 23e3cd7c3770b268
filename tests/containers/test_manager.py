"""Containers as a whole: names are unique, references mean one, what is refused changes nothing."""

from __future__ import annotations

import re
from typing import Any

import pytest

from kvstore.contract import StoreUnavailable
from netd.containers import view
from netd.containers.manager import ContainerManager
from netd.core.errors import Conflict, InvalidParameter, NotFound, NotImplementedHere
from netd.core.filters import Filters
from netd.model.containers import ContainerCreate, ContainerUpdate, RestartPolicy
from netd.model.networks import NetworkConnect, NetworkDisconnect
from tests.containers.conftest import Host


def test_a_container_is_found_by_id_name_and_beginning_of_its_id(host: Host) -> None:
    identity = host.create("web")
    containers: ContainerManager = host.world.daemon.containers
    assert {containers.find(ref).record.id for ref in (identity, "web", "/web", identity[:12])} == {identity}


def test_a_name_that_is_taken_is_refused_with_its_holder(host: Host) -> None:
    identity = host.create("web")
    with pytest.raises(Conflict, match=f'"/web" is already in use by container "{identity}"'):
        host.create("web")


def test_a_creation_that_fails_frees_its_name(host: Host) -> None:
    body = ContainerCreate(image="app", cmd=["serve"])
    with pytest.raises(InvalidParameter):
        host.containers.create(body, "a b")
    with pytest.raises(NotFound, match="No such image"):
        host.containers.create(ContainerCreate(image="nosuch"), "web")
    host.create("web")


def test_prune_passes_over_what_the_store_does_not_let_go(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [host.create(name) for name in ("one", "two", "three")]
    real = host.world.store.delete

    async def delete(key: str, version: int | None = None) -> None:
        if key == f"containers/{ids[1]}":
            raise StoreUnavailable("disk I/O error")
        await real(key, version)

    monkeypatch.setattr(host.world.store, "delete", delete)
    assert host.containers.prune(Filters()) == [ids[0], ids[2]]
    assert list(host.world.daemon.containers.live) == [ids[1]]


def test_a_container_without_a_name_is_given_one(host: Host) -> None:
    identity, _ = host.containers.create(ContainerCreate(image="app", cmd=["serve"]), "")
    assert re.fullmatch(r"[a-z]+_[a-z]+", host.world.daemon.containers.live[identity].record.name)


def test_a_renamed_container_frees_its_old_name_and_keeps_the_new_one(host: Host) -> None:
    host.run("web")
    host.containers.rename("web", "shop")
    host.create("web")
    with pytest.raises(Conflict):
        host.create("shop")


def test_a_running_container_is_not_removed_without_force(host: Host) -> None:
    host.run()
    with pytest.raises(Conflict, match=r'cannot remove container "web": container is running: stop the container'):
        host.containers.remove("web", force=False, volumes=False, link=False)
    host.containers.pause("web")
    with pytest.raises(Conflict, match="container is paused and must be unpaused first"):
        host.containers.remove("web", force=False, volumes=False, link=False)
    host.containers.remove("web", force=True, volumes=False, link=False)
    with pytest.raises(NotFound):
        host.record()


def listed(host: Host, **wanted: list[str]) -> list[str]:
    """The names of the containers that pass these filters."""
    filters = Filters({key: frozenset(values) for key, values in wanted.items()})
    return [row["Names"][0] for row in host.containers.list(all=True, limit=0, filters=filters)]


def test_the_list_is_filtered_by_who_came_before_and_since(host: Host) -> None:
    one, two, three = (host.create(name) for name in ("one", "two", "three"))
    assert listed(host, before=["three"]) == ["/two", "/one"]
    assert listed(host, before=["three", two]) == ["/one"]
    assert listed(host, since=["one"]) == ["/three", "/two"]
    assert listed(host, since=["one", two[:12]]) == ["/three"]
    assert listed(host, since=[one], before=[three]) == ["/two"]
    with pytest.raises(NotFound, match=r"^No such container: nosuch$"):
        listed(host, before=["nosuch"])
    with pytest.raises(NotFound, match=r"^No such container: nosuch$"):
        listed(host, since=["one", "nosuch"])
    with pytest.raises(InvalidParameter, match=r"^invalid filter 'since': more than 128 values$"):
        listed(host, since=[f"c{number}" for number in range(129)])


def test_whom_before_and_since_mean_is_found_out_once_a_list(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def by_reference(ref: str, *rest: Any) -> Any:
        asked.append(ref)
        return found(ref, *rest)

    found = view.by_reference
    monkeypatch.setattr(view, "by_reference", by_reference)
    newest = [host.create(f"web-{number}") for number in range(10)][-1]
    assert len(listed(host, before=[newest, newest[:60]], since=["web-0"])) == 8
    assert sorted(asked) == sorted([newest, newest[:60], "web-0"])


def test_the_list_is_filtered_by_image(host: Host) -> None:
    host.create("web")
    image = host.record().image_id
    for ref in ("app", image, image.removeprefix("sha256:")[:12]):
        assert listed(host, ancestor=[ref, "nosuch"]) == ["/web"], ref
    assert listed(host, ancestor=["nosuch", "ap"]) == []


def test_a_filter_that_would_take_long_is_refused(host: Host) -> None:
    host.create("web")
    with pytest.raises(InvalidParameter, match="invalid filter: the expressions are too large"):
        listed(host, name=[f"(a?){{600}}a{{{number}}}zz$" for number in range(16)])
    with pytest.raises(InvalidParameter, match="invalid filter: the expressions are too large"):
        listed(host, id=["([0-9a-f]?){600}z"])


def test_prune_removes_what_does_not_run(host: Host) -> None:
    idle, _ = host.create("idle"), host.run("web")
    assert host.containers.prune(Filters()) == [idle]
    assert host.runs("web")


def test_prune_goes_on_when_one_of_them_goes_meanwhile(host: Host) -> None:
    host.create("first")
    last = host.create("last")
    manager, loop = host.world.daemon.containers, host.world.loop
    prune = loop.create_task(manager.prune(Filters()))
    loop.step()
    removal = loop.create_task(manager.remove("first", force=False, volumes=False, link=False))
    host.after(1)
    assert last in prune.result()
    assert isinstance(removal.exception(), NotFound)
    assert not manager.live


def test_a_connected_network_is_among_the_settings_only_if_it_was_joined(host: Host) -> None:
    host.run("web", network_mode="bridge")

    async def refuses(_: object) -> None:
        raise Conflict("no room for the link")

    ensure = host.world.kernel.ensure_sandbox
    host.world.kernel.ensure_sandbox = refuses  # type: ignore[method-assign]
    with pytest.raises(Conflict):
        host.containers.connect("blue", NetworkConnect(container="web"))
    assert set(host.record().networks) == {"bridge"}
    host.world.kernel.ensure_sandbox = ensure  # type: ignore[method-assign]
    host.containers.connect("blue", NetworkConnect(container="web"))
    assert set(host.record().networks) == {"bridge", "blue"}
    host.containers.disconnect("blue", NetworkDisconnect(container="web"))
    assert set(host.record().networks) == {"bridge"}


def test_an_update_changes_the_policy_from_the_next_end_on(host: Host) -> None:
    host.run()
    host.containers.update("web", ContainerUpdate(restart_policy=RestartPolicy(name="always")))
    host.ends()
    host.after(1)
    assert host.runs()


def test_an_update_of_what_netd_does_not_limit_is_refused_and_changes_nothing(host: Host) -> None:
    host.create()
    with pytest.raises(NotImplementedHere, match="CpuShares"):
        host.containers.update("web", ContainerUpdate(memory=1 << 26, cpu_shares=512))
    assert host.record().host_config.memory == 0


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (RestartPolicy(name="sometimes"), "unknown policy 'sometimes'"),
        (RestartPolicy(name="always", maximum_retry_count=3), "maximum retry count can only be used with 'on-failure'"),
        (RestartPolicy(name="on-failure", maximum_retry_count=-1), "maximum retry count cannot be negative"),
    ],
)
def test_a_policy_that_docker_does_not_have_is_refused(host: Host, policy: RestartPolicy, words: str) -> None:
    host.create()
    with pytest.raises(InvalidParameter, match=words):
        host.containers.update("web", ContainerUpdate(restart_policy=policy))


def test_a_container_that_removes_itself_gets_no_restart_policy(host: Host) -> None:
    host.run(auto_remove=True)
    with pytest.raises(InvalidParameter, match="AutoRemove is enabled"):
        host.containers.update("web", ContainerUpdate(restart_policy=RestartPolicy(name="always")))


def test_an_image_knows_the_containers_made_of_it(host: Host) -> None:
    identity = host.create()
    assert host.world.daemon.containers.made_of(host.record().image_id) == [identity]
