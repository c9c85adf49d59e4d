"""What a back-end needs of a machine is asked before anything is computed."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import scipy.stats

from medclip.errors import MedclipError, Reason
from medclip.models.backends import known
from medclip.models.backends.choice import share_that_may_break
from medclip.models.backends.known import BACKENDS, check_backend, find_backend, parse_flags, usable

INTEL = "model name : Some Xeon\nflags\t\t: fpu sse2 avx2 avx512f avx512_vnni\nflags : fpu\n"
GRAVITON = "processor : 0\nFeatures : fp asimd asimddp i8mm bf16\n"


@pytest.mark.parametrize("num_images", [8, 64, 300])
def test_the_share_that_may_break_a_bound_is_the_exact_binomial_limit(num_images: int):
    exact = scipy.stats.binomtest(0, num_images).proportion_ci(0.90, method="exact").high  # 5 % above it
    assert share_that_may_break(num_images) == pytest.approx(exact, rel=1e-9)


def test_flags_are_read_of_x86_and_of_arm():
    assert parse_flags(INTEL) == {"avx2", "avx512f", "avx512_vnni"}
    assert parse_flags(GRAVITON) == {"asimd", "asimddp", "i8mm", "bf16"}
    assert parse_flags("") == frozenset()


@pytest.mark.parametrize(("cpu", "bf16", "int8"), [(INTEL, False, True), (GRAVITON, True, True), ("", False, False)])
def test_a_processor_without_the_instructions_is_refused(
    cpu: str, bf16: bool, int8: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(known, "cpu_flags", lambda: parse_flags(cpu))
    for name, can in (("bf16", bf16), ("onnx-int8", int8), ("eager", True)):
        kind = replace(BACKENDS[name], libraries={})
        if can:
            check_backend(kind)
            continue
        with pytest.raises(MedclipError, match="the processor has none of") as caught:
            check_backend(kind)
        assert caught.value.reason is Reason.WRONG_USE


def test_a_missing_library_is_named_with_the_line_that_installs_it():
    kind = replace(BACKENDS["onnx"], libraries={"no_such_module": "no-such"})
    with pytest.raises(MedclipError) as caught:
        check_backend(kind)
    assert caught.value.reason is Reason.MISSING_CODEC
    assert caught.value.hint == "Run: pip install 'medclip-imaging[onnx]'"


def test_a_machine_without_a_compiler_is_named_as_such(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no C++ compiler" in usable([BACKENDS["compiled"]])[1]["compiled"]
    with pytest.raises(MedclipError, match="no C") as caught:
        check_backend(BACKENDS["compiled"])
    assert caught.value.reason is Reason.WRONG_USE
    monkeypatch.setenv("CXX", sys.executable)  # a program that is there
    monkeypatch.setattr(known.sysconfig, "get_path", lambda _: str(tmp_path))
    assert "headers are not installed" in BACKENDS["compiled"].lacking()
    (tmp_path / "Python.h").touch()
    assert BACKENDS["compiled"].lacking() == ""


def test_another_compiler_is_another_version_of_a_back_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", sys.executable)
    known.compiler_version.cache_clear()
    assert BACKENDS["compiled"].versions()["c++"].startswith("Python 3")
    monkeypatch.setenv("CXX", "no-such-compiler")
    known.compiler_version.cache_clear()
    assert BACKENDS["compiled"].versions()["c++"] == "unknown"
    assert "c++" not in BACKENDS["onnx"].versions()
    known.compiler_version.cache_clear()


def test_a_misspelt_backend_is_answered_with_its_name():
    with pytest.raises(MedclipError, match="onnx-int8"):
        find_backend("onnxint8")


def test_back_ends_that_cannot_be_used_here_are_left_out_and_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(known, "cpu_flags", frozenset)
    kinds, lacking = usable([BACKENDS["eager"], BACKENDS["bf16"]])
    assert [kind.name for kind in kinds] == ["eager"]
    assert "avx512_bf16" in lacking["bf16"]


@pytest.mark.parametrize(
    ("name", "device", "part"),
    [
        ("onnx", "cuda:1", "it computes on cpu, and not on the device cuda:1"),
        ("bf16-compiled", "cpu", "it computes on cuda, and not on the device cpu"),
        ("bf16-compiled", "mps", "not on the device mps"),
    ],
)
def test_a_back_end_that_does_not_compute_on_a_device_is_refused(name: str, device: str, part: str):
    with pytest.raises(MedclipError, match=part) as refused:
        check_backend(BACKENDS[name], device)
    assert refused.value.reason is Reason.WRONG_USE


def test_a_card_is_not_asked_for_what_a_processor_needs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(known, "cpu_flags", frozenset)
    assert BACKENDS["bf16"].lacking("cuda") == ""
    assert BACKENDS["bf16"].lacking()
    monkeypatch.setattr(known, "lacks_compiler", str)
    monkeypatch.setattr(known, "find_spec", lambda name: None if name == "triton" else object())
    assert "triton" in BACKENDS["bf16-compiled"].lacking("cuda")
    assert BACKENDS["compiled"].lacking() == ""


def test_int8_is_allowed_ten_times_the_change_of_floating_point():
    assert {kind.bound for kind in BACKENDS.values() if kind.is_int8} == {1e-2}
    assert {kind.bound for kind in BACKENDS.values() if not kind.is_int8} == {1e-3}
