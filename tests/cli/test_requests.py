"""The requests our client makes are those the stock client makes for the same words."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from tests.cli.conftest import docker, netd
from tests.cli.recorder import Recorder, Request

pytestmark = pytest.mark.usefixtures("stock")

CREATE = """
busybox
busybox sh -c 'echo $A' --rm
--name web -h web.example --domainname example -w /srv -u 1:2 busybox top
-it busybox
-i busybox cat
-t -a stderr busybox
-a stdin -a stdout -i busybox
-e A=1 --env B= -e HOME -e UNSET_VARIABLE --label a=b -l c busybox
--entrypoint /bin/sh busybox -c true
--entrypoint= busybox true
-p 80 busybox
-p 8080:80 -p 127.0.0.1:53:53/udp -p [::1]:9000:9000 -P busybox
-p 8000-8002:80-82/tcp -p 7000-7010:70 -p :99 busybox
-p published=8080,target=80 -p target=81,protocol=udp busybox
--expose 80 --expose 90-92/udp -p 80:80 busybox
-v /a:/b:ro -v data:/d -v /anonymous busybox
-v ./here:/x busybox
--mount type=bind,source=/a,target=/b,readonly --mount type=tmpfs,dst=/t,tmpfs-size=64m,tmpfs-mode=1770 busybox
--mount src=v,dst=/v --mount type=bind,src=/a,dst=/c,bind-propagation=rshared busybox
--tmpfs /run:size=64k --tmpfs /tmp busybox
--net none busybox
--net host busybox
--network container:web busybox
--network shop --network-alias www --network-alias w2 --ip 10.1.2.3 --ip6 fd00::3 busybox
--network shop --link db:database --link cache --link-local-ip 169.254.1.2 busybox
--link db:database busybox
--network name=shop,alias=a,alias=b,ip=10.0.0.2,ip6=fd00::2,mac-address=02:42:ac:11:00:02 busybox
--network name=shop,driver-opt=k=v,driver-opt=k2=v2,gw-priority=-5,link-local-ip=169.254.3.3 --network back busybox
--network shop --network name=back,alias=x busybox
--mac-address 02:42:AC:11:00:02 busybox
--network shop --mac-address 02:42:ac:11:00:02 busybox
--dns 192.0.2.1 --dns 2001:db8::1 --dns-search example.com --dns-opt ndots:2 --dns-option use-vc busybox
--dns-search . busybox
--add-host db:10.0.0.1 --add-host v6=fd00::1 --add-host gw:host-gateway --add-host 'b:[::1]' busybox
--cap-add NET_ADMIN --cap-drop ALL --privileged --read-only busybox
--restart always busybox
--restart on-failure:3 busybox
--rm --init busybox
--init=false busybox
--stop-signal SIGUSR1 --stop-timeout 5 busybox
--stop-timeout 0 busybox
--sysctl net.ipv4.ip_forward=1 --sysctl kernel.msgmax=1 busybox
-m 64m --cpus 1.5 --pids-limit 100 busybox
-m 1.5g --cpus .5 --pids-limit -1 busybox
--memory 1048576 --platform linux/amd64 --pull never busybox
--group-add audio --uts host --pid host --security-opt seccomp=unconfined --annotation a=b busybox
""".strip().splitlines()

NETWORK = """
network create shop
network create -d macvlan --internal --attachable --label a=b --label c -o k=v -o flag --scope local shop
network create --subnet 10.1.0.0/16 --ip-range 10.1.5.0/24 --gateway 10.1.0.1 --aux-address r=10.1.0.2 shop
network create --subnet 10.1.0.0/16,fd00::/64 --gateway fd00::1 --gateway 10.1.0.1 --ipv6 shop
network create --ipv4=false --ipv6=true --ipam-driver x --ipam-opt a=b shop
network create --config-only --ingress shop
network create --config-from base shop
network connect --alias a,b --ip 10.0.0.1 --ip6 fd00::1 --link x:y --link-local-ip 169.254.0.9 shop web
network connect --driver-opt a=b,c=d --gw-priority 7 shop web
network connect shop web
network disconnect -f shop web
network disconnect shop web
network rm shop
network inspect -v shop
network ls --filter driver=bridge --filter driver=null -f label=a=b
network prune -f --filter until=24h
ps -a --filter name=x -n 3
ps -l
ps -s
rm -fvl web
rm -f /web
stop -t 3 -s INT web
stop web
restart --time=0 web
kill web
kill -s USR1 web
pause web
unpause web
rename a b
update --restart on-failure:3 web
update -m 64m --cpus 1.5 --pids-limit 9 web
top web -ef
wait web
tag busybox other:1
tag busybox example.com:5000/a/b
rmi -f --no-prune busybox
images -a --filter dangling=true busy
image prune -f -a --filter until=1h
container prune -f --filter label=x
inspect --type container -s web
""".strip().splitlines()


@pytest.mark.parametrize("words", CREATE)
def test_create_sends_the_body_that_docker_sends(recorder: Recorder, words: str) -> None:
    assert requests(recorder, "netd", f"create {words}") == requests(recorder, "docker", f"create {words}")


def test_a_detached_run_attaches_nothing(recorder: Recorder) -> None:
    words = "run -dit --name x busybox sh"
    assert requests(recorder, "netd", words) == requests(recorder, "docker", words)


@pytest.mark.parametrize("words", NETWORK)
def test_verbs_ask_what_docker_asks(recorder: Recorder, words: str) -> None:
    recorder.answers = {
        "/networks": [],
        "/containers/json": [],
        "/images/json": [],
        "/images/busybox": [],
        "/containers/web/wait": {"StatusCode": 0},
        "/containers/web/top": {"Titles": ["PID"], "Processes": []},
    }
    assert requests(recorder, "netd", words) == requests(recorder, "docker", words)


def requests(recorder: Recorder, program: str, words: str) -> list[Request]:
    """What one client asked, without members that mean nothing."""
    recorder.requests.clear()
    (netd if program == "netd" else docker)(recorder.host, *shlex.split(words))
    meant = [request._replace(query=_query(request.query), body=_meant(request.body)) for request in recorder.requests]
    return [request for request in meant if not _passive(request, words)]


def _passive(request: Request, words: str) -> bool:
    """What only looks: docker inspects before `network rm` and waits for what it runs detached."""
    return (request.path.endswith("/wait") and "-d" in words) or (request.method == "GET" and " rm " in words)


def _query(query: dict[str, list[str]]) -> dict[str, Any]:
    told = {key: values for key, values in query.items() if values not in (["0"], ["false"], ["{}"])}
    return {key: json.loads(values[0]) if key == "filters" else _short(values) for key, values in told.items()}


def _short(values: list[str]) -> list[str]:
    return [value.removeprefix("docker.io/library/") for value in values]


def _meant(value: Any) -> Any:
    """Drops zero values, which the API does not tell from absent ones, and what only Windows or swarm has."""
    if not isinstance(value, dict):
        return value
    for key in {"Env", "Binds", "Config"} & value.keys():
        value |= {key: sorted(value[key] or (), key=str)}  # docker's order is that of a Go map: any
    kept = {key: _meant(member) for key, member in value.items() if key not in _NOT_OURS}
    return {key: member for key, member in kept.items() if member or key in _TELLING or (member == {} and "/" in key)}


_TELLING = ("EnableIPv4", "EnableIPv6", "Init", "StopTimeout", "bridge", "default", "shop", "back", "/anonymous")
_NOT_OURS = ("MemorySwappiness", "LogConfig", "OomKillDisable", "ConsoleSize")
