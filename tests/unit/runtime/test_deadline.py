"""The deadline: SIGALRM becomes TimeUp, and if that is lost, death by signal (which pipe(8) defers)."""

import signal
import subprocess
import sys
import textwrap

import pytest

PREAMBLE = """
import re, signal, sys, time
from pipehandler.runtime import deadline
from pipehandler.runtime.deadline import Deadline, TimeUp
deadline.GRACE = 60

def swallow(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            sum(range(1000))
        except Exception:
            pass
    print("not interrupted")

def backtrack():
    re.match(r"(a|a)*$", "a" * 60 + "b")
    print("not interrupted")

start = time.monotonic()
"""


def run(program: str) -> tuple[int, str]:
    """The status and the output of a Python program that has a deadline; SIGALRM belongs to the whole process."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(program)], capture_output=True, text=True, timeout=120
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.parametrize("work", ["swallow(3600)", "backtrack()", "time.sleep(3600)"])
def test_time_up(work: str) -> None:
    """When the budget is used up TimeUp is raised: in Python code inside `except Exception`, in a regular expression,
    in a system call."""
    assert run(f"""
        try:
            Deadline(0.2, start)
            {work}
        except TimeUp:
            print("time up")
    """) == (0, "time up\n")


def test_lost_time_up_kills() -> None:
    """Code that swallows TimeUp itself dies by SIGALRM after the grace."""
    assert run("""
        deadline.GRACE = 0.5
        Deadline(0.1, start)
        while True:
            try:
                time.sleep(0.01)
            except BaseException as error:
                print(type(error).__name__, flush=True)
    """) == (-signal.SIGALRM, "TimeUp\n")


def test_step_ends_before_the_budget() -> None:
    """A step has its own, shorter time; after it the alarm is the budget's again."""
    assert run("""
        budget = Deadline(1000, start)
        try:
            with budget.step(0.2):
                time.sleep(3600)
        except TimeUp:
            print("step", signal.getitimer(signal.ITIMER_REAL)[0] > 800)
        with budget.step(100):
            print("quick", signal.getitimer(signal.ITIMER_REAL)[0] <= 100)
        print("budget", 800 < signal.getitimer(signal.ITIMER_REAL)[0] <= budget.remaining() + 1)
    """) == (0, "step True\nquick True\nbudget True\n")


def test_step_is_no_longer_than_the_budget() -> None:
    """A step that may take longer than the remaining time ends with the budget."""
    assert run("""
        budget = Deadline(0.2, start)
        try:
            with budget.step(1000):
                time.sleep(3600)
        except TimeUp:
            print(budget.remaining())
    """) == (0, "0.0\n")


def test_budget_counts_from_the_start() -> None:
    """Time that was used before the configuration was known is part of the budget, even when nothing is left of it."""
    assert run("""
        try:
            Deadline(1000, start - 2000)
            time.sleep(3600)
        except TimeUp:
            print("time up")
    """) == (0, "time up\n")


def test_nothing_is_interrupted_after_the_commit_point() -> None:
    """Once disarmed, the deadline raises nothing; only the last alarm remains, and kills."""
    assert run("""
        budget = Deadline(1000, start)
        budget.disarm()
        print(signal.getsignal(signal.SIGALRM) == signal.SIG_DFL, flush=True)
        print(budget.remaining() < signal.getitimer(signal.ITIMER_REAL)[0] <= 1000 + deadline.GRACE, flush=True)
        signal.raise_signal(signal.SIGALRM)
    """) == (-signal.SIGALRM, "True\nTrue\n")
