"""What is wild is dropped for a reason that can be counted."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from gnn.graphs.outliers import OutlierRule, outlier_reason

DEFAULT = OutlierRule()


@pytest.mark.parametrize(
    ("flags", "force", "reason"),
    [
        ((), 351.0, "large-force"),
        ((), 49.9, None),
        ((), None, None),
        (("large-force",), 10.0, None),
        (("close-contact",), 1.0, None),
        (("high-energy",), None, "high-energy"),
        (("implausible:gap",), None, "implausible"),
        (("large-stress", "scf-unconverged"), 1.0, "large-stress"),
        (("high-energy",), 99.0, "large-force"),
    ],
)
def test_the_default_rule(flags, force, reason):
    assert outlier_reason(flags, force, DEFAULT) == reason


def test_a_rule_may_keep_everything():
    assert outlier_reason(("high-energy",), 1e6, OutlierRule(max_force=None, drop_flags=())) is None


def test_a_rule_may_drop_more():
    assert outlier_reason(("close-contact",), 1.0, OutlierRule(drop_flags=("close-contact",))) == "close-contact"


def test_a_negative_limit_is_refused():
    with pytest.raises(ValidationError):
        OutlierRule(max_force=-1)
