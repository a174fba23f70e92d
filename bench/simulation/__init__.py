"""The scaler's real policy and two models of others on a virtual clock: `make bench-scaler`.

    traces -> world <- models: ours (the real Reconciler), keda, exact
                |
             figures -> report, plots

What is simulated, and how to read it, is in docs/explanation/scaler-simulation.md.
"""
