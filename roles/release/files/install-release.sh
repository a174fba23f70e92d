#!/bin/sh
# Build one release from a wheelhouse, without the network:
#   install-release.sh PYTHON WHEELHOUSE REQUIREMENTS DESTINATION
# The marker .complete comes last, so a release that was interrupted is built anew.
set -eu

python=$1 wheelhouse=$2 requirements=$3 destination=$4

export UV_OFFLINE=1 UV_NO_CONFIG=1 UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1

# The wheelhouse brings uv itself: hosts need nothing but Debian's python3.
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"$python" -m zipfile -e "$(find "$wheelhouse" -name 'uv-*.whl' | head -n 1)" "$tools"
uv=$(find "$tools" -path '*.data/scripts/uv')
chmod 0755 "$uv"

umask 022
"$uv" venv --quiet --clear --python "$python" "$destination"
"$uv" pip sync --quiet --require-hashes --no-index --find-links "$wheelhouse" \
    --compile-bytecode --python "$destination/bin/python" "$wheelhouse/$requirements"

# A release that cannot be imported must not become the current one.
"$destination/bin/python" -c 'import swarm.celery_app, swarm.cli'
"$destination/bin/swarm" --help >/dev/null

touch "$destination/.complete"
