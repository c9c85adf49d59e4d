"""Devices that torch can and cannot compute on."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from medclip.errors import MedclipError, Reason
from medclip.models.devices import check_device, default_batch, kind_of


def test_the_processor_is_there_and_what_is_no_device_is_refused():
    check_device("cpu")
    for device in ("nowhere", *([] if torch.cuda.is_available() else ["cuda"])):
        with pytest.raises(MedclipError, match="cannot compute on the device") as refused:
            check_device(device)
        assert refused.value.reason is Reason.WRONG_USE


def test_a_card_is_given_more_images_at_once_than_a_processor():
    assert default_batch("cuda:1") == default_batch("cuda") > default_batch("cpu") == default_batch("mps")
    assert kind_of("cuda:1") == kind_of("cuda") == "cuda"


_INTERRUPTED = """
import threading, time, torch
from medclip.models.devices import ComputingThread

def compute(begun, until_s):
    values = torch.rand(300, 300)
    while time.monotonic() < until_s:
        values = (values @ values).softmax(1)
        begun.set()

begun = threading.Event()
for number in range(3):
    ComputingThread(compute, f"{number}", (begun, time.monotonic() + 1.0)).start()
begun.wait()
raise SystemExit(130)
"""


@pytest.mark.slow
def test_a_program_that_is_interrupted_while_threads_compute_ends_with_its_own_code() -> None:
    ended = subprocess.run([sys.executable, "-c", _INTERRUPTED], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, "")
