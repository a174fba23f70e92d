"""`make chaos BROKERS=2`: the lab with a hosted Redis as the primary, which fails in every way.

Producers on two hosts go on meanwhile, by way of the fallback, and come back by themselves. What
decides (schedule, calls, judgement, conclusion) is pure; the witness is both append-only files.
"""
