#!/usr/bin/env bash
# Write requirements.lock (to run) and requirements-dev.lock (to test, beside it) from pyproject.toml, in throw-away environments.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip="$work/venv/bin/python -m pip --disable-pip-version-check"
export HNSWLIB_NO_NATIVE=1
freeze() { $pip freeze --exclude visual-discovery | sed -E 's/\+cpu$//' | LC_ALL=C sort; }
$pip install --quiet hatchling editables
$pip install --quiet .
freeze >"$work/run"
{ echo "# Made by requirements.sh from pyproject.toml: all that running needs, pinned."; cat "$work/run"; } >requirements.lock
$pip install --quiet '.[dev]'
freeze >"$work/dev"
{
  echo "# Made by requirements.sh from pyproject.toml: what the tests need beside requirements.lock."
  LC_ALL=C comm -13 "$work/run" "$work/dev"
} >requirements-dev.lock
$pip check
