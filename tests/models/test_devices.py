"""Devices that torch can and cannot compute on."""

from __future__ import annotations

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
