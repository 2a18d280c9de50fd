from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from kxai import progress
from kxai.errors import ArgumentError


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    stream = Terminal()
    # pytest puts its own stderr back between a fixture and its test, so the module gets the stream itself.
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return stream


@pytest.mark.parametrize("verbose", [None, True, False])
def test_silent_without_a_terminal(verbose, capsys, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert list(progress.track(range(3), 3, "explaining", verbose)) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_shown_at_once_when_asked(terminal):
    assert list(progress.track(iter("abc"), 3, "explaining", True)) == ["a", "b", "c"]
    assert "explaining" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()


def test_automatic_waits(terminal, monkeypatch):
    seconds = 0.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: seconds))
    shown = []
    for _ in progress.track(range(5), description="explaining"):
        shown.append(terminal.getvalue() != "")
        seconds += 0.4
    assert shown == [False, False, False, True, True]  # at 0, 0.4, 0.8, 1.2 and 1.6 s
    assert "5/5" in terminal.getvalue()


def test_items_that_are_shares_of_a_batch(terminal):
    quarters = [0.25] * 8
    assert list(progress.track(quarters, 2, "explaining", True, share=lambda item: item)) == quarters
    assert "2/2" in terminal.getvalue()
    assert "8/2" not in terminal.getvalue()


def test_never_on_request(terminal, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    assert list(progress.track(range(3), verbose=False)) == [0, 1, 2]
    assert terminal.getvalue() == ""


def test_terminal_is_left_in_order_when_the_loop_ends_early(terminal):
    steps = progress.track(range(3), 3, "explaining", True)
    next(steps)
    steps.close()
    assert terminal.getvalue().count("\x1b[?25l") == terminal.getvalue().count("\x1b[?25h") == 1


def test_errors_pass_through(terminal):
    def broken():
        yield 1
        raise RuntimeError("from within")

    with pytest.raises(RuntimeError, match="from within"):
        list(progress.track(broken(), verbose=True))
    assert "\x1b[?25h" in terminal.getvalue()


def test_arguments_are_checked_at_the_call():
    with pytest.raises(ArgumentError, match="verbose is out of range"):
        progress.track([], verbose="yes")
    with pytest.raises(ArgumentError, match="total is out of range"):
        progress.track([], total=-1)
