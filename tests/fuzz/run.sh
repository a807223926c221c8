#!/bin/sh
# SPDX-License-Identifier: MIT
# run.sh BUILD-FOLDER SECONDS: all libFuzzer targets share the time; each starts from its corpus of tests/fuzz/corpus/<name>.
set -eu
build=$1 seconds=$2
here=$(cd "$(dirname "$0")" && pwd)
set -- "$build"/bin/fuzz_*
[ -x "$1" ] || { echo "no fuzz targets in $build/bin" >&2; exit 1; }
each=$((seconds / $# + 1))
passed=0
for target; do
    name=$(basename "$target"); name=${name#fuzz_}
    work=$(mktemp -d)
    [ -d "$here/corpus/$name" ] && cp -r "$here/corpus/$name/." "$work/"
    echo "fuzz $name for $each s"
    (cd "$work" && timeout $((each + 60)) "$OLDPWD/$target" -max_total_time="$each" -timeout=20 -rss_limit_mb=4096 -print_final_stats=0 -print_funcs=0 -verbosity=0 "$work") ||
        { echo "fuzz target $name failed; its input is in $work" >&2; exit 1; }
    rm -rf "$work"
    passed=$((passed + 1))
done
echo "$passed fuzz targets, no finding"
