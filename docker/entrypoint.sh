#!/bin/sh
# Reads the secrets that docker/secrets.mjs made, where there are some, and becomes the command.
set -e
if [ -f /secrets/env ]; then
  set -a
  . /secrets/env
  set +a
fi
exec "$@"
