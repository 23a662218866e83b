"""The groups beside docker's commands for single objects: each flag of docker's reference is taken, or is listed here with a reason.

What is listed is refused by name: ``unknown flag``.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from support import flaguse

LIMITS = """--blkio-weight --cpu-period --cpu-quota --cpu-rt-period --cpu-rt-runtime -c --cpu-shares --cpus --cpuset-cpus -m --memory --memory-reservation
    --memory-swap --pids-limit --restart"""
CREATE = f"""{LIMITS} --add-host --annotation -a --attach --blkio-weight-device --cap-add --cap-drop --cgroup-parent --cgroupns --cidfile --cpuset-mems
    --device --device-cgroup-rule --device-read-bps --device-read-iops --device-write-bps --device-write-iops --dns --dns-option --dns-search --domainname
    --entrypoint -e --env --env-file --expose --gpus --group-add --health-cmd --health-interval --health-retries --health-start-interval
    --health-start-period --health-timeout -h --hostname --init -i --interactive --ip --ip6 --ipc --isolation -l --label --label-file --link --link-local-ip
    --log-driver --log-opt --mac-address --memory-swappiness --mount --name --network --network-alias --no-healthcheck --oom-kill-disable --oom-score-adj
    --pid --platform --privileged -p --publish -P --publish-all --pull -q --quiet --read-only --rm --runtime --security-opt --shm-size --stop-signal
    --stop-timeout --storage-opt --sysctl --tmpfs -t --tty --ulimit --use-api-socket -u --user --userns --uts -v --volume --volume-driver --volumes-from
    -w --workdir --cpu-count --cpu-percent --io-maxbandwidth --io-maxiops"""
DOCKER = {
    "container run": f"{CREATE} -d --detach --detach-keys --sig-proxy",
    "container create": CREATE,
    "container update": f"{LIMITS} --cpuset-mems --blkio-weight-device --device-read-bps --device-read-iops --device-write-bps --device-write-iops",
    "container ls": "-a --all -f --filter --format -n --last -l --latest --no-trunc -q --quiet -s --size",
    "container inspect": "-f --format -s --size",
    "container logs": "--details -f --follow --since -n --tail -t --timestamps --until",
    "container start": "-a --attach --checkpoint --checkpoint-dir --detach-keys -i --interactive",
    "container stop": "-s --signal -t --timeout",
    "container restart": "-s --signal -t --timeout",
    "container kill": "-s --signal",
    "container rm": "-f --force -l --link -v --volumes",
    "container exec": "-d --detach --detach-keys -e --env --env-file -i --interactive --privileged -t --tty -u --user -w --workdir",
    "container attach": "--detach-keys --no-stdin --sig-proxy",
    "container cp": "-a --archive -L --follow-link -q --quiet",
    "container commit": "-a --author -c --change -m --message -p --pause",
    "container export": "-o --output",
    "container prune": "--filter -f --force",
    "container stats": "-a --all --format --no-stream --no-trunc",
    "image ls": "-a --all --digests -f --filter --format --no-trunc -q --quiet --tree",
    "image pull": "-a --all-tags --platform -q --quiet",
    "image push": "-a --all-tags --platform -q --quiet",
    "image rm": "-f --force --no-prune --platform",
    "image inspect": "-f --format --platform",
    "image history": "--format -H --human --no-trunc -q --quiet --platform",
    "image save": "-o --output --platform",
    "image load": "-i --input --platform -q --quiet",
    "image import": "-c --change -m --message --platform",
    "image prune": "-a --all --filter -f --force",
    "image build": """--add-host --allow --annotation --attest --build-arg --build-context --builder --cache-from --cache-to --call --cgroup-parent --check -f
        --file --iidfile --label --load --metadata-file --network --no-cache --no-cache-filter -o --output --platform --progress --provenance --pull --push
        -q --quiet --sbom --secret --shm-size --ssh -t --tag --target --ulimit""",
    "network ls": "-f --filter --format --no-trunc -q --quiet",
    "network create": """--attachable --aux-address --config-from --config-only -d --driver --gateway --ingress --internal --ip-range --ipam-driver
        --ipam-opt --ipv4 --ipv6 --label -o --opt --scope --subnet""",
    "network inspect": "-f --format -v --verbose",
    "network rm": "-f --force",
    "network prune": "--filter -f --force",
    "network connect": "--alias --driver-opt --gw-priority --ip --ip6 --link --link-local-ip",
    "network disconnect": "-f --force",
    "volume ls": "-f --filter --format -q --quiet",
    "volume create": "-d --driver --label -o --opt",
    "volume inspect": "-f --format",
    "volume rm": "-f --force",
    "volume prune": "-a --all --filter -f --force",
    "system df": "--format -v --verbose",
    "system prune": "-a --all --filter -f --force --volumes",
    "system info": "-f --format",
    "system events": "-f --filter --format --since --until",
}  # fmt: skip

WINDOWS, SWARM, ONE, LATER = "for Windows", "for swarm", "one platform an image", "not there"
NOT_THERE = {
    **{(verb, flag): WINDOWS for verb in ("container run", "container create")
       for flag in ("--cpu-count", "--cpu-percent", "--io-maxbandwidth", "--io-maxiops")},
    **{("container update", flag): LATER for flag in ("--cpuset-mems", "--blkio-weight-device", "--device-read-bps", "--device-read-iops",
                                                      "--device-write-bps", "--device-write-iops")},
    ("container start", "--checkpoint"): "there are no checkpoints", ("container start", "--checkpoint-dir"): "there are no checkpoints",
    **{(f"image {verb}", "--platform"): ONE for verb in ("push", "rm", "inspect", "history", "save")},
    ("image ls", "--tree"): ONE, ("image pull", "-a"): LATER, ("image pull", "--all-tags"): LATER,
    **{("image build", flag): LATER for flag in ("--annotation", "--call", "--cgroup-parent", "--check", "-o", "--output")},
    **{("network create", flag): SWARM for flag in ("--config-from", "--config-only", "--ingress", "--scope")},
    ("network create", "--ipam-opt"): "the default driver has no options",
    ("network inspect", "-v"): SWARM, ("network inspect", "--verbose"): SWARM,
    **{("system df", flag): LATER for flag in ("-v", "--verbose")}, ("system prune", "--filter"): LATER,
}  # fmt: skip


@pytest.mark.parametrize("verb", sorted(DOCKER))
def test_every_flag_is_taken_or_listed(verb: str) -> None:
    known = flaguse.parser_of(verb)._option_string_actions
    missing = {flag for flag in DOCKER[verb].split() if flag not in known}
    assert missing == {flag for name, flag in NOT_THERE if name == verb}


@pytest.mark.parametrize("verb", sorted(DOCKER))
def test_short_and_long_forms_belong_together(verb: str) -> None:
    words = [flag for flag in DOCKER[verb].split() if (verb, flag) not in NOT_THERE]
    known = flaguse.parser_of(verb)._option_string_actions
    for short, long in pairwise(words):
        if not short.startswith("--"):
            assert known[short] is known[long], (short, long)
