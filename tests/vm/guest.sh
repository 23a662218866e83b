# Runs in the guest as process 1: unified cgroups, the tests, the results into /out, power off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb
exec </dev/null >/dev/hvc0 2>&1
. /out/settings
chmod 1777 /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
done
modprobe -a veth bridge nf_tables tun loop quota_v2 xfs 2>/dev/null
for folder in /out/tools/usr /out/tools/lib /out/tools/sbin; do # into the overlay, where this machine has none
    [ ! -d "$folder" ] || cp -an "$folder/." "${folder#/out/tools}/"
done
cd "$repo" || exit
export PYTHONPATH="$repo/tests/vm" PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
export ORCHESTRA_TEST_PATIENCE=5 ORCHESTRA_TEST_IDLE=60
{
    uname -r
    cat /proc/version
} >/out/kernel
set --
while read -r word; do set -- "$@" "$word"; done </out/tests
"$python" -m pytest -p record -p pytest_timeout -o timeout=600 -p no:cacheprovider -v -ra --durations=8 "$@"
echo $? >/out/code.new
ORCHESTRA_ROOT=/tmp/info ORCHESTRA_IDLE=1 "$(dirname "$python")/orchestra" info >/out/info 2>&1
sync
mv /out/code.new /out/code
echo o >/proc/sysrq-trigger
while :; do sleep 1; done
