"""Trains any-width networks and writes model files."""
