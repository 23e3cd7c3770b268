"""What a process in a container finds there."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from netd.core.errors import InvalidParameter
from netd.launcher import LaunchError
from netd.model.containers import HostConfig, Mount
from tests.launcher.conftest import Lab, collect

pytestmark = pytest.mark.root


def test_identity_environment_and_place(lab: Lab) -> None:
    script = "hostname; id -u; id -G; pwd; echo $HOME $HOSTNAME $A"
    text = lab.run(lab.output("sh", "-c", script, user="bob", working_dir="/made/here", env=["A=b", "TERM"]))
    assert text.splitlines() == ["box", "1000", "1000 10", "/made/here", "/home/bob box b"]


@pytest.mark.parametrize(
    ("user", "ids"), [("", "0 0"), ("1000", "1000 1000"), ("7:8", "7 8"), ("bob:wheel", "1000 10"), ("4242", "4242 0")]
)
def test_users_are_names_or_numbers(lab: Lab, user: str, ids: str) -> None:
    assert lab.run(lab.output("sh", "-c", "echo $(id -u) $(id -g)", user=user)).strip() == ids


def test_an_unknown_user_is_refused(lab: Lab) -> None:
    with pytest.raises(LaunchError, match="unable to find user nobody: no matching entries in passwd file"):
        lab.run(lab.launcher.create(lab.spec("true", user="nobody")))


def test_a_link_in_the_image_does_not_lead_to_the_hosts_users(lab: Lab, tmp_path: Path) -> None:
    from netd.launcher.users import resolve

    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").symlink_to("../../../../../../../../etc/shadow")
    assert resolve(tmp_path, "7").uid == 7
    with pytest.raises(LaunchError):
        resolve(tmp_path, "root")


def test_entrypoint_goes_before_the_command(lab: Lab) -> None:
    assert lab.run(lab.output("a", "b", entrypoint=["echo", "e"])) == "e a b\n"


def test_files_of_the_daemon_binds_tmpfs_and_mounts(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n")
    (tmp_path / "source").mkdir()
    host = HostConfig(
        auto_remove=True,
        binds=[f"{tmp_path}/source:/rw", f"{tmp_path}/source:/ro:ro", f"{tmp_path}/missing:/new"],
        mounts=[Mount(type="tmpfs", target="/t1"), Mount(source=str(tmp_path / "source"), target="/m", read_only=True)],
        tmpfs={"/t2": "size=1m"},
    )
    script = (
        "cat /etc/hosts; echo x > /rw/file; cat /ro/file; touch /ro/no /m/no 2>/dev/null || echo read-only; "
        "mount | grep -c 'tmpfs on /t[12]'; df /t2 | tail -1 | awk '{print $2}'"
    )
    spec = replace(lab.spec("sh", "-c", script, host=host), files={"/etc/hosts": tmp_path / "hosts"})

    async def scenario() -> str:
        await lab.launcher.create(spec)
        await lab.launcher.start(spec.id)
        await lab.launcher.wait(spec.id)
        return await collect(lab.launcher.logs(spec.id))

    assert lab.run(scenario()).splitlines() == ["127.0.0.1 localhost", "x", "read-only", "2", "1024"]
    assert (tmp_path / "missing").is_dir()
    assert (tmp_path / "source/file").read_text() == "x\n"


@pytest.mark.parametrize("bind", ["relative:/x", "/only", "/a:b", "/a:/b:bogus", "/a:/"])
def test_a_malformed_bind_is_refused_and_leaves_nothing(lab: Lab, bind: str) -> None:
    with pytest.raises(InvalidParameter):
        lab.run(lab.launcher.create(lab.spec("true", host=HostConfig(binds=[bind]))))
    assert not [line for line in lab.leftovers() if "exec" in line]


def test_a_volume_of_the_image_starts_with_the_images_content_and_stays(lab: Lab) -> None:
    async def scenario() -> str:
        command = "cat /data/*; grep -c ' /data ' /proc/mounts; echo kept > /data/mine"
        spec = lab.spec("sh", "-c", command, volumes={"/data": {}}, host=HostConfig())
        for _ in range(2):
            await lab.launcher.create(spec)
            await lab.launcher.start(spec.id)
            await lab.launcher.wait(spec.id)
            await lab.launcher.delete(spec.id)
        return await collect(lab.launcher.logs(spec.id))

    assert lab.run(scenario()).splitlines() == ["from the image", "1", "kept", "from the image", "1"]


def test_default_capabilities_are_dockers(lab: Lab) -> None:
    script = "grep Cap /proc/self/status"
    effective = {line.split()[0]: line.split()[1] for line in lab.run(lab.output("sh", "-c", script)).splitlines()}
    assert effective["CapEff:"] == effective["CapBnd:"] == "00000000a80425fb"
    assert effective["CapInh:"] == effective["CapAmb:"] == "0000000000000000"
    host = HostConfig(auto_remove=True, cap_drop=["ALL"], cap_add=["NET_ADMIN"])
    assert "CapEff:\t0000000000001000" in lab.run(lab.output("sh", "-c", script, host=host))
    as_bob = lab.run(lab.output("sh", "-c", script, user="bob"))
    assert "CapEff:\t0000000000000000" in as_bob
    assert "CapBnd:\t00000000a80425fb" in as_bob


def test_a_privileged_container_has_all_capabilities_and_devices(lab: Lab) -> None:
    host = HostConfig(auto_remove=True, privileged=True)
    text = lab.run(lab.output("sh", "-c", "grep CapEff /proc/self/status; test -e /dev/kmsg && echo dev", host=host))
    own = Path("/proc/self/status").read_text()
    assert text.split()[1] == own.partition("CapEff:")[2].split()[0]
    assert "dev" in text


def test_kernel_files_are_protected(lab: Lab) -> None:
    script = (
        "echo 1 > /proc/sys/vm/swappiness; touch /sys/x; cat /proc/kcore | wc -c; "
        "echo $$; mount -t tmpfs x /tmp; head -c1 /dev/urandom | wc -c; ls /dev/pts/ptmx"
    )
    text = lab.run(lab.output("sh", "-c", script))
    assert text.count("Read-only file system") == 2
    assert "permission denied" in text.lower() or "operation not permitted" in text.lower()
    assert {"0", "1", "/dev/pts/ptmx"} <= set(text.split())


def test_a_read_only_root_and_limits_and_sysctls(lab: Lab) -> None:
    host = HostConfig(
        auto_remove=True,
        readonly_rootfs=True,
        pids_limit=50,
        memory=64 * 2**20,
        nano_cpus=500_000_000,
        sysctls={"kernel.msgmax": "4242"},
    )
    script = (
        "exec 2>&1; touch /x; cat /proc/sys/kernel/msgmax; cd /sys/fs/cgroup; "
        "cat pids/pids.max pids.max memory/memory.limit_in_bytes memory.max 2>/dev/null; "
        "cat cpu/cpu.cfs_quota_us cpu.max 2>/dev/null"
    )
    lines = lab.run(lab.output("sh", "-c", script, host=host)).splitlines()
    assert "Read-only" in lines[0]
    assert lines[1:4] == ["4242", "50", str(64 * 2**20)]
    assert lines[4].startswith("50000")


def test_a_network_namespace_is_joined(lab: Lab, netns: object) -> None:
    name = netns()  # type: ignore[operator]
    spec = replace(
        lab.spec("sh", "-c", "readlink /proc/self/ns/net; cat /proc/sys/kernel/domainname"), domainname="ex.org"
    )

    async def scenario(path: str) -> str:
        await lab.launcher.create(replace(spec, netns=path))
        await lab.launcher.start(spec.id)
        await lab.launcher.wait(spec.id)
        return await collect(lab.launcher.logs(spec.id))

    path = f"/run/netns/{name}"
    inode = Path(path).stat().st_ino
    assert lab.run(scenario(path)).splitlines() == [f"net:[{inode}]", "ex.org"]


@pytest.mark.skipif(shutil.which("docker-init") is None, reason="docker-init is not installed")
def test_an_init_is_the_first_process_if_wanted(lab: Lab) -> None:
    host = HostConfig(auto_remove=True, init=True)
    assert "docker-init" in lab.run(lab.output("cat", "/proc/1/cmdline", host=host))


def test_the_hosts_name_is_shared_if_wanted(lab: Lab) -> None:
    host = HostConfig(auto_remove=True, uts_mode="host")
    assert lab.run(lab.output("hostname", host=host)).strip() == os.uname().nodename
