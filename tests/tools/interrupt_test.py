#!/usr/bin/env python3
"""Interrupts the commands of `holdfast` in the middle and checks what they leave and say.

Usage: interrupt_test.py HOLDFASTD HOLDFAST

Each scenario is a function named test_*; it has queues of its own at one broker. That a command is in the
middle is known by what it has done or waits for, never by how long it has run. The last line is
"N passed, N failed".
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading

import cli_harness
from cli_harness import CHECK, LONG_S, Tool, make_dead_letters, until


class HoldingProxy:
    """Passes on what one client and the broker say, and holds the client's words back from the n-th
    piece on, until it is let go."""

    def __init__(self, address, pieces):
        host, port = address.rsplit(":", 1)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.broker = socket.create_connection((host, int(port)))
        self.pieces = pieces
        self.is_holding = threading.Event()
        self.let_go = threading.Event()
        self.threads = [threading.Thread(target=self.serve, daemon=True)]
        self.threads[0].start()

    def serve(self):
        client, _ = self.listener.accept()
        answers = threading.Thread(target=self.pass_on, args=[self.broker, client, lambda: None],
                                   daemon=True)
        answers.start()
        self.pass_on(client, self.broker, self.hold)
        answers.join()
        client.close()

    def pass_on(self, source, target, before):
        try:
            while piece := source.recv(1 << 16):
                before()
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def hold(self):
        self.pieces -= 1
        if self.pieces == 0:
            self.is_holding.set()
            self.let_go.wait(LONG_S)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.let_go.set()
        self.threads[0].join(LONG_S)
        self.broker.close()
        self.listener.close()


def heed_interrupts():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def started(tool, *words):
    """The tool, which heeds interrupts whatever this was started with."""
    return subprocess.Popen(tool.command(*words), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, preexec_fn=heed_interrupts)


def interrupted_at(tool, piece, *words):
    """Interrupts it when the broker has not heard what the client says from this piece on. Returns standard
    output and standard error."""
    with HoldingProxy(tool.address, piece) as proxy:
        process = started(Tool(tool.binary, proxy.address), *words)
        CHECK.that(proxy.is_holding.wait(LONG_S), "it is in the middle")
        process.send_signal(signal.SIGINT)
        proxy.let_go.set()
        out, err = process.communicate(timeout=LONG_S)
    CHECK.that(process.returncode == -signal.SIGINT, (process.returncode, err))
    return out.decode(), err.decode()


def test_moving_dead_letters_was_interrupted_and_nothing_was_said(tool):
    tool.make("halted")
    count = 3000
    make_dead_letters(tool, "halted", count)
    moved = 0
    for words, word in (
            (["dlq", "redrive", "halted", "--all"], "redriven"),
            (["dlq", "redrive", "halted", *(str(m) for m in range(2000, 3000))], "redriven"),
            (["dlq", "discard", "halted", "--all", "--yes"], "discarded")):
        # Hello, the question for the queue and one step pass at once.
        out, err = interrupted_at(tool, 4, "-o", "jsonl", *words)
        done = json.loads(out)[word]
        moved += done
        CHECK.that(done == 512, done)
        CHECK.that(f"cancelled: Interrupted. {done} dead letters of halted.dead {word}, the others "
                   "stay where they are." in err, err)
        CHECK.that(tool.report("halted.dead")["messages"] == count - moved, "the others stay")


# They were lost with the connection, which cost them an attempt; with one allowed they became dead letters.
def test_what_was_received_when_an_interrupt_came_was_not_settled(tool):
    count = 1000
    for option in ("--ack", "--reject"):
        queue = "cut" + option
        tool.make(queue, "--max-attempts", "1")
        tool.lines(queue, ["x" * 4000] * count)
        process = started(tool, "-o", "json", "message", "receive", queue, "-n", str(count), option)
        # More than one step, of which the pipe holds a small part: it is not at its end.
        begin = os.read(process.stdout.fileno(), 100)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LONG_S)
        CHECK.that(process.returncode == -signal.SIGINT, (process.returncode, err))
        seen = [message["sequence"] for message in json.loads(begin + out)]
        CHECK.that(seen == list(range(1, len(seen) + 1)) and 0 < len(seen) < count, len(seen))
        CHECK.that(f"cancelled: Interrupted. {len(seen)} messages of queue {queue} are settled, the others "
                   "stay where they are." in err.decode(), err)
        report = tool.report(queue)
        CHECK.that(report["ready"] == count - len(seen) and report["in_flight"] == 0, report)
        CHECK.that(report["since_start"]["deliveries_lost"] == 0, report)
        CHECK.that(report["dead"] == (len(seen) if option == "--reject" else 0), report)


def test_what_came_with_an_interrupt_was_lost_before_anybody_saw_it(tool):
    tool.make("unseen-yet", "--max-attempts", "1")
    tool.lines("unseen-yet", ["a", "b"])
    for option in ("--ack", "--nack", "--hold"):
        # Hello and Subscribe pass: the broker delivers, but does not hear that it is to pause.
        out, err = interrupted_at(tool, 3, "-o", "json", "message", "receive", "unseen-yet", "-n", "9", option)
        CHECK.that(json.loads(out) == [], out)
        CHECK.that("Interrupted. 0 messages of queue unseen-yet are settled" in err, err)
        report = tool.report("unseen-yet")
        CHECK.that(report["ready"] == 2 and report["since_start"]["deliveries_lost"] == 0, report)


def test_waiting_for_a_message_ends_with_an_interrupt(tool):
    tool.make("awaited")
    process = started(tool, "-o", "json", "message", "receive", "awaited", "--ack", "--wait", "1h")
    until(lambda: tool.ok("consumer", "ls", "awaited"), "it waits")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=LONG_S)
    CHECK.that(process.returncode == -signal.SIGTERM and json.loads(out) == [], (process.returncode, err))
    CHECK.that(tool.report("awaited")["consumers"] == 0, "it is gone")


# They were held until their leases ran out, which cost an attempt.
def test_messages_were_held_for_a_reader_that_had_gone(tool):
    tool.make("unread", "--max-attempts", "1")
    tool.lines("unread", ["a", "b"])
    process = started(tool, "-o", "jsonl", "message", "receive", "unread", "-n", "2", "--hold")
    CHECK.that(json.loads(process.stdout.readline())["body"] == "a", "it is read")
    CHECK.that(b"Ctrl-C" in process.stderr.readline(), "they are held")
    process.stdout.close()
    process.stderr.close()
    CHECK.that(process.wait(timeout=LONG_S) == -signal.SIGPIPE, process.returncode)
    report = tool.report("unread")
    CHECK.that(report["ready"] == 2 and report["since_start"]["released"] == 2, report)


def test_sending_lines_was_interrupted_and_the_count_was_not_said(tool):
    tool.make("counted", "--max-message-bytes", "10")
    process = started(tool, "-o", "json", "message", "send", "counted", "--lines")
    process.stdin.write(b"one\n" + b"x" * 11 + b"\nthree\nhalf of a li")
    process.stdin.flush()
    until(lambda: tool.report("counted")["messages"] == 2, "its lines are read, and it waits for more")
    process.send_signal(signal.SIGINT)
    process.wait(timeout=LONG_S)
    out, err = process.communicate()
    CHECK.that(process.returncode == -signal.SIGINT, (process.returncode, err))
    CHECK.that([receipt["sequence"] for receipt in json.loads(out)] == [1, 2], out)
    CHECK.that(b"line 2: message_too_large" in err, err)
    CHECK.that(b"cancelled: Interrupted. 2 of 3 lines are stored, 1 are not. Lines after them were not "
               b"read." in err, err)
    CHECK.that(tool.report("counted")["messages"] == 2, "what was not a whole line is not sent")


def test_lines_were_stored_after_the_last_one_that_was_told(tool):
    tool.make("told")
    count = 20_000
    process = started(tool, "-o", "jsonl", "message", "send", "told", "--lines")
    process.stdin.write(b"x\n" * count)
    process.stdin.flush()
    # It goes on only as far ahead of what it has printed as it has room for: 16,384 lines.
    begin = os.read(process.stdout.fileno(), 100)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=LONG_S)
    CHECK.that(process.returncode == -signal.SIGINT, (process.returncode, err))
    stored = (begin + out).count(b"\n")
    CHECK.that(0 < stored < count and tool.report("told")["messages"] == stored, stored)
    CHECK.that(f"Interrupted. {stored} of {stored} lines are stored." in err.decode(), err)


def test_an_export_that_was_interrupted_left_its_beginning_behind(tool):
    tool.make("exported")
    make_dead_letters(tool, "exported", 200)
    with tempfile.TemporaryDirectory(prefix="holdfast-cli-") as directory:
        file = os.path.join(directory, "letters")
        for before in (None, "old"):
            if before:
                with open(file, "w", encoding="utf-8") as old:
                    old.write(before)
            # Hello and the question for 64 of them pass.
            out, err = interrupted_at(tool, 3, "dlq", "export", "exported", file)
            CHECK.that(out == "" and "cancelled: Interrupted. 64 dead letters of queue exported were written "
                       f'and are removed: file "{file}" is as it was before.' in err, err)
            CHECK.that(os.listdir(directory) == (["letters"] if before else []), os.listdir(directory))
        with open(file, encoding="utf-8") as old:
            CHECK.that(old.read() == "old", "the one before stays")
    out, err = interrupted_at(tool, 3, "dlq", "export", "exported", "-")
    CHECK.that(len(out.splitlines()) == 64 and "body" in json.loads(out.splitlines()[-1]), out[-300:])
    CHECK.that("64 dead letters of queue exported were written, the others are not." in err, err)


if __name__ == "__main__":
    sys.exit(cli_harness.with_one_broker(__doc__, globals()))
