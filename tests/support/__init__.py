"""What tests in several folders build their scenes from."""
