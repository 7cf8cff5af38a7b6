"""Output of evaluations: tables, JSON and figures."""
