"""Said to the same daemon, our client and the stock one print the same and exit alike.

A scenario is a list of command lines run from a clean slate by one client, then by the other. Lines beginning
with `|` are read by the client as its stdin.
"""

from __future__ import annotations

import re
import shlex

import pytest

from tests.cli.conftest import docker, netd

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("stock")]

SCENARIOS = {
    "networks": """
network create n1 --label x.y-z=c --subnet 10.201.0.0/16
network create n1
network create --subnet bad n2
network create --subnet 10.200.0.0/16 --gateway 10.200.0.1 -o com.docker.network.bridge.name=br-clicmp n2
network create --subnet 10.200.1.0/24 n3
network ls --filter type=custom
network ls -q --filter name=bridge
network ls --filter foo=x
network ls --format '{{.Name}} {{.Driver}} {{.Labels}} {{.Label "x.y-z"}} {{.Internal}}' --filter driver=bridge
network ls --format 'table {{.Name}}\\t{{.Label "x.y-z"}}\\t{{.IPv6}}'
network ls --format json --filter name=host
network ls --format '{{json .}}' --filter name=none
network ls --format '{{upper .Name}}|{{len .ID}}|{{.Foo}}'
network ls --format '{{.Name'
network ls --no-trunc --filter name=n1
network inspect n1 nosuch
network inspect nosuch
network inspect -f '{{.Name}} {{.Driver}} {{range .IPAM.Config}}{{.Subnet}}{{end}}' n2 n1
network inspect -f '{{json .Labels}} {{index .Labels "x.y-z"}} {{.Foo}}' n1
network inspect -f json n2
network inspect -f '{{.Created}}' nosuch
network inspect -f '{{.' n1
network connect n1 nosuch
network connect nosuch nosuch
network disconnect n1 nosuch
network connect --driver-opt a n1 x
network rm n1 nosuch
network rm -f nosuch
network rm bridge
network prune
network prune -f
network prune -f
network prune -f --filter driver=x
""",
    "attachments": """
network create shop
run -d --name db --net shop --network-alias www busybox sleep 1000
run -d --name web --net shop --link db:database busybox sleep 1000
network connect --alias extra bridge web
network connect shop web
network create back
network connect --ip 300.1.1.1 back web
network connect --alias extra back web
inspect -f '{{range $name, $ep := .NetworkSettings.Networks}}{{$name}} {{len $ep.Aliases}} {{end}}' web
inspect -f '{{json .HostConfig.NetworkMode}} {{.State.Status}} {{.State.Running}} {{.HostConfig.Memory}}' web
network inspect -f '{{len .Containers}}' shop
network rm shop
network disconnect back web
network disconnect back web
ps --format '{{.Names}} {{.Networks}}'
rm -f db web
network rm shop back
""",
    "runs": """
run --rm busybox echo hi
run --rm busybox sh -c 'echo out; echo err >&2; exit 7'
run --rm busybox nosuchcommand
run --rm busybox /etc
run --rm -i busybox cat
| one line
run --rm -e A=1 -w /tmp -u 0:0 -h box busybox sh -c 'echo $A; pwd; id; hostname'
run --rm --dns 127.0.0.1 busybox true
run --rm --entrypoint echo busybox a b
run --rm --entrypoint '' busybox
run --rm busybox sh -c 'kill -9 $$'
run --rm -a stderr busybox sh -c 'echo out; echo err >&2'
run --rm -t busybox sh -c 'tty; stty size'
run -it busybox true
run -d -a stdout busybox true
run --pull never nosuch
create --pull never nosuch
run --name a/b busybox true
run --net nosuch --name gone busybox true
rm gone
run --net container:nosuch busybox true
run --ip 10.0.0.1 --name gone busybox true
rm gone
run --restart always --rm busybox true
run --restart foo busybox true
run --network-alias x busybox true
run --network a --network a busybox true
run --network host --network a busybox true
run --mac-address foo busybox true
run --cidfile /etc/passwd busybox true
run --env-file /nosuch busybox true
run --label-file /nosuch busybox true
run -v /a:/b:zz busybox true
run -p 80-82:9000-9001 busybox
run -p 70000:80 busybox
run -p 80:80/xyz busybox
run -p abc busybox
run -p 1.2.3:80:80 busybox
run -p 80:80:80:80 busybox
run -p 9-8:80 busybox
run -p : busybox
run -p 80: busybox
run --expose foo busybox
run --expose 1:2 busybox
create --net container: busybox true
run
create
exec
""",
    "wrong flags": """
network create --foo x
network create -x
network create --subnet
network create -d
network create
network create a b
network create --ipv4=foo x
network create --gateway 10.2.0.1 x
network create --subnet 10.1.0.0/16 --gateway 10.2.0.1 x
network create --subnet 10.1.0.0/16 --ip-range 10.2.0.0/24 x
network create --subnet 10.1.0.0/16 --subnet 10.1.1.0/24 x
network create --subnet 10.1.0.0/16 --aux-address a=10.2.0.1 x
network create --subnet 10.1.0.0/16 --gateway 10.1.0.1 --subnet 10.3.0.0/16 --gateway 10.1.0.2 x
network ls -qz
network ls -q=foo
network ls --filter foo
network ls foo
network ls ---x
network connect --gw-priority foo a b
network connect a
network foo
network --foo
network rm
foo
--foo
run --foo busybox
run --dns x busybox
run --dns-search a..b busybox
run --add-host bad busybox
run --add-host a:x busybox
run -e '' busybox
run -e =x busybox
run --network name=n1,foo=x busybox
run --network ip=1.2.3.4 busybox
run --network name=a,b busybox
run --network name=a,gw-priority=x busybox
run --network name=a,driver-opt=x busybox
run --mount foo busybox
run --mount type=bind,src=/a busybox
run --mount type=bind,foo=a,dst=/b busybox
run --mount type=tmpfs,dst=/b,volume-nocopy=true busybox
run --mount type=bind,dst=/b,readonly=x busybox
run -m foo busybox
run --cpus foo busybox
run -a foo busybox
run --stop-timeout x busybox
run --sysctl a busybox
run --label =x busybox
run --link '' busybox
run --link a:b:c busybox
stop -t foo x
inspect --type foo x
logs --since foo x
events --since foo
events x
port c x y
tag busybox Foo
tag busybox foo/
tag a
import
import /nosuch
image foo
rename a
attach
""",
    "life of a container": """
create --name box busybox sh -c 'echo a; sleep 1000'
ps -a --format '{{.Names}} {{.Status}} {{.Command}} {{.State}} {{.Ports}}' --filter name=box
start box nosuch
start box
ps --format 'table {{.Names}}\\t{{.Image}}\\t{{.Command}}'
logs box
logs -n 1 box
logs --details box
logs nosuch
exec box sh -c 'echo $0; exit 3' x
exec -i box cat
| through
exec -e A=b -w /tmp box sh -c 'echo $A $PWD'
exec box nosuch
exec -w /nosuch box true
exec nosuch true
exec -d box true
exec -it box true
pause box
pause box
exec box true
ps --format '{{.Names}} {{.State}}'
unpause box
unpause box
update --restart always box
update --restart never box
update box nosuch
rename box crate
rename crate crate
rename nosuch x
top crate -o comm,pid
top nosuch
kill -s FOO crate
kill -s CONT crate nosuch
restart -t 0 crate nosuch
rm crate
stop -t 0 crate nosuch
stop crate
kill crate
wait crate nosuch
attach crate
attach nosuch
start -a crate crate
inspect crate nosuch --format '{{.State.ExitCode}} {{.Name}} {{.State.Health}}'
inspect -f '{{.Foo}}' crate
inspect --type network crate
inspect --type container nosuch
inspect -f '{{json .Config.Cmd}} {{.Config.Env}} {{join .Config.Cmd "_"}}' crate
ps
ps -a --filter status=foo
rm -f crate nosuch
rm nosuch
container prune -f
""",
    "templates": """
run -d --name tpl --label role=db --label x.y=z -e A=1 busybox sleep 1000
inspect -f '{{range $k, $v := .NetworkSettings.Networks}}{{$k}}:{{len $v.IPAddress | lt 0}} {{end}}' tpl
inspect -f '{{index .Config.Labels "x.y"}}|{{index .Config.Labels "none"}}|{{index .Config.Env 0}}' tpl
inspect -f '{{if and .State.Running (eq .State.Status "running")}}up{{else}}down{{end}}' tpl
inspect -f '{{with .HostConfig}}{{.NetworkMode}}{{end}} {{with .State.Health}}x{{else}}none{{end}}' tpl
inspect -f '{{range $i, $c := .Config.Cmd}}{{if $i}}, {{end}}{{$c}}{{end}} {{- " end" -}}  ' tpl
inspect -f '{{join (split "a,b" ",") "+"}} {{upper "x"}} {{title "ab cd"}} {{lower "X"}} {{pad "a" 1 1}}|' tpl
inspect -f '{{printf "%s %q %d %5s|%-5s|%v" .Name .Config.Image .RestartCount "a" "b" .Config.Cmd}}' tpl
inspect -f '{{println .RestartCount 1}}{{print "a" 1 2}} {{len .Config.Cmd}} {{slice "abcdef" 1 3}}' tpl
inspect -f '{{.State.Running | not}} {{ne 1 2}} {{gt 2 1}} {{or "" "b"}} {{truncate "abcdef" 2}}' tpl
inspect -f '{{$x := .Name}}{{$x}} {{(index .Config.Cmd 0)}} {{`raw`}} {{json .Config.Cmd}} {{json .Config.Labels}}' tpl
inspect -f '{{.Config.ExposedPorts}} {{len .HostConfig.Binds}} {{.HostConfig.Memory}}' tpl
inspect -f '{{.Config.Labels}} {{.Config.Env}} {{.Config.Cmd}} {{.Args}} {{.Mounts}}' tpl
inspect -f '{{range .Config.Cmd}}{{.}}{{else}}none{{end}}{{range .HostConfig.Binds}}x{{else}}none{{end}}' tpl
inspect -f '{{/* comment */}}{{.Id | len}}{{break}}' tpl
inspect -f '{{nosuch .Id}}' tpl
inspect -f '{{.Id' tpl
inspect -f '{{if .Id}}' tpl
inspect -f '{{end}}' tpl
inspect -f '{{range}}{{end}}' tpl
inspect -f '{{$y}}' tpl
inspect -f '{{"abc}}' tpl
inspect -f '{{(.Id}}' tpl
inspect -f '{{.Id}' tpl
inspect -f '{{else}}' tpl
inspect -f '{{if .Id}}a{{else}}b{{else}}c{{end}}' tpl
inspect -f '{{| len}}' tpl
inspect -f '{{.Id |}}' tpl
inspect -f '{{1 2}}' tpl
inspect -f '{{.State.Nope.More}}' tpl
inspect -f '{{.Name.First}}' tpl
inspect -f '{{.Name "x"}}' tpl
inspect -f '{{range .Name}}x{{end}}' tpl
inspect -f '{{index .Config.Cmd 10}}' tpl
inspect -f '{{eq .Name 1}}' tpl
inspect -f '{{join .Name}}' tpl
rm -f tpl
""",
    "ports": """
run -d --name p -p 18080:80 -p 127.0.0.1:19090:90/udp -p 18000-18002:70-72 --expose 1000-1002 busybox sleep 1000
ps --format '{{.Ports}}'
port p
port p 80
port p 80/tcp
port p 90/udp
port p 81
port p x
port nosuch
run --name q -p 18080:80 busybox true
rm -f p q
""",
    "images": """
tag busybox cmp:1
images cmp
images --format '{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}} {{.VirtualSize}} {{.Digest}}' cmp:1
images -q cmp
images --digests cmp
images --format json cmp
images nosuch
image inspect -f '{{.RepoTags}} {{.Os}}' cmp:1 nosuch
inspect -f '{{.Os}}' cmp:1
tag nosuch x
rmi cmp:1 nosuch
rmi -f nosuch
image prune
image prune -f
import /etc/passwd x
import -c foo /etc/passwd x
""",
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_prints_what_docker_prints(engine: str, name: str) -> None:
    printed = []
    for client in (netd, docker):
        netd(engine, "container", "prune", "-f")
        printed.append(play(client, engine, SCENARIOS[name]))
    assert printed[0] == printed[1]


def play(client: object, engine: str, scenario: str) -> list[str]:
    """Everything one client printed, with ids, times and the program's name made alike."""
    seen = []
    lines = scenario.strip().splitlines()
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("|"):
            continue
        stdin = f"{after[2:]}\n" if after.startswith("|") else ""
        done = client(engine, *shlex.split(line), stdin=stdin)  # type: ignore[operator]
        seen += [f"$ {line}", *normal(done.stdout), *(f"! {text}" for text in normal(done.stderr))]
        seen.append(f"[{done.returncode}]")
    return seen


def normal(text: str) -> list[str]:
    text = re.sub(r"\b[0-9a-f]{64}\b", "ID", text)
    text = re.sub(r"\b(?=[0-9]*[a-f])[0-9a-f]{12}\b|\b\d{12}\b", "SHORT", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?", "TIME", text)
    text = re.sub(r"\bsleep +\d+$", "sleep PID", text, flags=re.MULTILINE)
    text = re.sub(r"(About )?(Less than )?an? (second|minute|hour)|\d+ (second|minute|hour)s?", "SPAN", text)
    text = re.sub(r"\b172\.\d+\.\d+\.", "172.x.x.", text)
    text = text.replace("Docker daemon", "daemon").replace("docker daemon", "daemon").replace("netd daemon", "daemon")
    return [re.sub(r" +", " ", re.sub(r"\bdocker\b", "netd", line)) for line in text.splitlines()]
