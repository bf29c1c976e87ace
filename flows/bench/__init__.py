"""What `sluice bench` runs."""
