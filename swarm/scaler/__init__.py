"""The scaler: measure (ports), decide (policy, placement), act (reconcile)."""
