"""Engines: where workflows run. Each implements `pow.engine.Engine`."""
