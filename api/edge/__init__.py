"""The outermost layers: what all requests and all answers have to do with."""
