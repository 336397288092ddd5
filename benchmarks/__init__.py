"""Benchmarks: what the gateway costs beside the proxies a user would pick instead, in the same run.

`benchmarks/run` measures and prints; docs/performance.md says how and why. Nothing in the gateway imports this package.
"""
