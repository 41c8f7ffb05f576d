"""Rewrite a network's parameters with scale factors, and prove that its function is preserved."""
