"""Calls whose errors cost one cell, one model or one data set, and not the run."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from engine import faults
from engine.errors import EmbankError, MachineFault, OutOfMemory

P = ParamSpec("P")
R = TypeVar("R")


def attempt(function: Callable[P, R], *arguments: P.args, **options: P.kwargs) -> R | EmbankError:
    """Call a function, and return its error where others may succeed nevertheless.

    Returns:
        What the function returns; else its error. Too little memory is such an error: another model is
        smaller. So is an error that no evaluation should raise, whose traceback is kept in a file.

    Raises:
        MachineFault, OSError: a full disk, a lost device; whatever is tried next would meet it as well.
    """
    try:
        return function(*arguments, **options)
    except OutOfMemory as error:
        return error
    except (MachineFault, OSError):
        raise
    except EmbankError as error:
        return error
    except Exception as error:
        return _translated(error)


def _translated(error: Exception) -> EmbankError:
    """Return an unexpected error as one of ours. Raises MachineFault: it means that a device is lost."""
    from engine.report.process import unexpected

    fault = faults.translate(error)
    if fault is not None and not isinstance(fault, OutOfMemory):
        raise fault from error
    return fault or unexpected(error)
