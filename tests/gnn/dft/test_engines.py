"""Engines by name, and theory keys that say all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnn.dft.emt import EmtEngine
from gnn.dft.engines import make_engine
from gnn.dft.gpaw import FUNCTIONALS, GpawSettings
from gnn.errors import InputError


def test_emt_by_name():
    assert isinstance(make_engine("emt")(), EmtEngine)


def test_each_call_makes_another_engine():
    make = make_engine("emt", {})
    assert make() is not make()


def test_an_unknown_engine_lists_the_known():
    with pytest.raises(InputError, match="'castep'; known: emt, gpaw, xtb"):
        make_engine("castep")


def test_emt_takes_no_settings():
    with pytest.raises(InputError, match="takes no settings, got cutoff_ev"):
        make_engine("emt", {"cutoff_ev": 3})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"cutof": 400}, "setting cutof=400.*it knows xc, cutoff_ev"),
        ({"timeout_s": "abc"}, "setting timeout_s='abc' must be a positive number of seconds"),
        ({"timeout_s": 0}, "setting timeout_s=0 must be"),
        ({"timeout_s": float("nan")}, "setting timeout_s=nan must be"),
        ({"cutoff_ev": -1}, "setting cutoff_ev=-1"),
        ({"cutoff_ev": float("inf")}, "setting cutoff_ev=inf"),
        ({"xc": "SCAN"}, "setting xc='SCAN': Input should be 'PBE', 'LDA'"),
        ({"smearing": "gauss"}, "setting smearing='gauss'"),
        ({"theory": "pbe/vasp"}, "theory 'pbe/vasp' is not a GPAW one"),
    ],
)
def test_a_wrong_setting_of_gpaw_is_named(settings, said):
    with pytest.raises(InputError, match=said):
        make_engine("gpaw", settings)


def test_settings_lie_over_the_theory_key():
    pytest.importorskip("gpaw")
    engine = make_engine("gpaw", {"theory": "lda/gpaw-pw400-k3-fd0.1", "cutoff_ev": 500, "timeout_s": 7})()
    assert engine.theory == "lda/gpaw-pw500-k3-fd0.1"
    assert engine.timeout_s == 7


@given(
    xc=st.sampled_from(sorted(FUNCTIONALS.values())),
    cutoff=st.floats(1e-6, 1e7),
    density=st.floats(1e-6, 1e3),
    smearing=st.sampled_from(["fermi-dirac", "marzari-vanderbilt"]),
    width=st.floats(1e-9, 10),
)
def test_a_theory_key_says_all_settings(xc, cutoff, density, smearing, width):
    settings = GpawSettings(xc=xc, cutoff_ev=cutoff, k_density=density, smearing=smearing, smearing_ev=width)
    assert GpawSettings.from_theory(settings.theory) == settings


def test_a_theory_key_has_no_exponents():
    assert GpawSettings(smearing_ev=1e-5).theory == "pbe/gpaw-pw600-k3.6-mv0.00001"


@pytest.mark.parametrize(
    "key", ["", "emt/ase", "pbe/gpaw-pw600", "b3lyp/gpaw-pw600-k2-fd0.1", "pbe/gpaw-pw6.0.0-k2-fd0.1"]
)
def test_other_keys_are_refused(key):
    with pytest.raises(InputError, match="not a GPAW one"):
        GpawSettings.from_theory(key)
