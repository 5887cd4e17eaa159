#!/usr/bin/env bash
# Install Debian's Chromium when there is none and this machine lets us; the tests say so themselves when it stays absent.
set -euo pipefail
command -v chromium >/dev/null && exit 0
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium >/dev/null && exit 0
fi
[ "${CI:-}" = "" ] || { echo "Chromium could not be installed, and CI needs it." >&2; exit 1; }
echo "No Chromium and no right to install it: the page tests will be skipped (apt-get install chromium)." >&2
