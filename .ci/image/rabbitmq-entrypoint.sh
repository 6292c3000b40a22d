#!/bin/sh
# As the official image's: root becomes the broker's user, all else stays.
set -eu
if [ "$(id -u)" = 0 ]; then
    chown -R rabbitmq:rabbitmq /var/lib/rabbitmq /var/log/rabbitmq
    exec setpriv --reuid=999 --regid=999 --clear-groups "$0" "$@"
fi
exec "$@"
