"""The method contract, the registry, spec strings, token lengths and errors. Imports nothing else of longreach, and not torch."""
