#!/usr/bin/env python3
"""Fails when docs/TESTING.md names a test case that no test file has.

The last line is `N passed, N failed`.
"""

import pathlib
import re
import sys

root = pathlib.Path(__file__).resolve().parents[2]
# A long name may be split over lines by the formatter.
sources = "\n".join(path.read_text() for path in sorted((root / "tests").rglob("*_test.cc")))
sources = re.sub(r'"\s*\n\s*"', "", sources)
named = re.findall(r'"([^"]+)"', (root / "docs" / "TESTING.md").read_text())

failed = 0
for name in named:
    if f'"{name}"' not in sources:
        print(f"docs/TESTING.md names a test that does not exist: {name}")
        failed += 1
if not named:
    print("docs/TESTING.md names no test.")
    failed += 1
print(f"{len(named) - failed if named else 0} passed, {failed} failed")
sys.exit(1 if failed else 0)
