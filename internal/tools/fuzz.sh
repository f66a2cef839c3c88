#!/bin/sh
# Runs every fuzz target of the module, one after the other, for FUZZTIME each.
set -eu
: "${GO:=go}" "${FUZZTIME:=30s}"
count=0
out=$(mktemp)
trap 'rm -f "$out"' EXIT

# Go before 1.27 may report the end of -fuzztime as a failure (golang/go#75804): nothing
# but the deadline is said then, and no input is written down.
only_deadline() {
	grep -q '^    context deadline exceeded$' "$out" && ! grep -qE 'Failing input|panic|DATA RACE|_test\.go:' "$out"
}

for dir in $(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do
	for target in $(grep -h '^func Fuzz' "$dir"/*_test.go | sed 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/' | sort -u); do
		echo "== $dir $target ($FUZZTIME)"
		# An input that is new is made smaller for a second at most: the default is a minute,
		# and a bounded run would do nothing else.
		if "$GO" test "$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$FUZZTIME" -fuzzminimizetime 1s >"$out" 2>&1; then
			cat "$out"
		elif only_deadline; then
			grep '^fuzz: ' "$out" || true
			echo "its time was over (golang/go#75804); no failing input"
		else
			cat "$out"
			exit 1
		fi
		count=$((count + 1))
	done
done
echo "fuzzed $count targets for $FUZZTIME each: no crash, no disagreement"
