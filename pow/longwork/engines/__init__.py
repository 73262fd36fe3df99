"""Engines: where workflows run. Each implements `pow.longwork.engine.Engine`."""
