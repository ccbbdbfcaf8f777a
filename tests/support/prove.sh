# Sourced by scripts that show a harness a program with a mistake in it.
#
#   must_find PATTERN COMMAND…   the harness must fail within two minutes, and in a line that matches
#                                PATTERN (grep -E) tell what the mistake does
#
# The last line is `1 passed, 0 failed` or `0 passed, 1 failed`; the return code says the same.

must_find() {
  local pattern=$1 log
  shift
  log=$(mktemp)
  if timeout 120 "$@" >"$log" 2>&1; then
    tail -n 3 "$log"
    echo "Nothing was found, so a real mistake would not be found either. See $log."
    echo "0 passed, 1 failed"
    return 1
  fi
  if ! grep -E "$pattern" "$log"; then
    tail -n 30 "$log"
    echo "It failed, but no line matches '$pattern'. See $log."
    echo "0 passed, 1 failed"
    return 1
  fi
  rm "$log"
  echo "1 passed, 0 failed"
}
