"""Adapters between the neutral model and the frameworks, one package each. `converter.discovery` finds them."""
