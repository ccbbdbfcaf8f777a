#!/usr/bin/env python3
"""Runs `holdfastd` as a process: its start line, its exit codes, its signals.

Usage: holdfastd_test.py HOLDFASTD

Everything happens on loopback and in a temporary directory. The last line is "N passed, N failed".
"""

import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

LONG_S = 60  # nothing takes longer unless something hangs

# The Hello of docs/PROTOCOL.md.
HELLO = bytes.fromhex(
    "28000000030001000100000000000000 e550cb93ab5a9d21796fd096ff058f60"
    "1000000000000a000c00040006000800 0a000000010001000400000004000000"
    "64656d6f000000000000000000000000")
WELCOME = 4
ERROR = 6


class Broker:
    def __init__(self, *arguments, open_files=None, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                 prepare=None, binary=None):
        """`prepare` is done in the new process before the broker is. It begins as from a terminal,
        whatever this was started with."""
        def begin():
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if open_files:
                resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))
            if prepare:
                prepare()
        self.process = subprocess.Popen([binary or BINARY, *arguments], stderr=stderr, stdout=stdout,
                                        text=True, preexec_fn=begin)
        self.lines = []

    def ready(self):
        """Waits for the line that says so, and returns it."""
        for line in self.process.stderr:
            self.lines.append(line)
            if re.match(r"holdfastd \S+ ready on ", line):
                return line.strip()
        raise AssertionError("it did not start: " + "".join(self.lines))

    def port(self):
        return int(re.search(r"127\.0\.0\.1:(\d+)", self.ready())[1])

    def end(self, number=None):
        """Sends the signal and returns exit code, standard output and standard error."""
        if number is not None:
            self.process.send_signal(number)
        timer = threading.Timer(LONG_S, self.process.kill)
        timer.start()
        try:
            # Not communicate(), which does not know what ready() has read ahead.
            err, out = (stream.read() if stream else ""
                        for stream in (self.process.stderr, self.process.stdout))
            return self.process.wait(), out, "".join(self.lines) + err
        finally:
            timer.cancel()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()


def run(*arguments, **options):
    with Broker(*arguments, **options) as broker:
        return broker.end()


