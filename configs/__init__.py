"""Hydra groups: a thing is pluggable by being importable and having one YAML here."""
