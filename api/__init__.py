"""HTTP in, HTTP out, and the web page."""
