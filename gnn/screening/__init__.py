"""Screening: candidates, filters, hulls, selection, campaigns and their report."""
