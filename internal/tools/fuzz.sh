#!/bin/sh
# Runs every fuzz target of the module, one after the other, for FUZZTIME each.
set -eu
: "${GO:=go}" "${FUZZTIME:=30s}"
count=0
for dir in $(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do
	for target in $(grep -h '^func Fuzz' "$dir"/*_test.go | sed 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/' | sort -u); do
		echo "== $dir $target ($FUZZTIME)"
		"$GO" test "$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$FUZZTIME"
		count=$((count + 1))
	done
done
echo "fuzzed $count targets for $FUZZTIME each: no crash, no disagreement"
