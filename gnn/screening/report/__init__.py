"""The report of a campaign: one HTML page that needs nothing beside itself.

`write_report(folder, context)` draws what a `ReportContext` holds; whoever runs the campaign fills the context.
"""

from gnn.screening.report.context import (
    CANDIDATE_COLUMNS,
    CampaignFacts,
    CostRow,
    DftComparison,
    FunnelRow,
    HullEntry,
    KnownCompound,
    Parity,
    Provenance,
    ReportContext,
)
from gnn.screening.report.page import render, write_report

__all__ = [
    "CANDIDATE_COLUMNS",
    "CampaignFacts",
    "CostRow",
    "DftComparison",
    "FunnelRow",
    "HullEntry",
    "KnownCompound",
    "Parity",
    "Provenance",
    "ReportContext",
    "render",
    "write_report",
]
