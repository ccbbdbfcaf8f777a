#!/usr/bin/env python3
"""Runs the client library's examples against a fresh broker.

  tests/docs/examples_test.py HOLDFASTD EXAMPLE…

Each is given the broker's address and must end by itself with exit code 0. The last line is
`N passed, N failed`.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

READY = re.compile(r"ready on (\S+?),")


def start_broker(binary, directory):
    broker = subprocess.Popen([binary, "--data", f"{directory}/data", "--listen", "127.0.0.1:0"],
                              stderr=subprocess.PIPE, text=True)
    for line in broker.stderr:
        if ready := READY.search(line):
            return broker, ready[1]
    sys.exit("The broker ended instead of starting.")


def main():
    broker_binary, *examples = sys.argv[1:]
    passed = failed = 0
    with tempfile.TemporaryDirectory() as directory:
        broker, address = start_broker(broker_binary, directory)
        try:
            for example in examples:
                done = subprocess.run([example, address], stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, text=True, timeout=120)
                good = done.returncode == 0 and done.stdout
                passed += bool(good)
                failed += not good
                print(f"{'ok' if good else 'FAILED'}: {pathlib.Path(example).name}, exit code "
                      f"{done.returncode}\n{done.stdout}")
        finally:
            broker.terminate()
            broker.stderr.read()
            broker.wait(timeout=30)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
