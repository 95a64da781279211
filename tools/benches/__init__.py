"""The benches of tools/bench.py, one a file."""
