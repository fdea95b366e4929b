"""Draw what the README shows: the real page and command, and the boards' own queries, asked of a real Prometheus.

The boards are drawn by a small renderer: it is not Grafana, and says so in each picture. What it does not know of a
dashboard (a panel type, a transformation, a unit, an override) is an error that names it.
"""
