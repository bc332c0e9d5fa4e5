"""Ctrl-C while libraries are imported."""

import signal
import threading

import pytest

from sztrain.cli.interrupts import interrupts_held_back


@pytest.fixture(autouse=True)
def python_handles_interrupts():
    """A shell's background jobs ignore them, and so would Python in one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_waits_for_the_end_and_the_next_does_not():
    reached = False
    with pytest.raises(KeyboardInterrupt), interrupts_held_back():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        reached = True
    assert reached
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_error_inside_comes_through_and_puts_the_handler_back():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ImportError), interrupts_held_back():
        raise ImportError
    assert signal.getsignal(signal.SIGINT) is before


def test_elsewhere_than_in_the_main_thread_it_does_nothing():
    ran = []

    def run():
        with interrupts_held_back():
            ran.append(1)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert ran