def greet(address):
    """Connects and says Hello; returns the socket and the type of the first frame that comes."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    client = socket.socket(family, socket.SOCK_STREAM)
    client.settimeout(LONG_S)
    client.connect(address)
    client.sendall(HELLO)
    frame = client.recv(4096)
    return client, frame


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def check_refused(result, code, *words):
    exit_code, out, err = result
    check(exit_code == code, f"exit code {exit_code} instead of {code}: {err}")
    check(out == "", f"standard output: {out}")
    for word in words:
        check(word in err, f"{word!r} is not in {err!r}")


def test_why_it_does_not_start_was_told_without_its_code(directory):
    data = directory + "/d"
    serving = ("--data", data, "--listen", "127.0.0.1:0")
    check_refused(run("--data", data, "--listen", ""), 64, "holdfastd: config_invalid: There is nothing")
    check_refused(run("--data", data, "--listen", "nonsense"), 64, "holdfastd: invalid_argument: ")
    check_refused(run(*serving, open_files=20), 70, "holdfastd: limit_reached: The limit on open files")
    with Broker(*serving) as broker:
        port = broker.port()
        check_refused(run(*serving), 75, "holdfastd: directory_locked: ")
        check_refused(run("--data", directory + "/e", "--listen", f"127.0.0.1:{port}"), 69,
                      "holdfastd: address_in_use: ")
        check(broker.end(signal.SIGTERM)[0] == 0, "exit code")
    with open(directory + "/letters.txt", "w", encoding="utf-8") as file:
        file.write("dear")
    check_refused(run("--data", directory, "--listen", "127.0.0.1:0"), 65,
                  "holdfastd: directory_foreign: ")


def test_it_says_when_it_is_ready_and_stops_when_told(directory):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        with Broker("--data", directory + "/d", "--listen", "127.0.0.1:0") as broker:
            line = broker.ready()
            check(line.endswith(f", data in {directory}/d"), line)
            client, frame = greet(("127.0.0.1", int(re.search(r":(\d+),", line)[1])))
            check(frame[4] == WELCOME, f"frame {frame[4]}")
            for ignored in (signal.SIGUSR1, signal.SIGUSR2):
                broker.process.send_signal(ignored)
            code, out, err = broker.end(number)
            client.close()
            check(code == 0, f"exit code {code}: {err}")
            check(out == "", out)
            check(err.rstrip().endswith("Stopped."), err)
            check("is new: nothing was ever stored in it." in err, err)


def test_a_service_manager_is_told(directory):
    for name in (os.path.join(directory, "notify"), f"\0holdfast-test-{os.getpid()}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(name)
            manager.settimeout(LONG_S)
            os.environ["NOTIFY_SOCKET"] = name.replace("\0", "@")
            try:
                with Broker("--data", os.path.join(directory, "data"), "--listen", "127.0.0.1:0") as broker:
                    said = manager.recv(4096).decode()
                    check(said.startswith("READY=1\nSTATUS=ready on 127.0.0.1:"), said)
                    check(broker.ready().endswith(said.removeprefix("READY=1\nSTATUS=")), said)
                    broker.process.send_signal(signal.SIGTERM)
                    check(manager.recv(4096) == b"STOPPING=1", "it does not say that it stops")
                    check(broker.end()[0] == 0, "it ends well")
            finally:
                del os.environ["NOTIFY_SOCKET"]


def test_a_service_manager_that_is_not_there_is_warned_of(directory):
    for name, words in ((os.path.join(directory, "nobody"), 'told "READY=1'),
                        ("relative", 'NOTIFY_SOCKET is "relative"'), ("/" * 108, "at most 107 bytes")):
        def ask():
            os.environ["NOTIFY_SOCKET"] = name
        with Broker("--data", os.path.join(directory, "data"), "--listen", "127.0.0.1:0",
                    prepare=ask) as broker:
            broker.ready()
            code, _, err = broker.end(signal.SIGTERM)
            check(code == 0 and words in err, err)


def test_a_hangup_stopped_a_broker_that_was_started_with_nohup(directory):
    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Broker("--data", directory + "/d", "--listen", "127.0.0.1:0", prepare=ignore) as broker:
        port = broker.port()
        broker.process.send_signal(signal.SIGHUP)
        broker.process.send_signal(signal.SIGINT)
        client, frame = greet(("127.0.0.1", port))
        client.close()
        check(frame[4] == WELCOME, f"frame {frame[4]}")
        code, _, err = broker.end(signal.SIGTERM)
        check(code == 0 and err.count("Stopping") == 1, err)


def test_a_wrong_command_line_is_explained(directory):
    data = directory + "/d"
    check_refused(run(), 64, "--data")
    check_refused(run("--data", data, "--frobnicate"), 64, "--frobnicate")
    check_refused(run("--data", data, "--listen", "nonsense"), 64, '"nonsense"', "HOST:PORT")
    check_refused(run("--data", data, "--listen", "127.0.0.1:99999"), 64, "127.0.0.1:99999")
    check_refused(run("--data", data, "--listen", "host.invalid:1"), 64, "host.invalid")
    check_refused(run("--data", data, "--listen", ""), 64, "nothing to listen on")
    check_refused(run("--data", data, "--unix", "/" + "p" * 107), 64, "107")
    check(not os.path.exists(data), "the data directory was made")


def test_a_wrong_configuration_names_file_line_and_the_nearest_word(directory):
    config = directory + "/holdfast.toml"
    with open(config, "w", encoding="utf-8") as file:
        file.write('[broker]\ndata = "d"\n\n[limits]\nconection_max = 5\n')
    check_refused(run("--config", config), 64, f"{config}:5:", '"conection_max"', '"connections_max"')
    check_refused(run("--config", directory + "/absent.toml"), 64, "absent.toml")
    check_refused(run("--config", directory), 64, directory)


def test_a_configuration_file_without_a_name_meant_the_defaults(directory):
    for check_config in (["--check-config"], []):
        check_refused(run("--data", directory + "/d", "--listen", "127.0.0.1:0", "--config", "",
                          *check_config), 64, "config_invalid: --config names no file", "--config FILE")
    check(os.listdir(directory) == [], f"made {os.listdir(directory)}")


def test_check_config_prints_and_touches_nothing(directory):
    config = directory + "/holdfast.toml"
    with open(config, "w", encoding="utf-8") as file:
        file.write(f'[broker]\ndata = "{directory}/from-file"\n[limits]\nqueues_max = 77\n')
    code, out, err = run("--config", config, "--data", directory + "/from-line", "--check-config")
    check(code == 0, err)
    check(f'data = "{directory}/from-line"' in out, "the command line does not beat the file")
    check("queues_max = 77" in out, "the file does not count")
    check(os.listdir(directory) == ["holdfast.toml"], f"made {os.listdir(directory)}")


def test_an_option_of_the_unit_could_not_be_given_anew(directory):
    code, out, err = run("--data", "/first", "--unix", "/first/s", "--data", directory + "/second",
                         "--unix", directory + "/s", "--check-config")
    check(code == 0, err)
    check(f'data = "{directory}/second"' in out and f'unix = "{directory}/s"' in out, out)


def test_a_relative_data_directory_was_told_as_it_was_typed(directory):
    os.mkdir(directory + "/start")
    os.mkdir(directory + "/elsewhere")
    os.symlink(directory + "/elsewhere", directory + "/link")

    def begin():
        os.chdir(directory + "/start")
    for typed, told in (("d1", "start/d1"), ("./d1", "start/d1"), ("../d2", "d2"),
                        ("../link/d3", "elsewhere/d3")):
        told = os.path.realpath(directory) + "/" + told
        with Broker("--data", typed, "--listen", "127.0.0.1:0", prepare=begin) as broker:
            line = broker.ready()
            check(line.endswith(f", data in {told}"), line)
            code, _, err = broker.end(signal.SIGTERM)
            check(code == 0 and f"The store in {told} " in err, err)
            check(os.path.isdir(told), f"{told} was not made")
        code, out, err = run("--data", typed, "--check-config", prepare=begin)
        check(code == 0 and f'data = "{told}"' in out, out + err)
    # From the root on it stays as it is written.
    with Broker("--data", directory + "/link/d3", "--listen", "127.0.0.1:0") as broker:
        line = broker.ready()
        check(line.endswith(f", data in {directory}/link/d3"), line)

    def begin_nowhere():
        os.mkdir(directory + "/gone")
        os.chdir(directory + "/gone")
        os.rmdir(directory + "/gone")
    check_refused(run("--data", "d1", prepare=begin_nowhere), 64, '"d1"', "working directory")


def test_version_and_help(_):
    for option, words in (("--version", "holdfastd "), ("--help", "--check-config")):
        code, out, _ = run(option)
        check(code == 0 and words in out, f"{option}: {code} {out}")


def test_an_address_in_use_is_named(directory):
    socket_path = directory + "/s"
    with Broker("--data", directory + "/a", "--listen", "127.0.0.1:0", "--unix",
                socket_path) as broker:
        port = broker.port()
        check_refused(run("--data", directory + "/b", "--listen", f"127.0.0.1:{port}"), 69,
                      f"127.0.0.1:{port}", "in use")
        check_refused(run("--data", directory + "/b", "--listen", "", "--unix", socket_path), 69,
                      socket_path)
        client, frame = greet(socket_path)
        client.close()
        check(frame[4] == WELCOME, "the first broker does not answer any more")
        check(broker.end(signal.SIGTERM)[0] == 0, "exit code")


def test_a_data_directory_in_use_or_of_another_program_is_refused(directory):
    with Broker("--data", directory + "/d", "--listen", "127.0.0.1:0") as broker:
        broker.ready()
        check_refused(run("--data", directory + "/d", "--listen", "127.0.0.1:0"), 75,
                      directory + "/d")
        check(broker.end(signal.SIGTERM)[0] == 0, "exit code")
    foreign = directory + "/foreign"
    os.mkdir(foreign)
    with open(foreign + "/letters.txt", "w", encoding="utf-8") as file:
        file.write("dear")
    check_refused(run("--data", foreign, "--listen", "127.0.0.1:0"), 65, foreign)
    check(os.listdir(foreign) == ["letters.txt"], f"made {os.listdir(foreign)}")


def test_a_data_directory_that_is_removed_ends_it(directory):
    with Broker("--data", directory + "/d", "--listen", "127.0.0.1:0") as broker:
        broker.ready()
        shutil.rmtree(directory + "/d")
        # At the latest on its way out.
        code, _, err = broker.end(signal.SIGTERM)
        check(code == 70 and "was removed under the running broker" in err, f"{code}: {err}")


def test_a_killed_broker_leaves_a_socket_that_the_next_one_replaces(directory):
    arguments = ("--data", directory + "/d", "--listen", "", "--unix", directory + "/s")
    with Broker(*arguments) as broker:
        broker.ready()
        broker.end(signal.SIGKILL)
    check(os.path.exists(directory + "/s"), "the socket is gone")
    with Broker(*arguments) as broker:
        broker.ready()
        client, frame = greet(directory + "/s")
        client.close()
        check(frame[4] == WELCOME, "no Welcome")
        check(broker.end(signal.SIGTERM)[0] == 0, "exit code")
    check(not os.path.exists(directory + "/s"), "the socket is still there")


def test_clients_that_vanish_do_not_end_it(directory):
    with Broker("--data", directory + "/d", "--listen", "127.0.0.1:0") as broker:
        port = broker.port()
        for _ in range(200):
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(HELLO)
            # A reset: what the broker writes then raises SIGPIPE or fails.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
        client, frame = greet(("127.0.0.1", port))
        client.close()
        check(frame[4] == WELCOME, "no Welcome")
        check(broker.end(signal.SIGTERM)[0] == 0, "exit code")


def test_few_open_files_mean_few_connections_and_no_end(directory):
    with Broker("--data", directory + "/d", "--listen", "", "--unix", directory + "/s",
                open_files=160) as broker:
        broker.ready()
        clients = []
        kinds = []
        for _ in range(120):
            client, frame = greet(directory + "/s")
            clients.append(client)
            kinds.append(frame[4] if frame else 0)
        check(kinds[:104] == [WELCOME] * 104, f"{kinds}")
        check(WELCOME not in kinds[104:], f"{kinds}")
        check(ERROR in kinds[104:], f"{kinds}")
        clients[0].close()
        for client in clients:
            client.close()
        code, _, err = broker.end(signal.SIGTERM)
        check(code == 0, err)
        check("allows 96 connections" in err, err)


def test_connections_were_promised_that_the_open_files_do_not_hold(directory):
    arguments = ("--data", directory + "/d", "--listen", "", "--unix", directory + "/s")
    for files in (20, 64):
        check_refused(run(*arguments, open_files=files), 70, f"open files is {files},", "at least 65",
                      "ulimit -n")
        check(os.listdir(directory) == [], f"made {os.listdir(directory)}")
    with Broker(*arguments, open_files=70) as broker:
        broker.ready()
        clients = [greet(directory + "/s") for _ in range(6)]
        for client, frame in clients:
            check(frame[4] == WELCOME, f"frame {frame[4]}")
            client.close()
        code, _, err = broker.end(signal.SIGTERM)
        check(code == 0 and "allows 6 connections" in err, err)


def test_without_threads_it_aborted_at_the_first_read_and_blamed_the_data_file(directory):
    if os.getuid() != 0:
        return  # the limit counts what else the user runs, and root alone can become another
    user = 61_234  # who runs nothing else
    binary = shutil.copy(BINARY, directory)
    with open(binary, "rb") as file:
        extra = int(b"__tsan_init" in file.read())  # ThreadSanitizer has a thread of its own
    os.chmod(directory, 0o755)
    os.mkdir(directory + "/data", 0o700)
    os.chown(directory + "/data", user, user)

    def with_threads(count):
        def prepare():
            # A sanitizer would look for leaks from a process of its own.
            options = os.environ.get("ASAN_OPTIONS", "")
            os.environ["ASAN_OPTIONS"] = (options + ":" if options else "") + "detect_leaks=0"
            resource.setrlimit(resource.RLIMIT_NPROC, (count + extra, count + extra))
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        return {"prepare": prepare, "binary": binary}

    arguments = ("--data", directory + "/data", "--listen", "127.0.0.1:0")
    for count in (1, 6):
        check_refused(run(*arguments, **with_threads(count)), 70,
                      f"gives the broker {count - 1} threads beside its first", "6 are needed",
                      "ulimit -u")
        check(os.listdir(directory + "/data") == [], "it made a store")
    with Broker(*arguments, **with_threads(7)) as broker:
        broker.ready()
        threads = os.listdir(f"/proc/{broker.process.pid}/task")
        check(len(threads) == 7 + extra, f"{len(threads)} threads: some are still to be made")


def test_running_out_of_open_files_is_survived(directory):
    with Broker("--data", directory + "/d", "--listen", "127.0.0.1:0") as broker:
        port = broker.port()
        pid = broker.process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        # The one that is greeted takes the last descriptor.
        used = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 2, limits[1]))
        first, frame = greet(("127.0.0.1", port))
        check(frame[4] == WELCOME, "no Welcome while a descriptor was left")
        crowd = []
        for _ in range(20):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
            crowd.append(client)
        # Whoever is served goes on being served.
        first.sendall(HELLO)
        check(first.recv(4096)[4] == ERROR, "no answer to the first client")
        for client in crowd + [first]:
            client.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        deadline = time.monotonic() + LONG_S
        served = False
        while not served and time.monotonic() < deadline:
            try:
                client, frame = greet(("127.0.0.1", port))
                client.close()
                served = bool(frame) and frame[4] == WELCOME
            except OSError:  # the listener pauses
                pass
        check(served, "nobody is served any more")
        check(broker.end(signal.SIGTERM)[0] == 0, "exit code")


def test_a_bus_error_names_the_data_file(directory):
    with Broker("--data", directory + "/d", "--listen", "127.0.0.1:0") as broker:
        broker.ready()
        code, _, err = broker.end(signal.SIGBUS)
        check(code == 70, f"exit code {code}: {err}")
        check(directory + "/d/" in err and "SIGBUS" in err, err)


def test_a_crash_names_the_data_file_and_stays_a_crash(directory):
    for number in (signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT):
        with Broker("--data", directory + "/d", "--listen", "127.0.0.1:0") as broker:
            broker.ready()
            code, _, err = broker.end(number)
            # A sanitizer's own handler, which comes after the broker's, may end it by another one.
            check(code < 0, f"exit code {code}: {err}")
            check(directory + "/d/" in err and number.name in err, err)


def listens(path):
    """Waits until a broker listens on the socket that it makes: a moment after it is there."""
    deadline = time.monotonic() + LONG_S
    while True:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.connect(path)
                return
        except (FileNotFoundError, ConnectionRefusedError):
            check(time.monotonic() < deadline, f"nobody listens on {path}")
            time.sleep(0.01)


def test_with_closed_descriptors_the_log_was_written_into_the_data_file(directory):
    arguments = ("--data", directory + "/d", "--listen", "", "--unix", directory + "/s")

    def close_all():
        os.closerange(0, 3)
    for _ in range(2):
        with Broker(*arguments, prepare=close_all) as broker:
            listens(directory + "/s")
            for number in range(3):
                name = os.readlink(f"/proc/{broker.process.pid}/fd/{number}")
                check(name == "/dev/null", f"descriptor {number} is {name}")
            client, frame = greet(directory + "/s")
            check(frame[4] == WELCOME, f"frame {frame[4]}")
            client.sendall(HELLO)  # a second one is wrong, which the log tells
            client.recv(4096)
            client.close()
            check(broker.end(signal.SIGTERM)[0] == 0, "exit code")
    with Broker(*arguments) as broker:
        broker.ready()
        code, _, err = broker.end(signal.SIGTERM)
        check(code == 0, err)


def test_a_standard_error_that_cannot_be_written_aborted_it(directory):
    arguments = ("--data", directory + "/d", "--listen", "", "--unix", directory + "/s")
    reading, closed_pipe = os.pipe()
    os.close(reading)
    with open("/dev/full", "w", encoding="utf-8") as full, os.fdopen(closed_pipe, "w") as pipe:
        for stderr in (full, pipe):
            check(run("--data", directory, "--listen", "nonsense", stderr=full)[0] == 64, "exit code")
            with Broker(*arguments, stderr=stderr) as broker:
                listens(directory + "/s")
                client, frame = greet(directory + "/s")
                client.close()
                check(frame[4] == WELCOME, f"frame {frame[4]}")
                code = broker.end(signal.SIGTERM)[0]
                check(code == 0, f"exit code {code}")


def test_a_configuration_that_could_not_be_printed_seemed_to_be_right(directory):
    with open("/dev/full", "w", encoding="utf-8") as full:
        for arguments in (["--data", directory + "/d", "--check-config"], ["--help"], ["--version"]):
            code, _, err = run(*arguments, stdout=full)
            check(code == 70 and "Standard output cannot be written: No space left" in err,
                  f"{arguments}: {code} {err}")


def main():
    passed = failed = 0
    for name, test in sorted(globals().items()):
        if not name.startswith("test_"):
            continue
        with tempfile.TemporaryDirectory(prefix="holdfastd-test-") as directory:
            try:
                test(directory)
                passed += 1
            except Exception:  # whatever it is, the other tests go on
                failed += 1
                print(f"FAILED {name}")
                traceback.print_exc(file=sys.stdout)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    BINARY = os.path.abspath(sys.argv[1])
    sys.exit(main())
