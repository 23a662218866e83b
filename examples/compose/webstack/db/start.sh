#!/bin/sh
# Makes the database at the first start, then runs the server in the foreground as its own user.
set -eu
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
data=/var/lib/webstack/db
if [ ! -s "$data/PG_VERSION" ]; then
    mkdir -p "$data" && chown postgres: "$data" && chmod 700 "$data"
    su postgres -s /bin/sh -c "$bin/initdb -D $data -A scram-sha-256 --pwfile=/run/secrets/db_password -U app >/dev/null"
    echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
    su postgres -s /bin/sh -c "$bin/pg_ctl -D $data -o '-c listen_addresses= -k /tmp' -w start >/dev/null"
    PGPASSWORD=$(cat /run/secrets/db_password) "$bin/createdb" -h /tmp -U app app
    su postgres -s /bin/sh -c "$bin/pg_ctl -D $data -w stop >/dev/null"
fi
exec su postgres -s /bin/sh -c "exec $bin/postgres -D $data -c listen_addresses='*' -k /tmp"
