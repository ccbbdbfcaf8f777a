#!/usr/bin/env python3
"""Runs the examples of README.md as a new user would.

  tests/docs/readme_test.py HOLDFASTD HOLDFAST BUILD_DIRECTORY

The blocks marked `sh` are run command by command against a fresh broker, in their order; the block
marked `cpp` is compiled with what pkg-config says of an installed client library, and run. The
installed systemd unit is looked at. Links to files must lead somewhere. The last line is `N passed,
N failed`.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)\)")
READY = re.compile(r"ready on (\S+?),")


class Checks:
    def __init__(self):
        self.passed = self.failed = 0

    def check(self, sentence, good, details=""):
        self.passed += bool(good)
        self.failed += not good
        print(f"{'ok' if good else 'FAILED'}: {sentence}" + ("" if good else f"\n{details}"))


def start_broker(binary, directory):
    broker = subprocess.Popen([binary, "--data", f"{directory}/data", "--listen", "127.0.0.1:0"],
                              stderr=subprocess.PIPE, text=True)
    for line in broker.stderr:
        if ready := READY.search(line):
            return broker, ready[1]
    sys.exit("The broker ended instead of starting.")


def run(checks, sentence, command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=120, **options)
    checks.check(sentence, done.returncode == 0,
                 f"exit code {done.returncode}\n{done.stdout}")
    return done.returncode == 0


def run_shell_blocks(checks, text, tool, address):
    environment = dict(os.environ, HOLDFAST_URL=address,
                       PATH=f"{pathlib.Path(tool).parent}:{os.environ['PATH']}")
    for kind, block in BLOCK.findall(text):
        if kind != "sh":
            continue
        for command in block.splitlines():
            run(checks, command, ["bash", "-o", "pipefail", "-c", command], cwd=ROOT,
                env=environment)


def run_cpp_blocks(checks, text, build, directory, address):
    installed = pathlib.Path(directory, "installed")
    if not run(checks, "meson install",
               ["meson", "install", "-C", build, "--no-rebuild", "--destdir", str(installed)]):
        return
    check_unit(checks, installed, directory)
    found = list(installed.rglob("holdfast.pc"))
    checks.check("holdfast.pc is installed", len(found) == 1, found)
    if not found:
        return
    environment = dict(os.environ, PKG_CONFIG_PATH=str(found[0].parent),
                       PKG_CONFIG_SYSROOT_DIR=str(installed))
    # Only the paths of this package lie in the sysroot, so the others are asked for without it.
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "holdfast"], env=environment,
                           stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    sanitize = ["-fsanitize=address,undefined"] if is_sanitized(build) else []
    for number, block in enumerate(b for kind, b in BLOCK.findall(text) if kind == "cpp"):
        source = pathlib.Path(directory, f"example{number}.cc")
        program = source.with_suffix("")
        source.write_text(block)
        if run(checks, f"C++ block {number} compiles",
               ["g++", "-std=c++20", "-Wall", "-Wextra", "-Werror", *sanitize, str(source),
                "-o", str(program), *flags]):
            library = found[0].parent.parent
            run(checks, f"C++ block {number} runs", [str(program), address],
                env=dict(os.environ, LD_LIBRARY_PATH=str(library)))


def check_unit(checks, installed, directory):
    units = list(installed.rglob("systemd/system/holdfastd.service"))
    checks.check("holdfastd.service is installed", len(units) == 1, units)
    if not units:
        return
    text = units[0].read_text()
    binary = re.search(r"^ExecStart=/(\S+) ", text, re.MULTILINE).group(1)
    checks.check("the unit starts the installed broker",
                 os.access(installed / binary, os.X_OK), binary)
    if not shutil.which("systemd-analyze"):
        return
    unit = pathlib.Path(directory, "holdfastd.service")
    unit.write_text(text.replace(f"/{binary}", str(installed / binary)))
    run(checks, "systemd finds nothing wrong with the unit",
        ["systemd-analyze", "verify", "--recursive-errors=no", str(unit)])


def is_sanitized(build):
    options = pathlib.Path(build, "compile_commands.json").read_text()
    return "-fsanitize=address" in options


def main():
    broker_binary, tool, build = (os.path.abspath(argument) for argument in sys.argv[1:4])
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    checks = Checks()
    for link in LINK.findall(text):
        checks.check(f"the link to {link} leads somewhere", (ROOT / link).exists())
    with tempfile.TemporaryDirectory() as directory:
        broker, address = start_broker(broker_binary, directory)
        try:
            run_shell_blocks(checks, text, tool, address)
            run_cpp_blocks(checks, text, build, directory, address)
        finally:
            broker.terminate()
            broker.stderr.read()
            broker.wait(timeout=30)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
