#!/usr/bin/env python3
"""Runs tools/torture in a tree of its own, with harnesses that do as they are told here.

Usage: torture_test.py TORTURE

The last line is "N passed, N failed".
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

PASSED = FAILED = 0

GOOD = """#!/bin/bash
[[ "$*" == "--minutes 1" ]] || exit 64
echo "seed 7"
echo "trials: 12, seeds: 7..18"
echo "12 passed, 0 failed"
"""
FINDS = """#!/bin/bash
echo "seed 5; again: something --seed 5"
echo "VIOLATION 1: Message 'a' is nowhere."
echo "3 passed, 1 failed"
exit 1
"""
SAYS_PARTS = """#!/bin/bash
echo "seed 3; again: it"
echo "workload 3: 40 trials (4 of them so)"
echo "workload 4: 2 trials (none)"
echo "seeds 3 to 4: 2 workloads"
echo "2 passed, 0 failed"
"""
SAYS_NOTHING = "#!/bin/bash\nexit 0\n"
DIES = "#!/bin/bash\necho '9 passed, 0 failed'\nexit 134\n"
GOES_ON_AFTER_ITS_COUNT = "#!/bin/bash\necho '9 passed, 0 failed'\necho 'terminate called'\n"


def check(sentence, good, details=""):
    global PASSED, FAILED
    PASSED += bool(good)
    FAILED += not good
    print(f"{'ok' if good else 'FAILED'}: {sentence}" + ("" if good else f"\n{details}"))


def torture(script, harnesses, *words):
    """Returns the exit code, the output and the results of a tree with these harnesses."""
    with tempfile.TemporaryDirectory(prefix="holdfast-torture-") as directory:
        root = pathlib.Path(directory)
        (root / "tools").mkdir()
        shutil.copy(script, root / "tools/torture")
        for name, text in harnesses.items():
            path = root / "tests" / name / "run"
            path.parent.mkdir(parents=True)
            path.write_text(text)
            path.chmod(0o755)
        done = subprocess.run([root / "tools/torture", *words], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=60, check=False)
        results = root / "build/torture.results"
        lines = results.read_text().splitlines() if results.exists() else []
        return done.returncode, done.stdout, [json.loads(line) for line in lines]


def main():
    if len(sys.argv) != 2:
        print(__doc__)
        return 64
    script = sys.argv[1]

    code, out, results = torture(script, {"sim": GOOD}, "--minutes", "1", "sim")
    check("a harness that finds nothing passes", code == 0 and out.endswith("\n1 passed, 0 failed\n"), out)
    check("its seeds and trials are kept", len(results) == 1 and results[0]["seeds"] == "7..18" and
          results[0]["trials"] == 12 and results[0]["found"] == [] and results[0]["failed"] == 0, results)
    check("its command is kept", results[0]["command"] == "tests/sim/run --minutes 1", results)

    code, out, results = torture(script, {"crash": FINDS, "sim": GOOD}, "--minutes", "1", "crash", "sim")
    check("a finding fails, and the next one is run", code == 1 and out.endswith("\n1 passed, 1 failed\n"), out)
    check("a finding is kept with its seed", len(results) == 2 and results[0]["seeds"] == "5" and
          results[0]["found"] == ["VIOLATION 1: Message 'a' is nowhere."], results)

    _, out, results = torture(script, {"ioerror": SAYS_PARTS}, "--minutes", "1", "ioerror")
    check("trials that are told in parts are added up",
          results[0]["trials"] == 42 and results[0]["seeds"] == "3..4", results)

    for what, text in (("says nothing", SAYS_NOTHING), ("dies after its last line", DIES),
                       ("has another last line", GOES_ON_AFTER_ITS_COUNT)):
        code, out, results = torture(script, {"full": text}, "--minutes", "1", "full")
        check(f"a harness that {what} fails",
              code == 1 and results[0]["failed"] == 1 and results[0]["found"], (out, results))

    code, out, results = torture(script, {"sim": GOOD}, "--minutes", "1", "sim", "fuzz")
    check("a harness that is not there fails", code == 1 and "no tests/fuzz/run" in out, out)
    code, out, results = torture(script, {"sim": GOOD}, "--minutes", "1")
    check("without a name all are run", code == 1 and len(results) == 9, out)
    code, out, results = torture(script, {}, "tickle")
    check("an unknown harness is an error of usage", code == 2 and "no harness tickle" in out, out)
    print(f"{PASSED} passed, {FAILED} failed")
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
