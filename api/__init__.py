"""HTTP in, HTTP out, and the web page."""

METRICS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names where several workers of one server put their numbers, and whether they
are ready, so that any of them tells all. It must be set before `prometheus_client` is imported."""
